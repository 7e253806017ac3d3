//! `sallyport audit`: the log as it grows, and whether it holds together.

mod begin;
mod export;
mod keeping;
mod key;
mod progress;
mod prove;
mod reindex;
mod repair;
mod verify;

use super::logs::{self, Source};
use super::output::Tone;
use super::remote::{block_on, encode};
use super::sessions::short;
use super::{Failure, Output};
use audit_store::{EntryFilter, Reader};
use clap::Subcommand;
use control_plane::log::{Filter, find_session, forward, last};
use control_plane::view::{self, printable, summary};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How often the end of the log is looked at, when no gateway runs that would tell.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// `audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The last entries; with --follow, those that come as well
    Tail(Box<Tail>),
    /// Whether the log is the one that was written, all of it, and nothing else
    ///
    /// Reads every entry, makes the Merkle tree anew, and holds it against the log's signed checkpoint, its keys and what
    /// you hold. Without a PATH, it is the log of this configuration. No gateway, key or network is needed for a PATH.
    Verify(verify::Args),
    /// Write a proof of an entry or of a whole session: a folder that `audit verify` checks without the log or a network
    Prove(prove::Args),
    /// Legal holds: what is kept whatever the rules say
    Hold(keeping::HoldArgs),
    /// Destroy a person's data: fields that are kept beside an entry, or a whole entry. The log's proofs stay good
    Redact(keeping::RedactArgs),
    /// Apply the rules of [[retention]] now; they are applied every hour anyway
    Retain,
    /// The last published checkpoint: keep it elsewhere, and `audit verify --checkpoint` detects any change since
    Checkpoint,
    /// The log's name and public keys, or a new key
    Key(key::Args),
    /// Go on with a log whose folder was copied or restored, of which this is the only copy
    Continue(begin::Args),
    /// Set the log aside for good and begin a new one, which says where the old one ended
    NewLog(begin::Args),
    /// Make anew what is derived from the log: what sessions are listed by, and entries are found by
    ///
    /// No gateway may be running. A gateway does it by itself where the index is missing or of another version.
    Reindex,
    /// Entries in a format that others read, and a manifest that says what the export is
    ///
    /// The manifest says what was asked for and by whom, how many entries were looked at and exported with their first
    /// and last index, and the SHA-256 of the data. It stands beside the file as FILE.manifest.json; with standard output
    /// it is the last line on standard error. An export that did not come to its end leaves no file, and the status is 1.
    Export(Box<export::Args>),
    /// What a log that cannot be opened still has; with --drop-damaged-tail, go on from there
    ///
    /// For a log whose end a power loss has damaged; no gateway may be running. Without the option nothing is changed.
    /// With it, the damaged log is set aside as it is beside the audit folder, what stands before the damage becomes
    /// the log, and its next entry says how much was kept and dropped, by whom, and where the damaged log is.
    Repair {
        /// Drop what follows the damage
        #[arg(long)]
        drop_damaged_tail: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Tail {
    #[command(flatten)]
    filter: Filter,
    /// How many from before now
    #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER")]
    last: usize,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only of this session: its id, or the start of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only this kind of entry: request, outcome, login_failed, session_started …; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.action {
        Action::Tail(tail) => self::tail(file, tail, output),
        Action::Verify(args) => verify::run(file, args, output),
        Action::Prove(args) => prove::run(file, args, output),
        Action::Hold(args) => keeping::hold(file, args, output),
        Action::Redact(args) => keeping::redact(file, args, output),
        Action::Retain => keeping::retain(file, output),
        Action::Checkpoint => key::checkpoint(file, output),
        Action::Key(args) => key::run(file, args, output),
        Action::Continue(args) => begin::continue_here(file, args, output),
        Action::NewLog(args) => begin::new_log(file, args, output),
        Action::Reindex => reindex::run(file, output),
        Action::Export(args) => export::run(file, args, output),
        Action::Repair { drop_damaged_tail } => repair::run(file, *drop_damaged_tail, output),
    }
}

fn tail(file: &Path, args: &Tail, output: &Output) -> Result<(), Failure> {
    let mut filter = args.filter.entries(&args.kinds)?;
    match logs::open(file)? {
        Source::Gateway(client) => {
            let mut path =
                format!("/api/v1/audit/entries?{}last={}&follow={}", logs::query(&args.filter), args.last, args.follow);
            if let Some(session) = &args.session {
                path.push_str(&format!("&session={}", encode(session)));
            }
            if !args.kinds.is_empty() {
                path.push_str(&format!("&kinds={}", encode(&args.kinds.join(","))));
            }
            block_on(client.lines(&path, |entry| print(&entry, output)))
        }
        Source::Files(reader) => {
            filter.session = args.session.as_deref().map(|id| find_session(&reader, id)).transpose()?;
            let (found, from) = last(&reader, &filter, args.last)?;
            for entry in &found {
                print(&view::entry(entry), output)?;
            }
            if args.follow {
                return follow(&reader, from, &filter, output);
            }
            Ok(())
        }
    }
}

/// Prints what comes, for ever.
fn follow(reader: &Reader, mut from: u64, filter: &EntryFilter, output: &Output) -> Result<(), Failure> {
    loop {
        let mut failed = None;
        let next = forward(reader, from, filter, |entry| {
            failed = print(&view::entry(&entry), output).err();
            failed.is_none()
        })?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        from = next.unwrap_or(from);
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

fn print(entry: &Value, output: &Output) -> Result<(), Failure> {
    if output.json() {
        return output.json_line(entry);
    }
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let tone = match (text("event"), text("verdict")) {
        ("request", "allow") => Some(Tone::Good),
        ("request", "hold") | ("approval", _) => Some(Tone::Doubtful),
        ("request" | "login_failed" | "reload_refused", _) => Some(Tone::Bad),
        ("heartbeat" | "log_read", _) => Some(Tone::Quiet),
        _ => None,
    };
    let line = printable(&summary(entry));
    let line = tone.map_or_else(|| line.clone(), |tone| output.paint(tone, &line));
    let (at, session) = (text("time").get(..23).unwrap_or_default(), short(text("session")));
    output.line(format!("{}  {session:13}  {line}", output.paint(Tone::Quiet, at)));
    Ok(())
}
