//! Tiles: the tree's hashes and the log's entries in files that never change, by the paths of C2SP tlog-tiles.
//!
//! A tile has up to 256 hashes, of complete subtrees that stand side by side, every eighth level of the tree. What lies
//! between is computed from it. The rightmost tile of a level is partial until it is full: then it has its width in its
//! name, and another name later.
//!
//! <https://c2sp.org/tlog-tiles>

use crate::merkle::{Hash, Node, node_hash};
use std::fmt;

/// Hashes of a full tile, and entries of a full bundle.
pub const WIDTH: u64 = 256;

/// Levels of the tree that a tile stands for: its hashes are the lowest.
pub const HEIGHT: u8 = 8;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Hashes of subtrees of `8 * LEVEL` levels: of leaves, at level 0.
    Hashes(u8),
    /// Entries, each after its length in two bytes, big-endian.
    Entries,
}

impl Content {
    /// How many levels of the tree are below one of its items, whose leaves are so many powers of two.
    #[must_use]
    pub fn shift(self) -> u32 {
        match self {
            Self::Hashes(level) => u32::from(level) * u32::from(HEIGHT),
            Self::Entries => 0,
        }
    }

    /// How many items of it a tree of `size` leaves has.
    #[must_use]
    pub fn items(self, size: u64) -> u64 {
        size.checked_shr(self.shift()).unwrap_or(0)
    }
}

/// A tile's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What it holds.
    pub content: Content,
    /// Which one, from the left.
    pub index: u64,
    /// How many hashes or entries it has, 1 to 256.
    pub width: u16,
}

impl Tile {
    /// The tiles of a content that a tree of `size` leaves has, without the full ones before the tile at `from`.
    pub fn of_tree(content: Content, size: u64, from: u64) -> impl Iterator<Item = Self> {
        let items = content.items(size);
        (from..items.div_ceil(WIDTH)).map(move |index| {
            let width = (items - index * WIDTH).min(WIDTH);
            Self { content, index, width: u16::try_from(width).unwrap_or(u16::MAX) }
        })
    }

    /// Every level of hashes that a tree of `size` leaves has tiles of.
    pub fn levels(size: u64) -> impl Iterator<Item = u8> {
        (0..u64::BITS.div_ceil(u32::from(HEIGHT)))
            .take_while(move |level| size >> (level * u32::from(HEIGHT)) > 0)
            .filter_map(|level| u8::try_from(level).ok())
    }

    /// Entries that a log must have for it to be there: those that are below its hashes, and all before them.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let items = self.index.saturating_mul(WIDTH).saturating_add(u64::from(self.width));
        let shift = self.content.shift();
        // A number that does not fit is more than any log has.
        if items.leading_zeros() < shift { u64::MAX } else { items.checked_shl(shift).unwrap_or(u64::MAX) }
    }

    /// Whether it has all that it will ever have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// Reads a path as [`Tile`]'s `Display` writes it; `None`: it is none, or not written so.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let (content, mut rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let content = match content {
            "entries" => Content::Entries,
            level => Content::Hashes(level.parse().ok().filter(|level| *level < u64::BITS as u8)?),
        };
        let mut width = WIDTH;
        if let Some((index, partial)) = rest.split_once(".p/") {
            (rest, width) = (index, partial.parse().ok().filter(|width| (1..WIDTH).contains(width))?);
        }
        let mut index = 0u64;
        for part in rest.split('/') {
            let digits: u64 = part.trim_start_matches('x').parse().ok()?;
            index = index.checked_mul(1_000)?.checked_add(digits)?;
        }
        let tile = Self { content, index, width: u16::try_from(width).ok()? };
        // One spelling alone: leading zeros, signs, and what else a number may begin with, are another path.
        (tile.to_string() == path).then_some(tile)
    }
}

impl fmt::Display for Tile {
    /// `tile/LEVEL/INDEX` or `tile/entries/INDEX`, where the index is in groups of three digits, all but the last after an
    /// `x`; and `.p/WIDTH` of a partial one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        let mut unit = 1u64;
        while self.index / unit >= 1_000 {
            unit *= 1_000;
        }
        while unit > 1 {
            write!(f, "x{:03}/", self.index / unit % 1_000)?;
            unit /= 1_000;
        }
        write!(f, "{:03}", self.index % 1_000)?;
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// Where the hashes are that a node's hash is computed from: the level and index of the tile, and which of its hashes.
#[must_use]
pub fn hashes_of(node: Node) -> (u8, u64, std::ops::Range<usize>) {
    let (level, height) = (node.level / HEIGHT, node.level % HEIGHT);
    let first = u128::from(node.index) << height;
    let tile = u64::try_from(first / u128::from(WIDTH)).unwrap_or(u64::MAX);
    let begin = usize::try_from(first % u128::from(WIDTH)).unwrap_or_default();
    (level, tile, begin..begin + (1 << height))
}

/// The hash over hashes that stand side by side, as many as a power of two; `None`: of none.
#[must_use]
pub fn hash_over(hashes: &[Hash]) -> Option<Hash> {
    match hashes {
        [] => None,
        [hash] => Some(*hash),
        hashes => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            Some(node_hash(&hash_over(left)?, &hash_over(right)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Frontier, edge, leaf_hash};
    use std::collections::HashMap;

    fn tile(content: Content, index: u64, width: u16) -> Tile {
        Tile { content, index, width }
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        for (tile, path) in [
            (tile(Content::Hashes(0), 0, 256), "tile/0/000"),
            (tile(Content::Hashes(3), 1_234_067, 256), "tile/3/x001/x234/067"),
            (tile(Content::Hashes(0), 273, 112), "tile/0/273.p/112"),
            (tile(Content::Entries, 1_000, 1), "tile/entries/x001/000.p/1"),
            (tile(Content::Entries, u64::MAX, 256), "tile/entries/x018/x446/x744/x073/x709/x551/615"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(Tile::parse(path), Some(tile));
        }
        for path in [
            "",
            "tile/0/",
            "tile/0/1",
            "tile/0/0001",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001/x002",
            "tile/+0/001",
            "tile/00/001",
            "tile/64/001",
            "tile/entry/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/+01",
            "tile/0/xx001/002",
            "tile/0/../001",
            "tile/entries/x999/x999/x999/x999/x999/x999/999",
            "/tile/0/001",
            "tile/0/001/",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_tree_has_tiles_of_every_eighth_level() {
        // The example of the specification: 70,000 leaves.
        let of = |content| Tile::of_tree(content, 70_000, 0).collect::<Vec<_>>();
        assert_eq!(Tile::levels(70_000).collect::<Vec<_>>(), [0, 1, 2]);
        let lowest = of(Content::Hashes(0));
        assert_eq!((lowest.len(), lowest[272].to_string()), (274, "tile/0/272".to_owned()));
        assert_eq!(lowest[273].to_string(), "tile/0/273.p/112");
        assert_eq!(of(Content::Hashes(1)).iter().map(Tile::to_string).collect::<Vec<_>>(), ["tile/1/000", "tile/1/001.p/17"]);
        assert_eq!(of(Content::Hashes(2)).iter().map(Tile::to_string).collect::<Vec<_>>(), ["tile/2/000.p/1"]);
        assert_eq!(of(Content::Hashes(3)), []);
        assert_eq!(of(Content::Entries).len(), 274);
        assert_eq!(Tile::of_tree(Content::Entries, 70_000, 273).count(), 1);
        assert_eq!(Tile::levels(0).count(), 0);
        assert_eq!(Tile::levels(u64::MAX).count(), 8);
    }

    #[test]
    fn the_tiles_of_a_tree_have_every_hash_that_a_proof_may_need() {
        const SIZE: u64 = 1_000;
        let (mut nodes, mut frontier) = (HashMap::new(), Frontier::default());
        for at in 0..SIZE {
            frontier.push(leaf_hash(&at.to_be_bytes()), |node, hash| {
                nodes.insert(node, *hash);
            });
        }
        for (node, hash) in &nodes {
            let (level, index, range) = hashes_of(*node);
            let tile = Tile::of_tree(Content::Hashes(level), SIZE, index).next().expect("the tree has this tile");
            assert!(range.end <= usize::from(tile.width), "{node:?} is in {tile}");
            let hashes: Vec<Hash> =
                range.map(|at| nodes[&Node { level: level * HEIGHT, index: index * WIDTH + at as u64 }]).collect();
            assert_eq!(hash_over(&hashes), Some(*hash), "{node:?}");
        }
        assert!(edge(SIZE).all(|node| nodes.contains_key(&node)));
        assert_eq!(hash_over(&[]), None);
    }
}
