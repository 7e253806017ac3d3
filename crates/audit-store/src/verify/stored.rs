//! Verifying a store, live or not.

use super::check::{Beside, Check};
use super::claims::Claims;
use super::{Expected, Verification};
use crate::db::{Db, Stored};
use crate::log::{Chunks, Leaves};
use crate::tree::kept_hash;
use proxy_core::StoreError;
use tlog::Node;
use tlog::merkle::Hash;

/// What a store has beside its leaves.
struct Kept<'d> {
    db: &'d Db,
}

impl Beside for Kept<'_> {
    fn payload(&mut self, index: u64, field: u32) -> Result<Option<Stored>, StoreError> {
        self.db.stored_payload(index, field)
    }

    fn node(&mut self, node: Node) -> Result<Option<Hash>, StoreError> {
        kept_hash(self.db, node)
    }
}

/// Checks the entries from `from` to before `to`, against each other alone.
pub(crate) fn sequence(db: &Db, from: u64, to: u64, mut progress: impl FnMut(u64)) -> Result<Verification, StoreError> {
    let mut check = Check::new(Kept { db }, from, to, Vec::new(), &mut progress);
    check.keys = db.keys().cloned();
    read(db, from, to, &mut check)?;
    Ok(check.finish())
}

/// Checks all entries before `end`, and what is expected of them.
pub(crate) fn stored(db: &Db, end: u64, expected: &Expected, mut progress: impl FnMut(u64)) -> Result<Verification, StoreError> {
    let claims = Claims::read(expected.checkpoint.as_deref(), &expected.earlier);
    let mut check = Check::new(Kept { db }, 0, end, claims.sizes(), &mut progress);
    check.keys = expected.payload_keys.as_ref().or(db.keys()).cloned();
    read(db, 0, end, &mut check)?;
    if check.begin_again() {
        read(db, 0, end, &mut check)?;
    }
    claims.settle(&mut check, expected);
    Ok(check.finish())
}

fn read<B: Beside>(db: &Db, from: u64, to: u64, check: &mut Check<'_, B>) -> Result<(), StoreError> {
    let mut chunks = Chunks::new(db, true)?;
    let mut moved = chunks.seek(from);
    while check.expected() < to {
        if let Err(error) = moved {
            // What cannot be read cannot be stepped over either: the rest of the file's block is gone.
            check.finding(check.expected(), None, format!("{error}; nothing after it was checked"));
            return Ok(());
        }
        let current = match chunks.current() {
            Ok(current) => current,
            Err(error) => {
                check.finding(check.expected(), None, error.to_string());
                return Ok(());
            }
        };
        let Some((first, chunk)) = current else { break };
        for (index, leaf) in (first..to).zip(Leaves::new(chunk)) {
            if index >= check.expected() {
                check.take(index, leaf)?;
            }
        }
        moved = chunks.next();
    }
    check.end(to);
    Ok(())
}
