//! The tree over the log's leaves: hashes, audit paths and consistency proofs of RFC 6962 §2.1.
//!
//! ```text
//!            root of 5
//!           /         \
//!        2,0           \          Node { level, index }: the complete subtree over the
//!       /    \          \         leaves index·2^level to (index + 1)·2^level
//!    1,0      1,1        \
//!    / \      / \         \
//!  0,0 0,1  0,2 0,3       0,4     its hash never changes once all of them are there
//! ```
//!
//! Whoever appends keeps the right edge alone ([`Frontier`]). Proofs are put together from the hashes of complete subtrees,
//! which the tiles have (`tile.rs`). Nothing here reads or writes anything.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The root of the tree without leaves: the hash of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64,
    0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Leaves that are hashed in one piece, which saves a third of the time: nearly all of a log's.
const SHORT_MAX: usize = 1_024;

/// The hash of a leaf: a 0 before it, so that no leaf can pass for a node.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut whole = [0; 1 + SHORT_MAX];
    let mut hash = Hash::default();
    if let Some(short) = whole.get_mut(..=leaf.len()) {
        short[1..].copy_from_slice(leaf);
        hash.copy_from_slice(digest(&SHA256, short).as_ref());
    } else {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        context.update(leaf);
        hash.copy_from_slice(context.finish().as_ref());
    }
    hash
}

/// The hash of a node: a 1 before its two children's.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut whole = [1; 65];
    whole[1..33].copy_from_slice(left);
    whole[33..].copy_from_slice(right);
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, &whole).as_ref());
    hash
}

/// A complete subtree: over the leaves `index << level` up to, and without, `(index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Its height: 0 is a leaf.
    pub level: u8,
    /// Which one of that height, from the left.
    pub index: u64,
}

/// The right edge of a tree: all that appending needs, and the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Of each largest complete subtree, from the left.
    edge: Vec<Hash>,
}

impl Frontier {
    /// The edge of a tree of `size` leaves whose largest complete subtrees have these hashes ([`edge`] names them);
    /// `None`: it would have another number of them.
    #[must_use]
    pub fn restore(size: u64, edge: Vec<Hash>) -> Option<Self> {
        (edge.len() == size.count_ones() as usize).then_some(Self { size, edge })
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf's hash, and shows each subtree that it completes, itself first.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(Node, &Hash)) {
        let (mut node, mut hash) = (Node { level: 0, index: self.size }, leaf);
        completed(node, &hash);
        while node.index % 2 == 1
            && let Some(left) = self.edge.pop()
        {
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index / 2 };
            completed(node, &hash);
        }
        self.edge.push(hash);
        self.size += 1;
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.edge).unwrap_or(EMPTY_ROOT)
    }
}

/// The hash over neighbours, of which each is at least as high as what is to its right.
fn fold(hashes: &[Hash]) -> Option<Hash> {
    hashes.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}

/// The largest complete subtrees that make up the leaves from `begin` up to `end`, from the left. `begin` must be a
/// multiple of a power of two that is at least `end - begin`, as it is wherever a tree is divided.
fn subtrees(begin: u64, end: u64) -> impl Iterator<Item = Node> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let level = u8::try_from((end - at).checked_ilog2()?).ok()?;
        let node = Node { level, index: at >> level };
        at += 1 << level;
        Some(node)
    })
}

/// The largest complete subtrees of a tree of `size` leaves, from the left: what a [`Frontier`] is restored from.
pub fn edge(size: u64) -> impl Iterator<Item = Node> {
    subtrees(0, size)
}

/// Where a tree over `begin..end`, of at least two leaves, is divided: its left part is the largest power of two that is
/// less than their number.
fn middle(begin: u64, end: u64) -> u64 {
    begin + (1 << (end - begin - 1).ilog2())
}

/// The hash over the leaves from `begin` up to `end`.
fn range<E>(begin: u64, end: u64, node: &mut impl FnMut(Node) -> Result<Hash, E>) -> Result<Hash, E> {
    let hashes = subtrees(begin, end).map(node).collect::<Result<Vec<_>, E>>()?;
    Ok(fold(&hashes).unwrap_or(EMPTY_ROOT))
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// Those of `node`, which gives the hashes of complete subtrees.
pub fn root<E>(size: u64, mut node: impl FnMut(Node) -> Result<Hash, E>) -> Result<Hash, E> {
    range(0, size, &mut node)
}

/// The audit path of the leaf at `index` in the tree of the first `size` leaves (RFC 6962 §2.1.1), from the leaf upwards.
/// `index` must be less than `size`.
///
/// # Errors
/// Those of `node`, which gives the hashes of complete subtrees.
pub fn inclusion_proof<E>(index: u64, size: u64, mut node: impl FnMut(Node) -> Result<Hash, E>) -> Result<Vec<Hash>, E> {
    let (mut begin, mut end) = (0, size);
    let mut path = Vec::new();
    while end - begin > 1 {
        let middle = middle(begin, end);
        if index < middle {
            path.push(range(middle, end, &mut node)?);
            end = middle;
        } else {
            path.push(range(begin, middle, &mut node)?);
            begin = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The root that an audit path leads to (RFC 9162 §2.1.3.2); `None`: it is no path of that leaf in a tree of that size.
#[must_use]
pub fn root_of_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            skip_missing(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

/// At the right edge, levels at which a node has no sibling to its left.
fn skip_missing(node: &mut u64, last: &mut u64) {
    while *node != 0 && node.is_multiple_of(2) {
        (*node, *last) = (*node / 2, *last / 2);
    }
}

/// The proof that the tree of the first `old` leaves is the beginning of that of the first `new` (RFC 6962 §2.1.2). `old`
/// must not be more than `new`. Of nothing, and of the same tree, the proof is empty.
///
/// # Errors
/// Those of `node`, which gives the hashes of complete subtrees.
pub fn consistency_proof<E>(old: u64, new: u64, mut node: impl FnMut(Node) -> Result<Hash, E>) -> Result<Vec<Hash>, E> {
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut begin, mut end) = (0, new);
    while end != old {
        let middle = middle(begin, end);
        if old <= middle {
            proof.push(range(middle, end, &mut node)?);
            end = middle;
        } else {
            proof.push(range(begin, middle, &mut node)?);
            begin = middle;
        }
    }
    if begin > 0 {
        proof.push(range(begin, end, &mut node)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether a proof shows that the tree of `old` leaves with that root is the beginning of that of `new` (RFC 9162
/// §2.1.4.2).
#[must_use]
pub fn is_consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old >= new {
        let known = if old == 0 { &EMPTY_ROOT } else { new_root };
        return old <= new && proof.is_empty() && old_root == known;
    }
    let whole = old.is_power_of_two().then_some(old_root);
    let mut hashes = whole.into_iter().chain(proof);
    let Some(first) = hashes.next() else { return false };
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        (node, last) = (node / 2, last / 2);
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            skip_missing(&mut node, &mut last);
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        (node, last) = (node / 2, last / 2);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    /// A tree with all hashes of its complete subtrees.
    #[derive(Default)]
    struct Tree {
        nodes: HashMap<Node, Hash>,
        frontier: Frontier,
        leaves: Vec<Hash>,
    }

    impl Tree {
        fn of(leaves: impl IntoIterator<Item = Vec<u8>>) -> Self {
            let mut tree = Self::default();
            for leaf in leaves {
                let hash = leaf_hash(&leaf);
                tree.leaves.push(hash);
                let nodes = &mut tree.nodes;
                tree.frontier.push(hash, |node, hash| assert_eq!(nodes.insert(node, *hash), None, "each is completed once"));
            }
            tree
        }

        fn numbered(count: u64) -> Self {
            Self::of((0..count).map(|at| at.to_be_bytes().to_vec()))
        }

        fn node(&self) -> impl FnMut(Node) -> Result<Hash, Infallible> + '_ {
            |node| Ok(*self.nodes.get(&node).expect("proofs need complete subtrees alone"))
        }

        /// As RFC 6962 §2.1 defines it.
        fn defined(leaves: &[Hash]) -> Hash {
            match leaves {
                [] => EMPTY_ROOT,
                [leaf] => *leaf,
                leaves => {
                    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                    node_hash(&Self::defined(left), &Self::defined(right))
                }
            }
        }
    }

    fn hex(text: &str) -> Hash {
        let mut hash = Hash::default();
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        }
        hash
    }

    /// The leaves and roots that the reference implementation of Certificate Transparency tests with.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), EMPTY_ROOT);
        for (leaf, root) in leaves.into_iter().zip(roots) {
            frontier.push(leaf_hash(leaf), |_, _| ());
            assert_eq!(frontier.root(), hex(root), "of {} leaves", frontier.size());
        }
    }

    #[test]
    fn a_root_is_the_same_appended_restored_and_from_its_subtrees() {
        let tree = Tree::numbered(300);
        for size in 0..=300 {
            let defined = Tree::defined(&tree.leaves[..size as usize]);
            assert_eq!(root(size, tree.node()), Ok(defined));
            let hashes: Vec<Hash> = edge(size).map(|node| tree.nodes[&node]).collect();
            let restored = Frontier::restore(size, hashes.clone()).expect("as many as it has bits");
            assert_eq!(restored.root(), defined);
            assert_eq!(Frontier::restore(size + 1, hashes).is_some(), size.count_ones() == (size + 1).count_ones());
        }
        assert_eq!(tree.frontier.root(), Tree::defined(&tree.leaves));
    }

    #[test]
    fn every_leaf_of_every_tree_is_proved_and_no_other_is() {
        let tree = Tree::numbered(70);
        for size in 1..=70 {
            let root = Tree::defined(&tree.leaves[..size as usize]);
            for index in 0..size {
                let leaf = &tree.leaves[index as usize];
                let Ok(path) = inclusion_proof(index, size, tree.node());
                let leads_to = |leaf: &Hash, index, size, path: &[Hash]| root_of_inclusion(leaf, index, size, path) == Some(root);
                assert!(leads_to(leaf, index, size, &path), "{index} of {size}");
                assert!(!leads_to(&leaf_hash(b"another"), index, size, &path));
                assert!(!leads_to(leaf, index + 1, size, &path) && !leads_to(leaf, size, size, &path));
                assert!((0..index).all(|other| !leads_to(leaf, other, size, &path)));
                assert!(!leads_to(leaf, index, size, &[&path[..], &[root]].concat()), "nothing follows the root");
                for at in 0..path.len() {
                    let mut changed = path.clone();
                    changed[at][at % 32] ^= 1;
                    assert!(!leads_to(leaf, index, size, &changed));
                    assert!(!leads_to(leaf, index, size, &[&path[..at], &path[at + 1..]].concat()), "none is left out");
                }
            }
        }
    }

    #[test]
    fn every_tree_is_proved_to_begin_every_later_one_and_no_other_is() {
        let tree = Tree::numbered(70);
        let roots: Vec<Hash> = (0..=70).map(|size| Tree::defined(&tree.leaves[..size])).collect();
        for new in 0..=70u64 {
            let new_root = &roots[new as usize];
            for old in 0..=new {
                let old_root = &roots[old as usize];
                let Ok(proof) = consistency_proof(old, new, tree.node());
                assert!(is_consistent(old, old_root, new, new_root, &proof), "{old} of {new}");
                let other = leaf_hash(b"another");
                assert!(!is_consistent(old, &other, new, new_root, &proof), "{old} of {new}");
                assert_eq!(is_consistent(old, old_root, new, &other, &proof), old == 0, "{old} of {new}");
                assert!(!is_consistent(old, old_root, new, new_root, &[&proof[..], &[other]].concat()));
                for at in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[at][at % 32] ^= 1;
                    assert!(!is_consistent(old, old_root, new, new_root, &changed), "{old} of {new} at {at}");
                    assert!(!is_consistent(old, old_root, new, new_root, &[&proof[..at], &proof[at + 1..]].concat()));
                }
            }
            assert!(!is_consistent(new + 1, new_root, new, new_root, &[]), "a log does not shrink");
        }
    }
}
