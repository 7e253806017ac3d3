//! The log as it is published: files that never change, under the paths of C2SP tlog-tiles, and payloads beside them.
//!
//! ```text
//! checkpoint                 the last checkpoint, a signed note: the only file that is replaced
//! tile/LEVEL/INDEX[.p/W]     hashes
//! tile/entries/INDEX[.p/W]   leaves, each after its length (2 bytes, big-endian)
//! payload/INDEX[.p/W]        what is kept beside the entries of that bundle; no file where there is nothing
//! payload file = records     place in the bundle (1 byte), field (1), length (4, big-endian), salt (16), content;
//!                            with the field's bit 128: sealed (`seal.rs`) in place of salt and content
//! ```
//!
//! A partial file (`.p/W`) is there for the checkpoint that needs it, and is removed once the full one is there and a later
//! checkpoint was published.

use crate::db::{Db, Stored};
use crate::decode;
use crate::log::{self, Go};
use crate::seal::SEALED;
use crate::tree::leaf_hash_at;
use proxy_core::StoreError;
use tlog::tile::{Content, Tile, WIDTH};

/// The path of the payloads of a bundle of entries.
#[must_use]
pub fn payload_path(entries: &Tile) -> String {
    let path = entries.to_string();
    path.strip_prefix("tile/entries/").map_or_else(|| path.clone(), |rest| format!("payload/{rest}"))
}

/// What is published of the entries of one bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// `tile/entries/…`.
    pub entries: Vec<u8>,
    /// `tile/0/…`.
    pub hashes: Vec<u8>,
    /// `payload/…`; empty: there are none.
    pub payloads: Vec<u8>,
}

/// Reads a bundle, once, in place of what `bundle` had.
pub(crate) fn read(db: &Db, entries: &Tile, bundle: &mut Bundle) -> Result<(), StoreError> {
    let Bundle { entries: leaves, hashes, payloads } = bundle;
    [&mut *leaves, &mut *hashes, &mut *payloads].into_iter().for_each(Vec::clear);
    let first = entries.index * WIDTH;
    let range = first..first + u64::from(entries.width);
    let hashed = db.known_leaf_hashes(&range, hashes);
    let beside = db.has_payloads(&range)?;
    log::scan_all(db, range.start, range.end, |index, leaf| {
        log::put_leaf(leaves, index, leaf)?;
        if !hashed {
            hashes.extend_from_slice(&leaf_hash_at(db, index, leaf)?);
        }
        if beside && !leaf.is_empty() {
            put_payloads(db, first, index, leaf, payloads)?;
        }
        Ok(Go::On)
    })
}

/// The payloads of the entries of a bundle; `None`: there are none.
pub(crate) fn payloads(db: &Db, entries: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
    let (first, mut content) = (entries.index * WIDTH, Vec::new());
    let range = first..first + u64::from(entries.width);
    if !db.has_payloads(&range)? {
        return Ok(None);
    }
    log::scan(db, range.start, range.end, |index, leaf| put_payloads(db, first, index, leaf, &mut content).map(|()| Go::On))?;
    Ok((!content.is_empty()).then_some(content))
}

/// Appends what is kept beside the entry at `index`, of the bundle that begins at `first`.
fn put_payloads(db: &Db, first: u64, index: u64, leaf: &[u8], content: &mut Vec<u8>) -> Result<(), StoreError> {
    for commitment in decode::commitments(leaf).map_err(|error| log::damaged(index, &error))? {
        let (payload, field) = match db.stored_payload(index, commitment.field)? {
            None => continue,
            Some(Stored::Plain(payload)) => (payload, commitment.field),
            Some(Stored::Sealed(payload)) => (payload, commitment.field | SEALED),
        };
        let place = u8::try_from(index - first).unwrap_or(u8::MAX);
        let field = u8::try_from(field).unwrap_or(u8::MAX);
        let length = u32::try_from(payload.len())
            .map_err(|_| StoreError::Io(format!("a payload of entry {index} is longer than 4 GiB")))?;
        content.extend_from_slice(&[place, field]);
        content.extend_from_slice(&length.to_be_bytes());
        content.extend_from_slice(&payload);
    }
    Ok(())
}

/// Place in the bundle and field, with the bit of sealed ones; what follows.
type Payload<'f> = ((u8, u8), &'f [u8]);

/// Takes the file of a bundle's payloads apart. `None`: it is damaged.
pub(crate) fn take_payloads(mut file: &[u8]) -> Option<Vec<Payload<'_>>> {
    let mut taken = Vec::new();
    while let Some(([place, field, length @ ..], rest)) = file.split_first_chunk::<6>() {
        let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        taken.push(((*place, *field), payload));
        file = rest;
    }
    file.is_empty().then_some(taken)
}

/// The partial files of a log of `size` entries.
pub(crate) fn partial(size: u64) -> impl Iterator<Item = Tile> {
    let contents = std::iter::once(Content::Entries).chain(Tile::levels(size).map(Content::Hashes));
    // The last of each.
    contents.filter_map(move |content| Tile::of_tree(content, size, content.items(size) / WIDTH).next())
}

/// The files that a log of `size` entries has and one of `before` had not, in the order in which they are to be published:
/// the checkpoint after them.
pub(crate) fn files(before: u64, size: u64) -> impl Iterator<Item = Tile> {
    let contents = std::iter::once(Content::Entries).chain(Tile::levels(size).map(Content::Hashes));
    let tiles = contents.flat_map(move |content| Tile::of_tree(content, size, content.items(before) / WIDTH));
    tiles.filter(move |tile| tile.entries() > before)
}
