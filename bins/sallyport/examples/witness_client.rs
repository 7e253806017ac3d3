//! The gateway's side of witnesses, for `tests/tlog/witness.sh`: a log that has checkpoints cosigned, by any witness.
//!
//! ```text
//! witness_client key                          its verifier key
//! witness_client cosign URL KEY SIZE…         has the checkpoints of these sizes cosigned, one after the other, and prints
//!                                             the last; the first that is not cosigned ends it, with why
//! witness_client fork   URL KEY SIZE…         the same, of a history that parts from the other at its entry 100
//! ```

use sallyport::config::WitnessConfig;
use sallyport::witness::Witnesses;
use std::collections::HashMap;
use std::process::ExitCode;
use tlog::merkle::{Frontier, Node, consistency_proof, leaf_hash};
use tlog::{Checkpoint, Hash, KeyKind, Signer, Verifier};

const ORIGIN: &str = "example.com/rust-log";
const LEAVES: u64 = 300;
const PARTS_AT: u64 = 100;

struct Log {
    signer: Signer,
    nodes: HashMap<Node, Hash>,
    roots: Vec<Hash>,
}

impl Log {
    fn new(history: &str) -> Result<Self, String> {
        let signer = Signer::from_seed(ORIGIN, KeyKind::Log, &[5; 32]).map_err(|error| error.to_string())?;
        let (mut nodes, mut frontier) = (HashMap::new(), Frontier::default());
        let mut roots = vec![frontier.root()];
        for at in 0..LEAVES {
            let history = if at < PARTS_AT { "" } else { history };
            frontier.push(leaf_hash(format!("entry {at} {history}").as_bytes()), |node, hash| {
                nodes.insert(node, *hash);
            });
            roots.push(frontier.root());
        }
        Ok(Self { signer, nodes, roots })
    }

    fn note(&self, size: u64) -> Option<String> {
        let root = *self.roots.get(usize::try_from(size).ok()?)?;
        let text = Checkpoint { origin: ORIGIN.to_owned(), size, root }.to_string();
        Some(format!("{text}\n{}", self.signer.sign(&text, 0)))
    }

    fn proof(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        consistency_proof(old, new, |node| self.nodes.get(&node).copied().ok_or(())).ok()
    }
}

fn cosign(history: &str, url: &str, key: &str, sizes: &[String]) -> Result<(), String> {
    let log = Log::new(history)?;
    let key = Verifier::parse(key).map_err(|error| error.to_string())?;
    let config = WitnessConfig { key, url: url.to_owned(), ca: None };
    let witnesses = Witnesses::new(&[config], 1).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let mut last = String::new();
    for size in sizes {
        let size = size.parse().map_err(|_| format!("{size} is not a size"))?;
        let note = log.note(size).ok_or_else(|| format!("the log has {LEAVES} entries"))?;
        let cosigned = runtime.block_on(witnesses.cosign(&note, |old, new| log.proof(old, new)));
        if let Some((_, why)) = cosigned.missing.first() {
            return Err(format!("{why:?}"));
        }
        last = cosigned.note;
    }
    print!("{last}");
    Ok(())
}

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [command] if command == "key" => Log::new("").map(|log| println!("{}", log.signer.verifier())),
        [command, url, key, sizes @ ..] if command == "cosign" => cosign("", url, key, sizes),
        [command, url, key, sizes @ ..] if command == "fork" => cosign("fork", url, key, sizes),
        _ => Err("usage: witness_client key | cosign URL KEY SIZE… | fork URL KEY SIZE…".to_owned()),
    };
    let Err(why) = done else { return ExitCode::SUCCESS };
    eprintln!("{why}");
    ExitCode::FAILURE
}
