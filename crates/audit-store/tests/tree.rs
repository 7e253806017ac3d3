//! The tree that the store keeps: the one of RFC 6962 over its leaves, whatever happens meanwhile.

mod common;

use audit_store::{AuditStore, Reader, open_read_only};
use common::*;
use proxy_core::Store;
use proxy_core::record::RecordedVerdict;
use std::path::Path;
use tlog::merkle::{Frontier, is_consistent, leaf_hash, root_of_inclusion};
use tlog::tile::{Content, Tile, WIDTH};
use tlog::{Hash, Node};

/// The tree computed from the leaves alone: the root at each size, and the hash of every complete subtree.
struct Expected {
    leaves: Vec<Vec<u8>>,
    roots: Vec<Hash>,
    nodes: std::collections::HashMap<Node, Hash>,
}

fn expected(reader: &Reader) -> Expected {
    let (mut frontier, mut leaves, mut nodes) = (Frontier::default(), Vec::new(), std::collections::HashMap::new());
    let mut roots = vec![frontier.root()];
    reader
        .leaves(0..u64::MAX, |_, leaf| {
            leaves.push(leaf.to_vec());
            frontier.push(leaf_hash(leaf), |node, hash| {
                nodes.insert(node, *hash);
            });
            roots.push(frontier.root());
            Ok(())
        })
        .unwrap();
    Expected { leaves, roots, nodes }
}

/// Whatever the reader says of the tree is what the leaves say.
fn check(reader: &Reader, sizes: &[usize]) {
    let expected = expected(reader);
    let end = expected.leaves.len();
    for &size in sizes.iter().filter(|size| **size <= end) {
        let root = expected.roots[size];
        assert_eq!(reader.root(size as u64).unwrap(), Some(root), "the root of {size}");
        for index in [0, size / 3, size.saturating_sub(1)].into_iter().filter(|index| *index < size) {
            let path = reader.inclusion_proof(index as u64, size as u64).unwrap().unwrap();
            let leaf = leaf_hash(&expected.leaves[index]);
            assert_eq!(root_of_inclusion(&leaf, index as u64, size as u64, &path), Some(root), "{index} of {size}");
        }
        for &old in sizes.iter().filter(|old| **old <= size) {
            let proof = reader.consistency_proof(old as u64, size as u64).unwrap().unwrap();
            assert!(is_consistent(old as u64, &expected.roots[old], size as u64, &root, &proof), "{old} to {size}");
        }
        assert_eq!(reader.consistency_proof(size as u64 + 1, size as u64), Ok(None));
    }
    assert_eq!(reader.root(end as u64 + 1), Ok(None));
    assert_eq!(reader.inclusion_proof(end as u64, end as u64), Ok(None));
    for tile in Tile::of_tree(Content::Entries, end as u64, 0) {
        let first = (tile.index * WIDTH) as usize;
        let bundle = expected.leaves[first..first + usize::from(tile.width)].iter();
        let bundle: Vec<u8> = bundle.flat_map(|leaf| [&(leaf.len() as u16).to_be_bytes()[..], leaf].concat()).collect();
        assert_eq!(reader.tile(&tile).unwrap(), Some(bundle), "{tile}");
    }
    for level in Tile::levels(end as u64) {
        for tile in Tile::of_tree(Content::Hashes(level), end as u64, 0) {
            let indices = (tile.index * WIDTH)..(tile.index * WIDTH + u64::from(tile.width));
            let hashes: Vec<u8> = indices.flat_map(|index| expected.nodes[&Node { level: level * 8, index }]).collect();
            assert_eq!(reader.tile(&tile).unwrap(), Some(hashes), "{tile}");
        }
    }
    let beyond = Tile { content: Content::Entries, index: end as u64 / WIDTH, width: (end as u64 % WIDTH) as u16 + 1 };
    assert_eq!(reader.tile(&beyond), Ok(None));
}

const SIZES: [usize; 14] = [0, 1, 2, 3, 255, 256, 257, 511, 512, 700, 1_024, 1_500, 65_536, 66_000];

fn append(store: &AuditStore, from: u64, to: u64, each: usize) {
    let entries: Vec<_> = (from..to).map(|n| request(1, n, n, RecordedVerdict::Allow, &format!("SELECT {n}"))).collect();
    for batch in entries.chunks(each) {
        store.append(batch).unwrap();
    }
}

fn open(dir: &Path) -> AuditStore {
    AuditStore::open(dir, options()).unwrap()
}

#[test]
fn the_tree_is_that_of_the_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("audit");
    let store = open(&dir);
    append(&store, 0, 300, 1);
    append(&store, 300, 900, 7);
    check(&store.reader(), &SIZES);
    // A batch that has no room in the journal goes another way.
    let long = "x".repeat(2 << 20);
    let long: Vec<_> = (900..903).map(|n| request(1, n, n, RecordedVerdict::Allow, &long)).collect();
    store.append(&long).unwrap();
    append(&store, 903, 1_500, 200);
    check(&store.reader(), &SIZES);
    // A reader beside it, of entries that are in no file yet.
    check(&open_read_only(&dir).unwrap(), &SIZES);
    let head = store.tree_head().unwrap();
    assert_eq!((head.size, Some(head.root)), (1_500, store.reader().root(1_500).unwrap()));
    assert_eq!(store.health().synced, 1_500);
}

#[test]
fn the_tree_goes_on_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("audit");
    let mut from = 0;
    for to in [0, 1, 255, 256, 257, 600, 1_500] {
        let store = open(&dir);
        append(&store, from, to, 50);
        assert_eq!(store.tree_head().unwrap().size, to);
        check(&store.reader(), &SIZES);
        from = to;
        if to == 600 {
            // As a killed process leaves it: what the journal has is moved at the next opening.
            std::mem::forget(store);
            let copy = dir.with_extension("copy");
            copy_files(&dir, &copy);
            let store = open(&copy);
            check(&store.reader(), &SIZES);
            append(&store, 600, 700, 3);
            check(&store.reader(), &SIZES);
            return;
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn a_tree_of_three_levels_of_tiles() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("audit");
    {
        let store = open(&dir);
        append(&store, 0, 66_000, 500);
        check(&store.reader(), &SIZES);
    }
    check(&open_read_only(&dir).unwrap(), &SIZES);
    let store = open(&dir);
    append(&store, 66_000, 66_300, 100);
    check(&store.reader(), &[65_535, 65_536, 66_300]);
}
