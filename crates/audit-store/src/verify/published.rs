//! Verifying a published log, wherever its files are.

use super::check::{Beside, Check};
use super::claims::Claims;
use super::{Blobs, Expected, Verification};
use crate::db::Stored;
use crate::log::Leaves;
use crate::published::{payload_path, take_payloads};
use crate::seal::SEALED;
use hashbrown::HashMap;
use proxy_core::StoreError;
use tlog::merkle::Hash;
use tlog::tile::{Content, HEIGHT, Tile, WIDTH};
use tlog::{Node, Note};

/// Files beside the bundle that is read.
struct Files<'b> {
    blobs: &'b dyn Blobs,
    size: u64,
    payloads: HashMap<(u64, u32), Stored>,
    /// Of each level, the tile that was read last.
    tiles: HashMap<u8, (u64, Option<Vec<u8>>)>,
}

impl Beside for Files<'_> {
    fn payload(&mut self, index: u64, field: u32) -> Result<Option<Stored>, StoreError> {
        Ok(self.payloads.get(&(index, field)).cloned())
    }

    fn node(&mut self, node: Node) -> Result<Option<Hash>, StoreError> {
        if !node.level.is_multiple_of(HEIGHT) {
            return Ok(None);
        }
        let (level, tile) = (node.level / HEIGHT, node.index / WIDTH);
        if self.tiles.get(&level).is_none_or(|(known, _)| *known != tile) {
            let named = Tile::of_tree(Content::Hashes(level), self.size, tile).next();
            let content = named.map(|named| get(self.blobs, &named)).transpose()?.flatten();
            self.tiles.insert(level, (tile, content));
        }
        let content = self.tiles.get(&level).and_then(|(_, content)| content.as_ref());
        let at = usize::try_from(node.index % WIDTH).unwrap_or(usize::MAX).saturating_mul(32);
        Ok(content.and_then(|content| content.get(at..at.saturating_add(32))?.try_into().ok()))
    }

    fn kept_after(&mut self, size: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.blobs.kept_after(size)
    }
}

/// Bundles after one another that may be missing (1,024) before nothing further is looked for: a checkpoint that claims more
/// entries than anybody can have must not keep a verifier busy for ever.
const MISSING_MAX: u32 = 1_024;

/// The content of a tile, or of the full one that has replaced it.
fn get(blobs: &dyn Blobs, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
    if let Some(content) = blobs.get(&tile.to_string())? {
        return Ok(Some(content));
    }
    if tile.is_full() { Ok(None) } else { blobs.get(&full(tile).to_string()) }
}

fn full(tile: &Tile) -> Tile {
    Tile { width: u16::try_from(WIDTH).unwrap_or(u16::MAX), ..*tile }
}

/// Checks a published log: every entry that its last checkpoint commits to, and what is expected.
///
/// # Errors
/// [`StoreError`]: the files cannot be read.
pub fn published(blobs: &dyn Blobs, expected: &Expected, mut progress: impl FnMut(u64, u64)) -> Result<Verification, StoreError> {
    let own = match &expected.checkpoint {
        Some(given) => Some(given.clone()),
        None => blobs.get("checkpoint")?.map(|note| String::from_utf8_lossy(&note).into_owned()),
    };
    let size = own.as_deref().and_then(|note| Note::parse(note.as_bytes()).ok()?.checkpoint().ok());
    let size = size.map_or(0, |checkpoint| checkpoint.size);
    let claims = Claims::read(own.as_deref(), &expected.earlier);
    let files = Files { blobs, size, payloads: HashMap::new(), tiles: HashMap::new() };
    let mut report = |checked| progress(checked, size);
    let mut check = Check::new(files, 0, size, claims.sizes(), &mut report);
    check.keys.clone_from(&expected.payload_keys);
    if own.is_none() {
        check.finding(0, None, "there is no checkpoint: nothing says how long the log is");
    }
    check.begin_kept()?;
    loop {
        let mut missing = 0;
        for tile in Tile::of_tree(Content::Entries, size, 0) {
            missing = if bundle(blobs, &tile, &mut check)? { 0 } else { missing + 1 };
            if missing > MISSING_MAX {
                break;
            }
        }
        check.end(size);
        if !check.begin_again() {
            break;
        }
    }
    claims.settle(&mut check, expected);
    Ok(check.finish())
}

/// Checks the entries of one bundle; whether it is there.
fn bundle(blobs: &dyn Blobs, tile: &Tile, check: &mut Check<'_, Files<'_>>) -> Result<bool, StoreError> {
    let first = tile.index * WIDTH;
    let Some(content) = get(blobs, tile)? else { return Ok(false) };
    check.beside.payloads.clear();
    let payloads = match blobs.get(&payload_path(tile))? {
        None if !tile.is_full() => blobs.get(&payload_path(&full(tile)))?,
        found => found,
    };
    if let Some(file) = payloads {
        match take_payloads(&file) {
            Some(taken) => {
                for ((place, field), payload) in taken {
                    let (index, field, payload) = (first + u64::from(place), u32::from(field), payload.to_vec());
                    let payload = if field & SEALED == 0 { Stored::Plain(payload) } else { Stored::Sealed(payload) };
                    check.beside.payloads.insert((index, field & !SEALED), payload);
                }
            }
            None => check.finding(first, None, format!("{} is damaged", payload_path(tile))),
        }
    }
    let mut leaves = Leaves::new(&content);
    for index in first..first + u64::from(tile.width) {
        let Some(leaf) = leaves.next() else { break };
        let ends = leaf.is_err();
        check.take(index, leaf)?;
        if ends {
            break;
        }
    }
    Ok(true)
}
