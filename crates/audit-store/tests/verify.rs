//! A log that was tampered with does not verify, and the verification says what was done to it.

mod common;

use audit_store::{AuditStore, Blobs, Expected, Export, Folder, Notary, Opening, Signed, Verification, verify_published};
use common::*;
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Store, StoreError, Timestamp};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tlog::merkle::{Frontier, leaf_hash};
use tlog::tile::{Content, Tile};
use tlog::{Checkpoint, KeyKind, Signer, Verifier};

/// A log with three sessions, long statements, and the checkpoints that were signed on the way.
struct Made {
    /// Removed at the end.
    _dir: tempfile::TempDir,
    data: PathBuf,
    signed: Vec<Signed>,
    key: Verifier,
    first_key: Verifier,
}

impl Made {
    fn store(&self) -> PathBuf {
        self.data.join("audit")
    }

    fn export(&self) -> PathBuf {
        self.data.join("export")
    }

    fn last(&self) -> &Signed {
        self.signed.last().unwrap()
    }

    /// What an auditor holds: the first key, and a checkpoint from earlier.
    fn expected(&self) -> Expected {
        Expected {
            checkpoint: Some(self.last().note.clone()),
            earlier: vec![self.signed[1].note.clone()],
            keys: vec![self.first_key.clone()],
            ..Expected::default()
        }
    }
}

fn entries(session: u64, from: u64, to: u64) -> Vec<Entry> {
    let long = "y".repeat(3_000);
    let statement = |n: u64| if n.is_multiple_of(50) { format!("SELECT '{long}'") } else { format!("SELECT {n}") };
    (from..to).map(|n| request(session, n, n, RecordedVerdict::Allow, &statement(n))).collect()
}

fn opening(folder: &Path, now: i64) -> Opening<'_> {
    Opening { folder, sealing: None, by: "test", now: Timestamp(now), moved: false }
}

fn make() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_owned();
    let store = Arc::new(AuditStore::open(data.join("audit"), options()).unwrap());
    let notary = Notary::open(Arc::clone(&store), opening(&data, 1)).unwrap();
    let mut export = Export::open(&data.join("export")).unwrap();
    let (mut signed, first_key) = (Vec::new(), notary.verifier());
    for round in 0..6 {
        for session in 1..=3 {
            if round == 0 {
                store.append(&[started(session, "ci", "orders")]).unwrap();
            }
            store.append(&entries(session, 1 + round * 60, 61 + round * 60)).unwrap();
            if round == 5 {
                store.append(&[ended(session, 361)]).unwrap();
            }
        }
        if round == 3 {
            notary.rotate("ops", Timestamp(2)).unwrap();
        }
        if round % 2 == 1 {
            store.sync().unwrap();
            export.write_ahead(&store.reader(), store.synced()).unwrap();
        }
        let head = notary.sign().unwrap().unwrap();
        export.publish(&store.reader(), head.size, &head.note).unwrap();
        signed.push(head);
    }
    assert_eq!(notary.sign(), Ok(None), "nothing was appended since");
    store.close().unwrap();
    Made { _dir: dir, data, signed, key: notary.verifier(), first_key }
}

fn verify_store(made: &Made, expected: &Expected) -> Verification {
    audit_store::open_read_only(made.store()).unwrap().verify(expected, |_| ()).unwrap()
}

fn verify_folder(made: &Made, expected: &Expected) -> Verification {
    verify_published(&Folder::new(made.export()), expected, |_, _| ()).unwrap()
}

/// What was found, all of it.
fn words(verification: &Verification) -> String {
    verification.findings.iter().map(|finding| format!("{}: {}\n", finding.index, finding.what)).collect()
}

#[track_caller]
fn found(verification: &Verification, what: &str) {
    assert!(!verification.holds(), "nothing was found, but {what:?} is wrong");
    assert!(words(verification).contains(what), "{what:?} is not in:\n{}", words(verification));
}

#[test]
fn a_log_that_was_left_alone_holds() {
    let made = make();
    for verification in [verify_store(&made, &made.expected()), verify_folder(&made, &made.expected())] {
        assert!(verification.holds(), "{}", words(&verification));
        assert_eq!((verification.entries, verification.sessions), (made.last().size, 3));
        assert!(verification.payloads > 0 && verification.withheld == 0, "{verification:?}");
        let sizes: Vec<_> = verification.checkpoints.iter().map(|borne| (borne.size, borne.key_known)).collect();
        assert_eq!(sizes, [(made.last().size, true), (made.signed[1].size, true)]);
        assert_eq!(verification.checkpoints[0].key, made.key.to_string());
        assert_eq!(verification.checkpoints[1].key, made.first_key.to_string(), "before the rotation");
    }
    // Without anything to hold it against, a folder's own checkpoint counts, and nobody vouches for its key.
    let alone = verify_folder(&made, &Expected::default());
    assert!(alone.holds() && !alone.checkpoints[0].key_known);
    // Every published checkpoint still verifies, with the entries of then.
    for signed in &made.signed {
        let then = Expected { checkpoint: Some(signed.note.clone()), ..Expected::default() };
        assert!(verify_folder(&made, &then).holds());
    }
}

// ---- The published folder ----------------------------------------------------------------------------

fn file(made: &Made, path: &str) -> PathBuf {
    made.export().join(path)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    change(&mut content);
    std::fs::write(path, content).unwrap();
}

/// Where the leaves of a bundle are.
fn places(bundle: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut places) = (0, Vec::new());
    while at < bundle.len() {
        let length = usize::from(u16::from_be_bytes([bundle[at], bundle[at + 1]]));
        places.push(at..at + 2 + length);
        at += 2 + length;
    }
    places
}

#[test]
fn any_bit_that_is_flipped_is_found_and_its_entry_named() {
    let made = make();
    let path = file(&made, "tile/entries/001");
    let whole = std::fs::read(&path).unwrap();
    let places = places(&whole);
    for at in [0, 7, 40, 255]
        .map(|entry| places[entry].clone())
        .into_iter()
        .flat_map(|place| [place.start + 2, place.start + 9, place.end - 1])
    {
        change(&path, |bundle| bundle[at] ^= 4);
        let entry = 256 + places.iter().position(|place| place.contains(&at)).unwrap();
        let verification = verify_folder(&made, &made.expected());
        found(&verification, &format!("{entry}: it is not the entry that the tree has here"));
        found(&verification, "are not those that the log's checkpoint commits to");
        std::fs::write(&path, &whole).unwrap();
    }
    // A length that lies.
    change(&path, |bundle| bundle[places[3].start + 1] ^= 1);
    assert!(!verify_folder(&made, &made.expected()).holds());
    std::fs::write(&path, &whole).unwrap();
    change(&file(&made, "tile/0/001"), |tile| tile[32 * 9 + 5] ^= 1);
    found(&verify_folder(&made, &made.expected()), "265: it is not the entry that the tree has here");
}

#[test]
fn a_tail_that_was_dropped_is_missed() {
    let made = make();
    let last = Tile::of_tree(Content::Entries, made.last().size, 0).last().unwrap();
    std::fs::remove_file(file(&made, &last.to_string())).unwrap();
    let first = last.index * 256;
    found(&verify_folder(&made, &made.expected()), &format!("{first}: entries {first} to {} are missing", made.last().size - 1));
    // With an older checkpoint put in its place, whoever has seen the later one knows.
    std::fs::write(file(&made, "checkpoint"), &made.signed[2].note).unwrap();
    let expected = Expected { checkpoint: None, earlier: vec![made.last().note.clone()], ..made.expected() };
    found(&verify_folder(&made, &expected), "were removed");
    std::fs::remove_file(file(&made, "checkpoint")).unwrap();
    found(&verify_folder(&made, &expected), "there is no checkpoint");
}

#[test]
fn entries_that_were_swapped_are_found() {
    let made = make();
    change(&file(&made, "tile/entries/000"), |bundle| {
        let places = places(bundle);
        let (a, b) = (bundle[places[10].clone()].to_vec(), bundle[places[11].clone()].to_vec());
        bundle[places[10].start..places[11].end].copy_from_slice(&[b, a].concat());
    });
    let verification = verify_folder(&made, &made.expected());
    found(&verification, "10: it is not the entry that the tree has here");
    found(&verification, "11: it is not the entry that the tree has here");
    found(&verification, "the session's entry");
}

#[test]
fn a_payload_that_was_rewritten_is_found() {
    let made = make();
    let path = std::fs::read_dir(file(&made, "payload")).unwrap().map(|file| file.unwrap().path()).find(|path| path.is_file());
    change(&path.unwrap(), |payloads| *payloads.last_mut().unwrap() ^= 1);
    found(&verify_folder(&made, &made.expected()), "payload");
}

#[test]
fn a_checkpoint_of_another_key_is_found() {
    let made = make();
    let stranger = Signer::from_seed(made.key.name(), KeyKind::Log, &[9; 32]).unwrap();
    let text = made.last().note.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let note = format!("{text}\n{}", stranger.sign(&text, 0));
    std::fs::write(file(&made, "checkpoint"), &note).unwrap();
    let expected = Expected { checkpoint: None, ..made.expected() };
    found(&verify_folder(&made, &expected), "is not signed by the key that the log has there");
    let pinned = Expected { keys: vec![stranger.verifier().clone()], ..Expected::default() };
    found(&verify_store(&made, &pinned), "is not a key of this log");
}

/// A log in memory, made anew by somebody who has everything but the key.
#[derive(Default)]
struct Forged {
    files: RefCell<BTreeMap<String, Vec<u8>>>,
}

impl Blobs for Forged {
    fn get(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.files.borrow().get(path).cloned())
    }
}

fn forge(leaves: &[Vec<u8>], sign: impl FnOnce(&str) -> String, origin: &str) -> Forged {
    let (forged, mut frontier, mut hashes) = (Forged::default(), Frontier::default(), Vec::new());
    for leaf in leaves {
        hashes.push(leaf_hash(leaf));
        frontier.push(leaf_hash(leaf), |_, _| ());
    }
    let size = leaves.len() as u64;
    for content in [Content::Entries, Content::Hashes(0)] {
        for tile in Tile::of_tree(content, size, 0) {
            let range = (tile.index * 256) as usize..(tile.index * 256) as usize + usize::from(tile.width);
            let bytes = match content {
                Content::Entries => {
                    leaves[range].iter().flat_map(|leaf| [&(leaf.len() as u16).to_be_bytes()[..], leaf].concat()).collect()
                }
                Content::Hashes(_) => hashes[range].concat(),
            };
            forged.files.borrow_mut().insert(tile.to_string(), bytes);
        }
    }
    let text = Checkpoint { origin: origin.to_owned(), size, root: frontier.root() }.to_string();
    forged.files.borrow_mut().insert("checkpoint".to_owned(), sign(&text).into_bytes());
    forged
}

fn leaves(made: &Made) -> Vec<Vec<u8>> {
    let mut leaves = Vec::new();
    let reader = audit_store::open_read_only(made.store()).unwrap();
    reader
        .leaves(0..u64::MAX, |_, leaf| {
            leaves.push(leaf.to_vec());
            Ok(())
        })
        .unwrap();
    leaves
}

#[test]
fn a_session_that_was_removed_is_missed_by_whoever_holds_a_checkpoint() {
    let made = make();
    let gone = session(2);
    let kept: Vec<_> = leaves(&made)
        .into_iter()
        .filter(|leaf| audit_store::decode::header(leaf).unwrap().session.is_none_or(|(id, _)| id != gone))
        .collect();
    let key = made.key.name().to_owned();
    // With the old checkpoint, the log is too short; with one of the forger's own, it is signed by nobody.
    let forged = forge(&kept, |_| made.last().note.clone(), &key);
    found(&verify_published(&forged, &made.expected(), |_, _| ()).unwrap(), "are missing");
    let stranger = Signer::from_seed(&key, KeyKind::Log, &[9; 32]).unwrap();
    let forged = forge(&kept, |text| format!("{text}\n{}", stranger.sign(text, 0)), &key);
    let expected = Expected { checkpoint: None, ..made.expected() };
    let verification = verify_published(&forged, &expected, |_, _| ()).unwrap();
    found(&verification, "is not signed by the key that the log has there");
    // Even one who has the key cannot show the log that was seen before.
    found(&verification, "are not those that the earlier checkpoint commits to");
}

#[test]
fn a_key_that_nobody_endorsed_is_found() {
    let made = make();
    let name = made.key.name().to_owned();
    let stranger = Signer::from_seed(&name, KeyKind::Log, &[9; 32]).unwrap();
    let mut leaves = leaves(&made);
    let (mut leaf, mut beside) = (Vec::new(), Vec::new());
    let key = proxy_core::record::LogKey {
        origin: name.clone(),
        key: stranger.verifier().to_string(),
        previous: Some(made.key.to_string()),
        endorsement: None,
        by: "mallory".to_owned(),
    };
    let entry = Entry { time: Timestamp(9), session: None, event: proxy_core::Event::LogKey(Box::new(key)) };
    audit_store::encode::encode(&entry, 1_024, &mut leaf, &mut beside).unwrap();
    leaves.push(leaf);
    let forged = forge(&leaves, |text| format!("{text}\n{}", stranger.sign(text, 0)), &name);
    let expected = Expected { checkpoint: None, earlier: vec![], ..made.expected() };
    let verification = verify_published(&forged, &expected, |_, _| ()).unwrap();
    found(&verification, "no key has endorsed");
    found(&verification, "is not signed by the key that the log has there");
}

// ---- The store ---------------------------------------------------------------------------------------

/// Changes the chunk of the database that has `index`, as somebody can who has the disk.
fn change_chunk(made: &Made, index: u64, change: impl FnOnce(u64, &mut Vec<u8>)) {
    let families = ["default", "entries", "payload", "tree", "sessions", "by_session", "find", "segments"];
    let mut options = rocksdb::Options::default();
    options.create_missing_column_families(true);
    let known = rocksdb::DB::list_cf(&options, made.store()).unwrap();
    assert!(families.iter().all(|family| known.iter().any(|name| name == family)));
    let db = rocksdb::DB::open_cf(&options, made.store(), &known).unwrap();
    let entries = db.cf_handle("entries").unwrap();
    let mut cursor = db.raw_iterator_cf(entries);
    cursor.seek_for_prev(index.to_be_bytes());
    let key: [u8; 8] = cursor.key().unwrap().try_into().unwrap();
    let mut value = cursor.value().unwrap().to_vec();
    change(u64::from_be_bytes(key), &mut value);
    let mut options = rocksdb::WriteOptions::default();
    options.disable_wal(true);
    db.put_cf_opt(entries, key, value, &options).unwrap();
    db.flush_cf(entries).unwrap();
}

#[test]
fn an_entry_that_was_rewritten_in_the_store_is_found() {
    let made = make();
    change_chunk(&made, 300, |first, chunk| {
        let place = places(chunk)[(300 - first) as usize].clone();
        // One letter of a statement.
        let at = place.start + chunk[place.clone()].windows(6).position(|window| window == b"SELECT").unwrap();
        chunk[at + 1] = b'3';
    });
    let verification = verify_store(&made, &made.expected());
    found(&verification, "256: entries 256 to 511 are not those that the tree has");
    found(&verification, "the first 1088 entries are not those that the log's checkpoint commits to");
    // The gateway does not go on with it either, where it can tell at once: all that was signed is compared at the root.
    let whole = verify_folder(&made, &made.expected());
    assert!(whole.holds(), "what was published before is as it was");
}

#[test]
fn a_log_that_lost_its_end_or_was_copied_is_not_signed() {
    let made = make();
    let copy = made.data.join("copy");
    std::fs::create_dir(&copy).unwrap();
    for folder in ["audit", "."] {
        std::fs::create_dir_all(copy.join(folder)).unwrap();
        for file in std::fs::read_dir(made.data.join(folder))
            .unwrap()
            .map(Result::unwrap)
            .filter(|file| file.file_type().unwrap().is_file())
        {
            std::fs::copy(file.path(), copy.join(folder).join(file.file_name())).unwrap();
        }
    }
    let open = |data: &Path| {
        let store = Arc::new(AuditStore::open(data.join("audit"), options()).unwrap());
        Notary::open(store, opening(data, 3)).map(|notary| notary.verifier())
    };
    assert_eq!(open(&made.data), Ok(made.key.clone()));
    assert_eq!(open(&copy), Err(audit_store::NotaryError::Copied));
    let store = Arc::new(AuditStore::open(copy.join("audit"), options()).unwrap());
    assert!(Notary::open(store, Opening { moved: true, ..opening(&copy, 3) }).is_ok());
    assert_eq!(open(&copy), Ok(made.key.clone()), "decided once");
    // A backup from before the last checkpoint.
    let early = make();
    std::fs::remove_file(early.data.join("log-checkpoint")).unwrap();
    std::fs::write(early.data.join("log-checkpoint"), &made.last().note).unwrap();
    assert!(matches!(open(&early.data), Err(audit_store::NotaryError::Checkpoint(..))), "another log's");
}

#[test]
fn a_key_that_could_not_be_kept_is_not_named() {
    let made = make();
    let store = Arc::new(AuditStore::open(made.store(), options()).unwrap());
    let notary = Notary::open(Arc::clone(&store), opening(&made.data, 3)).unwrap();
    // The file cannot be written: its fresh copy has a folder in its way.
    let obstacle = made.data.join("log-key.json.new");
    std::fs::create_dir(&obstacle).unwrap();
    let entries_before = store.reader().len().unwrap();
    assert!(matches!(notary.rotate("ops", Timestamp(4)), Err(audit_store::NotaryError::Key(_))));
    assert_eq!(store.reader().len().unwrap(), entries_before);
    store.append(&entries(9, 0, 5)).unwrap();
    let signed = notary.sign().unwrap().unwrap();
    std::fs::remove_dir(&obstacle).unwrap();
    let next = notary.rotate("ops", Timestamp(5)).unwrap();
    assert_ne!(next, made.key);
    let last = notary.sign().unwrap().unwrap();
    let expected = Expected { checkpoint: Some(last.note), earlier: vec![signed.note], ..made.expected() };
    let verification = store.reader().verify(&expected, |_| ()).unwrap();
    assert!(verification.holds(), "{}", words(&verification));
    assert_eq!(verification.checkpoints[0].key, next.to_string());
    assert_eq!(verification.checkpoints[1].key, made.key.to_string());
}

// ---- Proofs ------------------------------------------------------------------------------------------

#[test]
fn a_session_is_proven_whole_and_by_itself() {
    use audit_store::prove::check;
    let made = make();
    let reader = audit_store::open_read_only(made.store()).unwrap();
    let (public, signed) = audit_store::notary::look(&made.data).unwrap().unwrap();
    let signed = signed.unwrap();
    assert_eq!((&public.verifiers[..], &signed), (&[made.key.clone(), made.first_key.clone()][..], made.last()));
    let mut indices = reader.session_indices(session(2)).unwrap();
    assert_eq!(indices.len(), 362);
    indices.extend(&public.entries);
    let proven: Vec<_> = indices.iter().map(|index| reader.prove(*index, signed.size, &signed.note).unwrap().unwrap()).collect();
    for keys in [vec![made.first_key.clone()], vec![made.key.clone()]] {
        let shown = check(&proven, &keys);
        assert!(shown.holds() && shown.key_known, "{:?}", shown.findings);
        assert_eq!((shown.whole_sessions, shown.entries.len()), (vec![session(2)], 364));
        assert_eq!((shown.origin, shown.key), (public.origin.clone(), made.key.to_string()));
    }
    let wrong = |proven: &[_], keys: &[Verifier], what: &str| {
        let shown = check(proven, keys);
        assert!(shown.findings.iter().any(|finding| finding.what.contains(what)), "{what:?}: {:?}", shown.findings);
    };
    let stranger = Signer::from_seed("name", KeyKind::Log, &[9; 32]).unwrap();
    wrong(&proven, std::slice::from_ref(stranger.verifier()), "is not a key of this log");
    let changed = |change: fn(&mut audit_store::prove::Proven)| {
        let mut proven = proven.clone();
        change(&mut proven[50]);
        proven
    };
    wrong(&changed(|one| *one.leaf.last_mut().unwrap() ^= 1), &[], "is not what the checkpoint commits to");
    wrong(&changed(|one| one.proof.path[0][0] ^= 1), &[], "is not what the checkpoint commits to");
    wrong(&changed(|one| one.beside[0].1[20] ^= 1), &[], "payload");
    wrong(&changed(|one| one.beside.clear()), &[], "is not in the proof");
    let mut short = proven.clone();
    short.remove(70);
    wrong(&short, &[], "is there, and 70 is not");
    // Without its end, a session is not whole.
    let cut: Vec<_> = proven.iter().filter(|one| one.index != indices[361]).cloned().collect();
    assert_eq!(check(&cut, &[]).whole_sessions, []);
    // The key that has signed is known by the log alone.
    let unsigned: Vec<_> = proven.iter().filter(|one| !public.entries.contains(&one.index)).cloned().collect();
    assert!(!check(&unsigned, &[]).holds());
    assert!(!check(&[], &[]).holds());
}

#[test]
fn a_restored_backup_is_not_signed_even_where_an_operator_goes_on() {
    let made = make();
    let store = made.store();
    // The log as it was, with what was signed since.
    let backup = made.data.join("backup");
    std::fs::create_dir(&backup).unwrap();
    let copy = |from: &Path, to: &Path| {
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(&store, &backup);
    {
        let store = Arc::new(AuditStore::open(&store, options()).unwrap());
        let notary = Notary::open(Arc::clone(&store), opening(&made.data, 4)).unwrap();
        store.append(&entries(9, 0, 5)).unwrap();
        notary.sign().unwrap().unwrap();
    }
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&backup, &store).unwrap();
    let reopened = Arc::new(AuditStore::open(&store, options()).unwrap());
    let signed = made.last().size + 5;
    let behind = audit_store::NotaryError::Behind { entries: made.last().size, signed };
    let open = Notary::open(Arc::clone(&reopened), opening(&made.data, 5)).map(|notary| notary.verifier());
    assert_eq!(open, Err(audit_store::NotaryError::Copied));
    let on =
        Notary::open(Arc::clone(&reopened), Opening { moved: true, ..opening(&made.data, 5) }).map(|notary| notary.verifier());
    assert_eq!(on, Err(behind));
    reopened.close().unwrap();
    drop(reopened);
    // What is left is a new log, which knows nothing of the old one's key.
    let aside = audit_store::notary::set_aside(&store, &made.data, &made.export()).unwrap();
    assert_eq!(aside.checkpoint.map(|checkpoint| checkpoint.size), Some(signed));
    assert!(aside.folder.join("export/checkpoint").exists() && !made.data.join("log-key.json").exists());
    let fresh = Arc::new(AuditStore::open(&store, options()).unwrap());
    let notary = Notary::open(fresh, opening(&made.data, 6)).unwrap();
    assert_ne!(notary.origin(), made.key.name());
    assert_eq!(notary.sign().unwrap().map(|signed| signed.size), Some(1), "its first entry is its key's");
}

// ---- What was destroyed ------------------------------------------------------------------------------

mod destroyed {
    use super::*;
    use audit_store::{EventKind, Selection};

    fn opened(made: &Made) -> (Arc<AuditStore>, Notary, Export) {
        let store = Arc::new(AuditStore::open(made.store(), options()).unwrap());
        let notary = Notary::open(Arc::clone(&store), opening(&made.data, 4)).unwrap();
        (store, notary, Export::open(&made.export()).unwrap())
    }

    fn selection() -> Selection {
        Selection {
            rule: "retention of 13 months".to_owned(),
            by: "gateway".to_owned(),
            range: 0..u64::MAX,
            ..Selection::default()
        }
    }

    /// Destroys, signs, publishes, and gives what then is to hold.
    fn destroy(made: &mut Made, selection: &Selection) -> u64 {
        let (store, notary, mut export) = opened(made);
        let (mut from, mut contents) = (selection.range.start, 0);
        loop {
            let selection = Selection { range: from..selection.range.end, ..selection.clone() };
            let progress = store.destroy(&selection, Timestamp(5)).unwrap();
            (from, contents) = (progress.next, contents + progress.contents);
            if progress.done {
                break;
            }
        }
        if let Some(signed) = notary.sign().unwrap() {
            export.publish(&store.reader(), signed.size, &signed.note).unwrap();
            made.signed.push(signed);
        }
        export.rewrite(&store.reader(), 0..from).unwrap();
        store.close().unwrap();
        contents
    }

    #[test]
    fn what_is_kept_beside_goes_and_the_log_still_holds() {
        let mut made = make();
        let before = verify_store(&made, &made.expected()).payloads;
        let statements = Selection { fields: vec!["statement".to_owned()], before: Some(Timestamp(1_000_200)), ..selection() };
        let contents = destroy(&mut made, &statements);
        assert!(contents > 0 && contents < before);
        for verification in [verify_store(&made, &made.expected()), verify_folder(&made, &made.expected())] {
            assert!(verification.holds(), "{}", words(&verification));
            assert_eq!((verification.withheld, verification.payloads), (contents, before - contents));
        }
        assert_eq!(destroy(&mut made, &statements), 0, "there is nothing left of it");
        // One more that nobody recorded.
        let (path, payloads) = std::fs::read_dir(file(&made, "payload"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .next()
            .unwrap();
        let length = 6 + u32::from_be_bytes(payloads[2..6].try_into().unwrap()) as usize;
        std::fs::write(path, &payloads[length..]).unwrap();
        found(&verify_folder(&made, &made.expected()), "its statement is not there, and no entry says that it was destroyed");
    }

    #[test]
    fn whole_entries_go_and_their_hashes_stay() {
        let mut made = make();
        let secret = b"SELECT 101";
        let has = |made: &Made| leaves(made).iter().any(|leaf| leaf.windows(secret.len()).any(|window| window == secret));
        assert!(has(&made));
        // One connection, one kind, and a session that is held.
        let requests = Selection {
            before: Some(Timestamp(1_000_150)),
            connection: Some("orders".to_owned()),
            kinds: vec![EventKind::Request],
            held_sessions: vec![session(3)],
            ..selection()
        };
        let contents = destroy(&mut made, &requests);
        // Each round has 60 of a session; of the third round, some are younger.
        assert!(contents > 200, "{contents}");
        for verification in [verify_store(&made, &made.expected()), verify_folder(&made, &made.expected())] {
            assert!(verification.holds(), "{}", words(&verification));
            assert_eq!(verification.destroyed, contents);
        }
        let reader = audit_store::open_read_only(made.store()).unwrap();
        let story = reader.session(session(3), 0, 10_000).unwrap().unwrap();
        assert_eq!(story.requests.len(), 360, "held");
        let story = reader.session(session(1), 0, 10_000).unwrap().unwrap();
        assert!(story.started.is_some() && story.requests.len() < 360);
        assert_eq!(reader.entries(0..u64::MAX).filter(|entry| entry.is_err()).count(), 0);
        // Checkpoints from before hold, and proofs of what is left.
        let then = Expected { checkpoint: Some(made.signed[0].note.clone()), ..made.expected() };
        let then = Expected { earlier: vec![], ..then };
        assert!(verify_store(&made, &then).holds());
        let index = *reader.session_indices(session(3)).unwrap().last().unwrap();
        let proven = reader.prove(index, made.last().size, &made.last().note).unwrap().unwrap();
        let found = tlog::merkle::root_of_inclusion(&leaf_hash(&proven.leaf), index, made.last().size, &proven.proof.path);
        assert_eq!(found, Some(made.last().root));
        // All of it, but for what says what the rest is.
        let all = destroy(&mut made, &selection());
        assert!(all > 0 && !has(&made));
        let verification = verify_store(&made, &made.expected());
        assert!(verification.holds(), "{}", words(&verification));
        assert!(verify_folder(&made, &made.expected()).holds());
        // The tree is that of before, also when it is made anew.
        let (store, notary, _) = opened(&made);
        assert_eq!(notary.last().as_ref(), made.signed.last());
        store.append(&entries(7, 0, 300)).unwrap();
        assert!(notary.sign().unwrap().is_some());
    }

    /// What the files of a published folder say.
    fn contents(made: &Made, folder: &str) -> impl Iterator<Item = Vec<u8>> {
        std::fs::read_dir(file(made, folder)).unwrap().filter_map(|file| std::fs::read(file.unwrap().path()).ok())
    }

    /// How many of them name her who asked to be forgotten.
    fn with_her(made: &Made, folder: &str) -> usize {
        contents(made, folder).filter(|content| content.windows(12).any(|window| window == b"Ada Lovelace")).count()
    }

    #[test]
    fn nothing_is_left_in_files_that_an_earlier_start_has_published() {
        let mut made = make();
        let person = |number| request(9, number, number, RecordedVerdict::Allow, "SELECT 'Ada Lovelace'");
        // Each start publishes once, so that none knows of the partial files of the one before.
        for number in 0..4 {
            let (store, notary, mut export) = opened(&made);
            store.append(&[person(number)]).unwrap();
            let signed = notary.sign().unwrap().unwrap();
            export.publish(&store.reader(), signed.size, &signed.note).unwrap();
            made.signed.push(signed);
            store.close().unwrap();
        }
        let everywhere = |made: &Made| -> usize {
            let folders = ["tile/entries", "tile/entries/004.p", "payload", "payload/004.p"];
            folders.into_iter().filter(|folder| file(made, folder).is_dir()).map(|folder| with_her(made, folder)).sum()
        };
        assert!(everywhere(&made) > 1);
        destroy(&mut made, &Selection { session: Some(session(9)), ..selection() });
        assert_eq!(everywhere(&made), 0);
        assert!(verify_folder(&made, &made.expected()).holds());
    }

    #[test]
    fn what_was_written_ahead_of_its_checkpoint_is_destroyed_as_well() {
        let mut made = make();
        let (store, notary, mut export) = opened(&made);
        let person = |number| request(9, number, number, RecordedVerdict::Allow, "SELECT 'Ada Lovelace'");
        for number in 0..400 {
            store.append(&[person(number)]).unwrap();
        }
        store.sync().unwrap();
        export.write_ahead(&store.reader(), store.synced()).unwrap();
        let (ahead, before) = (contents(&made, "tile/entries").count(), with_her(&made, "tile/entries"));
        assert!(before > 0 && ahead as u64 * 256 > export.published(), "nothing was written ahead");
        // By the next start, which does not know what was written ahead.
        drop(export);
        let mut export = Export::open(&made.export()).unwrap();
        let selection = Selection { session: Some(session(9)), ..selection() };
        let destroyed = store.destroy(&selection, Timestamp(5)).unwrap();
        export.rewrite(&store.reader(), 0..destroyed.next).unwrap();
        assert_eq!(with_her(&made, "tile/entries"), 0);
        let signed = notary.sign().unwrap().unwrap();
        export.publish(&store.reader(), signed.size, &signed.note).unwrap();
        made.signed.push(signed);
        store.close().unwrap();
        assert_eq!(with_her(&made, "tile/entries"), 0);
        assert!(verify_folder(&made, &made.expected()).holds());
    }

    #[test]
    fn a_payload_that_was_written_ahead_and_destroyed_before_the_next_start_is_removed() {
        let mut made = make();
        let (store, notary, mut export) = opened(&made);
        let long = format!("SELECT 'Ada Lovelace{}'", "x".repeat(2_000));
        for number in 0..600 {
            let text = if number == 300 { long.as_str() } else { "SELECT 1" };
            store.append(&[request(9, number, number, RecordedVerdict::Allow, text)]).unwrap();
        }
        store.sync().unwrap();
        export.write_ahead(&store.reader(), store.synced()).unwrap();
        assert_eq!(with_her(&made, "payload"), 1, "it was not written ahead");
        drop(export);
        let fields = vec!["statement".to_owned()];
        store.destroy(&Selection { session: Some(session(9)), fields, ..selection() }, Timestamp(5)).unwrap();
        let mut export = Export::open(&made.export()).unwrap();
        let signed = notary.sign().unwrap().unwrap();
        export.publish(&store.reader(), signed.size, &signed.note).unwrap();
        made.signed.push(signed);
        store.close().unwrap();
        assert_eq!(with_her(&made, "payload"), 0);
        assert!(verify_folder(&made, &made.expected()).holds());
    }

    #[test]
    fn an_entry_that_was_taken_out_without_a_record_is_found() {
        let made = make();
        change(&file(&made, "tile/entries/000"), |bundle| {
            let place = places(bundle)[20].clone();
            bundle.splice(place, [0, 0]);
        });
        found(&verify_folder(&made, &made.expected()), "20: the entry is not there, and none says that it was destroyed");
    }

    #[test]
    fn more_that_was_taken_out_under_a_record_is_found() {
        let mut made = make();
        // The rule destroys requests of some sessions; an attacker, one of another in the same range.
        let two = Selection { kinds: vec![EventKind::Request], held_sessions: vec![session(3)], ..selection() };
        let contents = destroy(&mut made, &two);
        assert!(verify_folder(&made, &made.expected()).holds());
        let mut emptied = None;
        change(&file(&made, "tile/entries/001"), |bundle| {
            let places = places(bundle);
            let at = places.iter().rposition(|place| place.len() > 2).unwrap();
            emptied = Some(at);
            bundle.splice(places[at].clone(), [0, 0]);
        });
        assert!(emptied.is_some());
        let what =
            format!("it says that {contents} contents were destroyed, and of what it speaks of, {} are not there", contents + 1);
        found(&verify_folder(&made, &made.expected()), &what);
        // Two records that overlap: all of what they say is what may be missing.
        let mut made = make();
        let of = |held: u64| Selection {
            kinds: vec![EventKind::Request],
            held_sessions: vec![session(held), session(2)],
            ..selection()
        };
        let contents = destroy(&mut made, &of(3)) + destroy(&mut made, &of(1));
        assert!(verify_folder(&made, &made.expected()).holds());
        change(&file(&made, "tile/entries/001"), |bundle| {
            let places = places(bundle);
            let at = places.iter().rposition(|place| place.len() > 2).unwrap();
            bundle.splice(places[at].clone(), [0, 0]);
        });
        found(&verify_folder(&made, &made.expected()), &format!("{contents} entries are said to have been destroyed, and"));
    }

    #[test]
    fn the_space_of_what_was_destroyed_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = AuditStore::open(dir.path().join("audit"), options()).unwrap();
        // Letters that no compression shortens much.
        let noise = |n: u64| {
            let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let letter = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
            };
            (0..20_000).map(letter).collect::<String>()
        };
        for n in 0..200 {
            store.append(&[request(1, n, n, RecordedVerdict::Allow, &noise(n))]).unwrap();
        }
        store.flush().unwrap();
        let before = store.health().disk_bytes;
        let fields = Selection { fields: vec!["statement".to_owned()], ..selection() };
        assert_eq!(store.destroy(&fields, Timestamp(5)).unwrap().contents, 200);
        store.sweep(0..u64::MAX).unwrap();
        let after = store.health().disk_bytes;
        assert!(after * 5 < before, "{before} bytes, {after} after");
        let folder = std::fs::read_dir(dir.path().join("audit")).unwrap().map(|file| file.unwrap().metadata().unwrap());
        let files: u64 = folder.map(|file| std::os::unix::fs::MetadataExt::blocks(&file) * 512).sum();
        assert!(files < before + (6 << 20), "{files} bytes in files");
    }
}
