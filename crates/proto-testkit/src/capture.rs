//! Recorded conversations: JSON lines, one for each read.

use bytes::Bytes;
use proxy_core::Peer;
use serde::Deserialize;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A line is not what it should be.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The file cannot be read.
    #[error("the capture cannot be read")]
    File(#[source] std::io::Error),
}

/// One read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Number of the TCP connection within the file.
    pub connection: u64,
    /// Microseconds since it opened.
    pub at_us: u64,
    /// Who sent it.
    pub from: Peer,
    /// The bytes. Not aligned to frames.
    pub bytes: Bytes,
}

/// A file of reads, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Its reads.
    pub reads: Vec<Read>,
}

#[derive(Deserialize)]
struct Line {
    connection: u64,
    at_us: u64,
    from: String,
    hex: String,
}

impl Capture {
    /// Reads JSON lines.
    ///
    /// # Errors
    /// [`CaptureError::Line`].
    pub fn parse(text: &str) -> Result<Self, CaptureError> {
        let mut reads = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fail = |what: String| CaptureError::Line { line: number.saturating_add(1), what };
            let parsed: Line = serde_json::from_str(line).map_err(|error| fail(error.to_string()))?;
            let from = match parsed.from.as_str() {
                "client" => Peer::Client,
                "upstream" => Peer::Upstream,
                other => return Err(fail(format!("\"from\" is \"{other}\", not client or upstream"))),
            };
            let bytes = decode_hex(&parsed.hex).ok_or_else(|| fail("\"hex\" is not hexadecimal".into()))?;
            reads.push(Read { connection: parsed.connection, at_us: parsed.at_us, from, bytes });
        }
        Ok(Self { reads })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn load(path: impl AsRef<std::path::Path>) -> Result<Self, CaptureError> {
        Self::parse(&std::fs::read_to_string(path).map_err(CaptureError::File)?)
    }

    /// The numbers of its connections, in order.
    #[must_use]
    pub fn connections(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.reads.iter().map(|read| read.connection).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// All that one peer sent on one connection.
    #[must_use]
    pub fn stream(&self, connection: u64, from: Peer) -> Vec<u8> {
        let of = self.reads.iter().filter(|read| read.connection == connection && read.from == from);
        of.flat_map(|read| read.bytes.iter().copied()).collect()
    }
}

fn decode_hex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_and_names_the_bad_one() {
        let capture = Capture::parse(
            "{\"connection\":1,\"at_us\":5,\"from\":\"client\",\"hex\":\"0aff\"}\n\n{\"connection\":1,\"at_us\":6,\"from\":\"client\",\"hex\":\"\"}",
        )
        .unwrap();
        assert_eq!(capture.stream(1, Peer::Client), [0x0a, 0xff]);
        assert_eq!(capture.connections(), [1]);
        let bad = Capture::parse("{\"connection\":1,\"at_us\":5,\"from\":\"server\",\"hex\":\"\"}").unwrap_err();
        assert!(bad.to_string().starts_with("line 1: "), "{bad}");
        assert!(Capture::parse("{\"connection\":1,\"at_us\":5,\"from\":\"client\",\"hex\":\"0\"}").is_err());
    }
}
