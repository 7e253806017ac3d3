//! The checkpoints that are kept beside the last one, each against the tree of as many entries.

use super::keys::Chain;
use tlog::{Hash, Note};

/// Whether `note` is the log's checkpoint of its first `size` entries, whose root is `root`; if not, what is wrong.
pub(super) fn check(note: &[u8], size: u64, root: &Hash, chain: &Chain) -> Result<(), String> {
    let what = format!("the checkpoint that is kept of {size} entries");
    let read = Note::parse(note).and_then(|note| Ok((note.checkpoint()?, note)));
    let (checkpoint, note) = read.map_err(|error| format!("{what} is none: {error}"))?;
    if checkpoint.origin != chain.origin() {
        return Err(format!("{what} is of the log {:?}; this one is {:?}", checkpoint.origin, chain.origin()));
    }
    if checkpoint.size != size {
        return Err(format!("{what} commits to {} entries: another was put in its place", checkpoint.size));
    }
    let unsigned = |error| format!("{what} is not signed by the key that the log has there: {error}");
    note.verify(chain.at(size).as_slice()).map_err(unsigned)?;
    if checkpoint.root == *root { Ok(()) } else { Err(format!("the first {size} entries are not those that {what} commits to")) }
}
