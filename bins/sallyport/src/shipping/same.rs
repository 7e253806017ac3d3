//! Whether what is there already is of this log. Of what has been destroyed since, more may be there than here.

use std::collections::HashMap;
use tlog::merkle::leaf_hash;
use tlog::{Note, Verifier};

/// Whether the bundle of entries that is there is `ours`, whose hashes are `hashes`; entries that were destroyed here may be
/// there, and must be what the tree has.
pub(super) fn entries(ours: &[u8], theirs: &[u8], hashes: &[u8]) -> bool {
    let (Some(ours), Some(theirs)) = (leaves(ours), leaves(theirs)) else { return false };
    let (hashes, rest) = hashes.as_chunks::<32>();
    rest.is_empty()
        && ours.len() == theirs.len()
        && ours.len() == hashes.len()
        && ours
            .iter()
            .zip(theirs)
            .zip(hashes)
            .all(|((ours, theirs), hash)| *ours == theirs || (ours.is_empty() && leaf_hash(theirs) == *hash))
}

/// The leaves of a bundle; `None`: it is damaged.
fn leaves(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut leaves = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (leaf, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        leaves.push(leaf);
        bundle = rest;
    }
    bundle.is_empty().then_some(leaves)
}

/// Whether every payload of `ours` is there as well.
pub(super) fn payloads(ours: &[u8], theirs: &[u8]) -> bool {
    let (Some(ours), Some(theirs)) = (taken(ours), taken(theirs)) else { return false };
    ours.iter().all(|(place, payload)| theirs.get(place) == Some(payload))
}

/// Payloads by the place in the bundle and the field; `None`: the file is damaged.
fn taken(mut file: &[u8]) -> Option<HashMap<[u8; 2], &[u8]>> {
    let mut taken = HashMap::new();
    while let Some(([place, field, length @ ..], rest)) = file.split_first_chunk::<6>() {
        let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        taken.insert([*place, *field], payload);
        file = rest;
    }
    file.is_empty().then_some(taken)
}

/// Whether the checkpoint that is there says what `ours` says, and one of the log's keys has signed it. Witnesses' lines may
/// differ: they have the time in them.
pub(super) fn checkpoint(ours: &[u8], theirs: &[u8], keys: &[Verifier]) -> bool {
    let read = |note: &[u8]| Note::parse(note).and_then(|note| Ok((note.checkpoint()?, note)));
    let (Ok((ours, _)), Ok((theirs, note))) = (read(ours), read(theirs)) else { return false };
    ours == theirs && note.verify(keys).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(leaves: &[&[u8]]) -> Vec<u8> {
        leaves.iter().flat_map(|leaf| [&u16::try_from(leaf.len()).unwrap().to_be_bytes(), *leaf].concat()).collect()
    }

    #[test]
    fn entries_may_be_there_that_were_destroyed_here_and_no_others() {
        let whole = bundle(&[b"one", b"two"]);
        let hashes = [leaf_hash(b"one"), leaf_hash(b"two")].concat();
        assert!(entries(&whole, &whole, &hashes));
        let gone = bundle(&[b"one", b""]);
        assert!(entries(&gone, &whole, &hashes));
        assert!(!entries(&whole, &gone, &hashes), "there, nothing was destroyed");
        assert!(!entries(&gone, &bundle(&[b"one", b"TWO"]), &hashes));
        assert!(!entries(&whole, &bundle(&[b"one", b"two", b"three"]), &hashes));
        assert!(!entries(&whole, &whole[..7], &hashes));
    }

    #[test]
    fn payloads_may_be_more_there_than_here() {
        let record = |place: u8, text: &[u8]| [&[place, 7], &u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat();
        let (one, two) = (record(1, b"salt one"), record(2, b"salt two"));
        let both = [one.clone(), two.clone()].concat();
        assert!(payloads(&both, &both) && payloads(&one, &both) && payloads(b"", &both));
        assert!(!payloads(&both, &one));
        assert!(!payloads(&both, &[one, record(2, b"salt TWO")].concat()));
        assert!(!payloads(&two, &both[..both.len() - 1]));
    }
}
