//! What is to be shipped next, without I/O.
//!
//! ```text
//! LOG ID/tile/LEVEL/INDEX[.p/WIDTH]     as published (docs/audit.md)
//! LOG ID/tile/entries/INDEX[.p/WIDTH]
//! LOG ID/payload/INDEX[.p/WIDTH]
//! LOG ID/checkpoints/SIZE               20 digits: they list in order
//! latest                                the only object that is replaced
//! ```

use super::STEP;
use std::ops::Range;
use tlog::Tile;
use tlog::tile::{Content, WIDTH};

/// The folder of the checkpoints.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// Full files that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Bundles of entries, by their indices; each with its tile of level 0 and its payloads.
    pub(super) bundles: Range<u64>,
    /// Tiles of higher levels that are full with them.
    pub(super) hashes: Vec<Tile>,
    /// Entries of which all full files are there after it.
    pub(super) next: u64,
}

/// The next step, where the full files of `full` entries are there and a checkpoint of `size` is to go. `None`: all of them
/// are there.
pub(super) fn step(full: u64, size: u64) -> Option<Step> {
    let (first, last) = (full / WIDTH, size / WIDTH);
    let bundles = first..last.min(first.saturating_add(STEP));
    let next = bundles.end.saturating_mul(WIDTH);
    let hashes = (1..=7).flat_map(|level| {
        let content = Content::Hashes(level);
        let tile = move |index| Tile { content, index, width: u16::try_from(WIDTH).unwrap_or(u16::MAX) };
        (content.items(first * WIDTH) / WIDTH..content.items(next) / WIDTH).map(tile)
    });
    (!bundles.is_empty()).then(|| Step { hashes: hashes.collect(), next, bundles })
}

/// A full bundle of entries.
pub(super) fn bundle(index: u64) -> Tile {
    Tile { content: Content::Entries, index, width: u16::try_from(WIDTH).unwrap_or(u16::MAX) }
}

/// The partial files that a checkpoint of `size` entries needs. That of the entries comes with its tile of level 0 and its
/// payloads, which are not named.
pub(super) fn edge(size: u64) -> Vec<Tile> {
    let contents = std::iter::once(Content::Entries).chain(Tile::levels(size).filter(|level| *level > 0).map(Content::Hashes));
    let last = contents.filter_map(|content| Tile::of_tree(content, size, content.items(size) / WIDTH).next());
    last.filter(|tile| !tile.is_full()).collect()
}

/// Where the checkpoint of `size` entries is kept.
pub(super) fn checkpoint_path(size: u64) -> String {
    format!("{CHECKPOINTS}/{size:020}")
}

/// The size that a checkpoint's name says; `None`: it is none.
pub(super) fn checkpoint_size(path: &str) -> Option<u64> {
    let size = path.strip_prefix(CHECKPOINTS)?.strip_prefix('/')?.parse().ok()?;
    (checkpoint_path(size) == path && size > 0).then_some(size)
}

/// How far a destination has come, by a listing of what is there.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    entries: Counted,
    hashes: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    next: u64,
}

impl Counted {
    fn add(&mut self, index: u64) {
        self.count += 1;
        self.next = self.next.max(index.saturating_add(1));
    }

    /// How many there are from the first on; 0 where one is missing in between.
    fn without_gaps(&self) -> u64 {
        if self.count == self.next { self.count } else { 0 }
    }
}

impl Inventory {
    /// Takes a path of the listing.
    pub(super) fn add(&mut self, path: &str) {
        match Tile::parse(path).filter(Tile::is_full) {
            Some(Tile { content: Content::Entries, index, .. }) => self.entries.add(index),
            Some(Tile { content: Content::Hashes(0), index, .. }) => self.hashes.add(index),
            Some(Tile { content: Content::Hashes(_), .. }) | None => {}
        }
    }

    /// Entries of which all full files are there for certain. Of the last step some may be missing: within one, nothing is in
    /// order. Nor are payloads and higher levels counted, which go with the same step.
    pub(super) fn full(&self) -> u64 {
        let bundles = self.entries.without_gaps().min(self.hashes.without_gaps());
        bundles.saturating_sub(STEP).saturating_mul(WIDTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(tiles: impl IntoIterator<Item = Tile>) -> Vec<String> {
        tiles.into_iter().map(|tile| tile.to_string()).collect()
    }

    #[test]
    fn a_step_is_bounded_and_takes_the_higher_tiles_that_it_fills() {
        assert_eq!(step(0, 255), None);
        assert_eq!(step(0, 256), Some(Step { bundles: 0..1, hashes: vec![], next: 256 }));
        assert_eq!(step(256, 300), None);
        let first = step(0, 70_000).unwrap();
        assert_eq!((first.bundles, first.next), (0..64, 64 * 256));
        let last = step(192 * 256, 70_000).unwrap();
        assert_eq!((last.bundles, names(last.hashes)), (192..256, vec!["tile/1/000".to_owned()]));
        assert_eq!(step(256 * 256, 70_000).unwrap().bundles, 256..273);
    }

    #[test]
    fn steps_and_edges_are_all_that_a_published_log_has() {
        for size in [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000, 131_072, 200_001] {
            for begin in [0, 256, 65_536] {
                let (mut full, mut there) = (begin.min(size / 256 * 256), BTreeSet::new());
                let before = full;
                while let Some(step) = step(full, size) {
                    assert!(step.bundles.start * 256 == full && step.bundles.clone().count() <= 64);
                    there.extend(step.bundles.clone().flat_map(|index| {
                        [bundle(index).to_string(), Tile { content: Content::Hashes(0), ..bundle(index) }.to_string()]
                    }));
                    there.extend(names(step.hashes));
                    full = step.next;
                }
                assert_eq!(full, size / 256 * 256);
                for tile in edge(size) {
                    there.insert(tile.to_string());
                    if tile.content == Content::Entries {
                        there.insert(Tile { content: Content::Hashes(0), ..tile }.to_string());
                    }
                }
                let contents = std::iter::once(Content::Entries).chain(Tile::levels(size).map(Content::Hashes));
                let all = contents.flat_map(|content| Tile::of_tree(content, size, 0));
                let needed: BTreeSet<String> = all.filter(|tile| tile.entries() > before).map(|tile| tile.to_string()).collect();
                let missing: Vec<_> = needed.difference(&there).collect();
                assert!(missing.is_empty(), "{size} from {before}: {missing:?}");
                if before == 0 {
                    assert_eq!(needed, there, "{size}");
                }
            }
        }
    }

    #[test]
    fn names_of_checkpoints_list_in_order() {
        assert_eq!(checkpoint_path(1088), "checkpoints/00000000000000001088");
        let mut paths: Vec<_> = [9, 10, 99, 1_000, 999_999, 1_000_000, u64::MAX].map(checkpoint_path).into();
        let sorted = paths.clone();
        paths.sort();
        assert_eq!(paths, sorted);
        assert_eq!(checkpoint_size(&checkpoint_path(1_000)), Some(1_000));
        for bad in
            ["checkpoints/1088", "checkpoints/0000000000000000000x", "checkpoints/00000000000000000000", "00000000000000001088"]
        {
            assert_eq!(checkpoint_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_listing_with_a_hole_begins_anew() {
        let mut inventory = Inventory::default();
        assert_eq!(inventory.full(), 0);
        let add = |inventory: &mut Inventory, index: u64| {
            inventory.add(&bundle(index).to_string());
            inventory.add(&Tile { content: Content::Hashes(0), ..bundle(index) }.to_string());
        };
        (0..100).rev().for_each(|index| add(&mut inventory, index));
        inventory.add("tile/entries/100.p/7");
        inventory.add("checkpoints/00000000000000000007");
        assert_eq!(inventory.full(), (100 - STEP) * 256);
        add(&mut inventory, 101);
        assert_eq!(inventory.full(), 0);
    }
}
