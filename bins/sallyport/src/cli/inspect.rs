//! `sallyport inspect`: a recorded conversation, one line for each frame.

mod store;

use super::{Failure, Output};
use proto_postgres::dump::{dump, frames};
use proto_postgres::frame::peek;
use proto_postgres::message::StartupPacket;
use proxy_core::Peer;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Longest capture (256 MiB): it is read whole.
const CAPTURE_MAX: u64 = 256 << 20;

/// `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file of JSON lines, one for each read: connection, at_us, from (client or upstream), hex; or the folder of an
    /// audit store, or a gateway's data folder
    #[arg(value_name = "CAPTURE|STORE")]
    capture: PathBuf,
    /// Of a store: one entry, field by field, with where each stands
    #[arg(value_name = "ENTRY")]
    entry: Option<u64>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    connection: u64,
    at_us: u64,
    from: String,
    hex: String,
}

/// What one peer of one connection has sent and is not shown yet.
#[derive(Default)]
struct Stream {
    buffer: Vec<u8>,
    /// Whether its start (startup packets, answers to SSLRequest) is over.
    started: bool,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let shown = args.capture.display();
    if args.capture.is_dir() {
        let folder = store::find(&args.capture);
        let folder = folder.ok_or_else(|| Failure::usage(format!("{shown} is a folder, and has no audit store in it")))?;
        return store::run(&folder, args.entry, output);
    }
    if args.entry.is_some() {
        return Err(Failure::usage(format!("{shown} is no audit store: it has no entries")));
    }
    let cannot = |error: std::io::Error| Failure::usage(format!("{shown} cannot be read: {error}"));
    if std::fs::metadata(&args.capture).map_err(cannot)?.len() > CAPTURE_MAX {
        return Err(Failure::usage(format!("{shown} is larger than 256 MiB; cut it into connections")));
    }
    let text = std::fs::read_to_string(&args.capture).map_err(cannot)?;
    for (connection, at_us, line) in describe(&text, &args.capture)? {
        if output.json() {
            output.json_line(&serde_json::json!({ "connection": connection, "at_us": at_us, "frame": line }))?;
        } else {
            output.line(format!("{:>12.6} #{connection} {line}", at_us as f64 / 1e6));
        }
    }
    Ok(())
}

/// One line for each frame, in the order in which frames were complete.
fn describe(text: &str, file: &Path) -> Result<Vec<(u64, u64, String)>, Failure> {
    let mut streams: HashMap<(u64, bool), Stream> = HashMap::new();
    let mut lines = Vec::new();
    let mut last = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Failure::usage(format!("{}:{}: {what}", file.display(), number + 1));
        let read: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        let from = match read.from.as_str() {
            "client" => Peer::Client,
            "upstream" => Peer::Upstream,
            other => return Err(wrong(format!("from is {other:?}; it is client or upstream"))),
        };
        let bytes = unhex(&read.hex).ok_or_else(|| wrong("hex is not hexadecimal".to_owned()))?;
        let stream = streams.entry((read.connection, from == Peer::Client)).or_default();
        stream.buffer.extend_from_slice(&bytes);
        last.insert(read.connection, read.at_us);
        lines.extend(stream.take(from).into_iter().map(|line| (read.connection, read.at_us, line)));
    }
    // What was cut off in the middle.
    let mut rest: Vec<_> = streams.into_iter().filter(|(_, stream)| !stream.buffer.is_empty()).collect();
    rest.sort_by_key(|(key, _)| *key);
    for ((connection, client), stream) in rest {
        let mut left = Vec::new();
        frames(if client { Peer::Client } else { Peer::Upstream }, &stream.buffer, &mut left);
        let at = last.get(&connection).copied().unwrap_or(0);
        lines.extend(left.into_iter().map(|line| (connection, at, line)));
    }
    Ok(lines)
}

impl Stream {
    /// The lines of what is complete.
    fn take(&mut self, from: Peer) -> Vec<String> {
        let fresh = !self.started;
        let length = self.complete(from);
        let ready: Vec<u8> = self.buffer.drain(..length).collect();
        if fresh {
            return dump(from, &ready);
        }
        let mut lines = Vec::new();
        frames(from, &ready, &mut lines);
        lines
    }

    /// Bytes of whole frames at the front. What cannot be read counts as whole: it is shown as it is.
    fn complete(&mut self, from: Peer) -> usize {
        let mut at = 0;
        while let Some(rest) = self.buffer.get(at..).filter(|rest| !rest.is_empty()) {
            let length = if self.started {
                peek(rest).map(|header| header.map(|header| header.total))
            } else {
                start(from, rest, &mut self.started)
            };
            match length {
                Ok(Some(length)) if length <= rest.len() => at += length,
                Ok(_) => break,
                Err(_) => {
                    self.started = true;
                    return self.buffer.len();
                }
            }
        }
        at
    }
}

/// The length of the next part of a conversation's start; `started` is set with the last.
fn start(from: Peer, rest: &[u8], started: &mut bool) -> Result<Option<usize>, proto_postgres::Malformed> {
    match from {
        Peer::Client => {
            let Some(total) = StartupPacket::peek(rest)? else { return Ok(None) };
            if let Some(packet) = rest.get(..total) {
                *started = matches!(StartupPacket::parse(packet)?, StartupPacket::Startup { .. });
            }
            Ok(Some(total))
        }
        Peer::Upstream => match rest {
            // One letter answers SSLRequest; a frame's second byte is the top of its length.
            [b'N' | b'S' | b'G'] => Ok(Some(1)),
            [b'N' | b'S' | b'G', next, ..] if *next >= b'A' => Ok(Some(1)),
            _ => {
                *started = true;
                Ok(Some(0))
            }
        },
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_captures_are_described_whole() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/proto-postgres/captures"));
        for name in ["psql.jsonl", "asyncpg.jsonl", "pgbench-pipeline.jsonl"] {
            let file = folder.join(name);
            let lines = describe(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
            assert!(lines.iter().any(|(_, _, line)| line.starts_with("> StartupMessage")), "{name}");
            assert!(lines.iter().any(|(_, _, line)| line.starts_with("< ReadyForQuery")), "{name}");
            assert!(!lines.iter().any(|(_, _, line)| line.contains('!')), "{name}: {lines:?}");
        }
    }

    #[test]
    fn frames_are_shown_when_they_are_complete_and_leftovers_at_the_end() {
        let text = r#"
{"connection": 1, "at_us": 1, "from": "client", "hex": "0000000804d2162f"}
{"connection": 1, "at_us": 2, "from": "upstream", "hex": "4e"}
{"connection": 1, "at_us": 3, "from": "client", "hex": "0000000d0003000075736572"}
{"connection": 1, "at_us": 4, "from": "client", "hex": "0051000000"}
{"connection": 1, "at_us": 5, "from": "upstream", "hex": "5a00000005"}
{"connection": 1, "at_us": 6, "from": "upstream", "hex": "49"}
"#;
        let lines: Vec<_> = describe(text, Path::new("x")).unwrap().into_iter().map(|(_, at, line)| (at, line)).collect();
        assert_eq!(lines[0], (1, "> SSLRequest 8".to_owned()));
        assert_eq!(lines[1], (2, "< N 1".to_owned()));
        assert_eq!(lines[2].0, 4, "{lines:?}");
        assert_eq!(lines[3].0, 6, "{lines:?}");
        assert!(lines[3].1.starts_with("< ReadyForQuery"), "{lines:?}");
        assert_eq!(lines[4], (6, "> … 4 bytes of a header".to_owned()));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        for (bad, word) in [
            ("{}", "x:1:"),
            (r#"{"at_us":1,"from":"me","hex":""}"#, "client or upstream"),
            (r#"{"at_us":1,"from":"client","hex":"0"}"#, "hexadecimal"),
        ] {
            let failure = describe(bad, Path::new("x")).unwrap_err();
            assert!(failure.message.contains(word) && failure.status == 2, "{failure}");
        }
    }
}
