use super::*;
use crate::merkle::{Frontier, Node, consistency_proof, leaf_hash};
use proptest::prelude::*;
use std::collections::HashMap;
use std::convert::Infallible;

const ORIGIN: &str = "example.com/sallyport";
const NOW: u64 = 1_700_000_000;

fn signer(name: &str, kind: KeyKind, seed: u8) -> Signer {
    Signer::from_seed(name, kind, &[seed; 32]).expect("a name and a seed")
}

fn witness() -> Signer {
    signer("witness.example", KeyKind::Witness, 9)
}

/// A log with one history, and the checkpoints of each of its sizes.
struct Log {
    signer: Signer,
    nodes: HashMap<Node, Hash>,
    roots: Vec<Hash>,
}

impl Log {
    /// `history` tells one from another: they part at the entry `parts_at`.
    fn new(size: u64, history: u8, parts_at: u64) -> Self {
        let (mut nodes, mut frontier, mut roots) = (HashMap::new(), Frontier::default(), vec![EMPTY_ROOT]);
        for at in 0..size {
            let leaf = [&at.to_be_bytes()[..], if at < parts_at { &[] } else { std::slice::from_ref(&history) }].concat();
            frontier.push(leaf_hash(&leaf), |node, hash| {
                nodes.insert(node, *hash);
            });
            roots.push(frontier.root());
        }
        Self { signer: signer(ORIGIN, KeyKind::Log, 1), nodes, roots }
    }

    fn known(&self, size: u64) -> Known {
        Known { size, root: self.roots[size as usize] }
    }

    fn text(&self, size: u64) -> String {
        Checkpoint { origin: ORIGIN.to_owned(), size, root: self.roots[size as usize] }.to_string()
    }

    fn note(&self, size: u64) -> String {
        let text = self.text(size);
        format!("{text}\n{}", self.signer.sign(&text, 0))
    }

    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        let Ok(proof) = consistency_proof(old, new, |node| Ok::<_, Infallible>(self.nodes[&node]));
        proof
    }

    fn request(&self, old: u64, new: u64) -> String {
        encode_request(old, &self.proof(old, new), &self.note(new))
    }

    fn keys(&self) -> Vec<Verifier> {
        vec![self.signer.verifier().clone()]
    }
}

/// What a witness that knows the log of these keys makes of a body.
fn ask(body: &str, keys: &[Verifier], known: Known) -> Result<Cosigned, Refusal> {
    decide(&Request::parse(body.as_bytes())?, keys, known, &witness(), NOW)
}

#[test]
fn every_answer_of_the_specification() {
    let (log, fork) = (Log::new(20, 0, 20), Log::new(20, 1, 8));
    let keys = log.keys();
    let mut wrong = log.proof(5, 12);
    wrong[1][0] ^= 1;
    let other = signer(ORIGIN, KeyKind::Log, 2);
    let signed_by = |signer: &Signer| format!("{}\n{}", log.text(12), signer.sign(&log.text(12), 0));
    let zero = Checkpoint { origin: ORIGIN.to_owned(), size: 0, root: [7; 32] }.to_string();
    let zero = format!("{zero}\n{}", log.signer.sign(&zero, 0));
    let forged = log.note(12).replace("\n12\n", "\n13\n");
    for (what, body, known, expected) in [
        ("first", log.request(0, 12), Known::default(), Ok(12)),
        ("empty", log.request(0, 0), Known::default(), Ok(0)),
        ("next", log.request(5, 12), log.known(5), Ok(12)),
        ("same", log.request(12, 12), log.known(12), Ok(12)),
        ("old above new", log.request(5, 5).replacen("old 5", "old 6", 1), log.known(6), Err((400, None))),
        (
            "old above new is told before a conflict",
            log.request(5, 5).replacen("old 5", "old 6", 1),
            log.known(9),
            Err((400, None)),
        ),
        ("another's key", encode_request(5, &log.proof(5, 12), &signed_by(&other)), log.known(5), Err((403, None))),
        ("forged", encode_request(5, &log.proof(5, 13), &forged), log.known(5), Err((403, None))),
        ("not signed is told before a conflict", encode_request(5, &[], &signed_by(&other)), log.known(9), Err((403, None))),
        ("stale", log.request(5, 12), log.known(9), Err((409, Some(9)))),
        ("unaware", log.request(0, 12), log.known(9), Err((409, Some(9)))),
        ("ahead of the witness", log.request(9, 12), Known::default(), Err((409, Some(0)))),
        ("a conflict is told before a bad proof", encode_request(5, &wrong, &log.note(12)), log.known(9), Err((409, Some(9)))),
        ("two histories, one size", fork.request(12, 12), log.known(12), Err((409, Some(12)))),
        ("two histories, a new size", fork.request(12, 15), log.known(12), Err((422, None))),
        ("wrong proof", encode_request(5, &wrong, &log.note(12)), log.known(5), Err((422, None))),
        ("no proof", encode_request(5, &[], &log.note(12)), log.known(5), Err((422, None))),
        ("a proof too many", encode_request(12, &[[1; 32]], &log.note(12)), log.known(12), Err((422, None))),
        ("a proof from nothing", encode_request(0, &[[1; 32]], &log.note(12)), Known::default(), Err((422, None))),
        ("an empty tree with a root", encode_request(0, &[], &zero), Known::default(), Err((422, None))),
    ] {
        let answer = ask(&body, &keys, known);
        let told = answer.as_ref().map(|cosigned| cosigned.known.size).map_err(|refusal| (refusal.status(), refusal.known()));
        assert_eq!(told, expected, "{what}: {answer:?}");
        let unknown = ask(&body, &[], known).map_err(|refusal| refusal.status());
        assert_eq!(unknown, Err(404), "{what}: whoever asks, an unknown log is told first");
    }
    assert_eq!(ask("old 0\n", &keys, Known::default()).map_err(|refusal| refusal.status()), Err(400));
}

#[test]
fn a_cosignature_is_over_the_checkpoint_and_keeps_what_shows_it() {
    let log = Log::new(12, 0, 12);
    let mut body = log.request(5, 12);
    // Lines that anybody can add are not kept.
    body.push_str(&signer("elsewhere.example", KeyKind::Witness, 3).sign(&log.text(12), 1));
    let cosigned = ask(&body, &log.keys(), log.known(5)).expect("all is as it should be");
    assert_eq!(cosigned.known, log.known(12));
    let (line, seconds) = cosignature(&log.text(12), cosigned.line.as_bytes(), witness().verifier()).expect("cosigned");
    assert_eq!((line, seconds), (cosigned.line.clone(), NOW));
    assert_eq!(cosigned.note, format!("{}{}", log.note(12), cosigned.line));
    let kept = Note::parse(cosigned.note.as_bytes()).expect("a note");
    let keys = [log.signer.verifier().clone(), witness().verifier().clone()];
    assert_eq!(kept.verify(&keys).map(|verified| verified.len()), Ok(2));
}

#[test]
fn extension_lines_are_cosigned_with_the_rest() {
    let log = Log::new(3, 0, 3);
    let text = format!("{}extension\n", log.text(3));
    let body = encode_request(0, &[], &format!("{text}\n{}", log.signer.sign(&text, 0)));
    let cosigned = ask(&body, &log.keys(), Known::default()).expect("all is as it should be");
    assert!(cosignature(&text, cosigned.line.as_bytes(), witness().verifier()).is_ok());
    assert!(cosignature(&log.text(3), cosigned.line.as_bytes(), witness().verifier()).is_err());
}

#[test]
fn a_key_that_was_replaced_may_sign_beside_the_new_one() {
    let log = Log::new(3, 0, 3);
    let new = signer(ORIGIN, KeyKind::Log, 2);
    let both = [log.signer.verifier().clone(), new.verifier().clone()];
    let body = encode_request(0, &[], &format!("{}\n{}", log.text(3), new.sign(&log.text(3), 0)));
    assert!(ask(&body, &both, Known::default()).is_ok());
    // A line that claims to be one's and is not makes a note of which nothing is believed.
    let forged = format!("{body}{}", log.signer.sign("another text\n", 0));
    assert_eq!(ask(&forged, &both, Known::default()), Err(Refusal::Unsigned));
}

#[test]
fn an_answer_is_believed_for_its_checkpoint_key_and_time() {
    let (log, key) = (Log::new(3, 0, 3), witness());
    let (text, other) = (log.text(3), log.text(2));
    let line = key.sign(&text, NOW);
    let read = |answer: &str| cosignature(&text, answer.as_bytes(), key.verifier());
    let expected = Ok((line.clone(), NOW));
    assert_eq!(read(&line), expected);
    let stranger = signer("other.example", KeyKind::Witness, 3).sign(&text, 1);
    assert_eq!(read(&format!("{stranger}{line}")), expected, "others' lines are left out");
    assert_eq!(read(&stranger), Err(NoteError::Unsigned));
    let same_name = signer("witness.example", KeyKind::Witness, 3).sign(&text, NOW);
    assert_eq!(read(&same_name), Err(NoteError::Unsigned));
    assert_eq!(read(&key.sign(&other, NOW)), Err(NoteError::Forged("witness.example".to_owned())));
    for answer in ["", "\n", "ok\n", line.trim_end(), &format!("{text}\n{line}"), &format!("\n{line}")] {
        assert!(matches!(read(answer), Err(NoteError::Malformed(_))), "{answer:?}");
    }
    assert_eq!(cosignature(&text, line.as_bytes(), log.signer.verifier()), Err(NoteError::Key("it is not a witness's")));
    assert!(is_plausible(NOW - CLOCK_SKEW_MAX, NOW) && is_plausible(NOW + CLOCK_SKEW_MAX, NOW));
    assert!(!is_plausible(NOW - CLOCK_SKEW_MAX - 1, NOW) && !is_plausible(u64::MAX, NOW) && !is_plausible(0, NOW));
}

#[test]
fn what_is_no_request_is_refused() {
    let log = Log::new(12, 0, 12);
    let (note, hash) = (log.note(12), BASE64.encode([1; 32]));
    assert!(Request::parse(format!("old 0\n\n{note}").as_bytes()).is_ok());
    let lines = |count: usize| format!("old 3\n{}\n{note}", format!("{hash}\n").repeat(count));
    assert_eq!(Request::parse(lines(PROOF_MAX).as_bytes()).map(|request| request.proof.len()), Ok(PROOF_MAX));
    for body in [
        String::new(),
        "old 0\n".to_owned(),
        "old 0\n\n".to_owned(),
        note.clone(),
        format!("\n\n{note}"),
        format!("old 0\n{note}"),
        format!("old 0\n\n\n{note}"),
        format!("old 0\r\n\r\n{note}"),
        format!("OLD 0\n\n{note}"),
        format!("old  0\n\n{note}"),
        format!("old 00\n\n{note}"),
        format!("old +1\n\n{note}"),
        format!("old -1\n\n{note}"),
        format!("old 18446744073709551616\n\n{note}"),
        format!("old\n\n{note}"),
        format!("size 0\n\n{note}"),
        format!("old 3\n{hash} \n\n{note}"),
        format!("old 3\n{}\n\n{note}", &hash[..40]),
        format!("old 3\n{}\n\n{note}", hash.trim_end_matches('=')),
        format!("old 3\n!\n\n{note}"),
        lines(PROOF_MAX + 1),
        format!("old 0\n\n{}", log.text(12)),
        format!("old 0\n\ntext\n\n{}", log.signer.sign("text\n", 0)),
        format!("old 0\n\n{note}{}", "x".repeat(REQUEST_MAX)),
    ] {
        assert!(matches!(Request::parse(body.as_bytes()), Err(Refusal::Malformed(_))), "{body:?}");
    }
    assert!(matches!(Request::parse(b"old 0\n\n\xff"), Err(Refusal::Malformed(_))));
}

#[test]
fn a_size_has_one_spelling() {
    for size in [0, 7, u64::MAX] {
        assert_eq!(parse_size_answer(encode_size(size).as_bytes()), Some(size));
    }
    for body in ["", "\n", "7", "07\n", "+7\n", "7\n\n", " 7\n", "7 \n", "x\n", "18446744073709551616\n"] {
        assert_eq!(parse_size_answer(body.as_bytes()), None, "{body:?}");
    }
    assert_eq!(parse_size_answer(b"\xff\n"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked in whatever order, of two histories: all that is cosigned is one history, and it never shrinks.
    #[test]
    fn what_was_cosigned_is_one_history(asked in prop::collection::vec((any::<bool>(), 0u64..24, 0u64..24), 1..40)) {
        let logs = [Log::new(24, 0, 24), Log::new(24, 1, 6)];
        let keys = logs[0].keys();
        let (mut known, mut seen) = (Known::default(), Vec::new());
        for (second, old, new) in asked {
            let log = &logs[usize::from(second)];
            let proof = if old <= new { log.proof(old, new) } else { Vec::new() };
            if let Ok(cosigned) = ask(&encode_request(old, &proof, &log.note(new)), &keys, known) {
                prop_assert!(cosigned.known.size >= known.size && old == known.size);
                known = cosigned.known;
                seen.push(known);
            }
        }
        let one = |log: &Log| seen.iter().all(|known| log.known(known.size) == *known);
        prop_assert!(logs.iter().any(one), "{seen:?}");
    }

    #[test]
    fn a_request_is_read_as_it_was_written(old in 0u64..=12, new in 0u64..=12) {
        let log = Log::new(12, 0, 12);
        let proof = if old <= new { log.proof(old, new) } else { vec![[5; 32]] };
        let body = encode_request(old, &proof, &log.note(new));
        let read = Request::parse(body.as_bytes()).expect("a request");
        prop_assert_eq!((read.old, &read.proof, read.checkpoint.size), (old, &proof, new));
        let note = format!("{}\n{}", read.note.text, read.note.line_of(log.signer.verifier()).expect("signed"));
        prop_assert_eq!(encode_request(read.old, &read.proof, &note), body);
    }

    /// Nothing that is sent makes it panic, and nothing but the very request is cosigned.
    #[test]
    fn a_changed_byte_is_never_cosigned_as_another_tree(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let log = Log::new(12, 0, 12);
        let mut body = log.request(5, 12).into_bytes();
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        if let Ok(request) = Request::parse(&body)
            && let Ok(cosigned) = decide(&request, &log.keys(), log.known(5), &witness(), NOW)
        {
            prop_assert_eq!(cosigned.known, log.known(12));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..400), text in "(old [0-9]{0,3}\n)?[A-Za-z0-9+/=\n — ]{0,200}") {
        let _ = (Request::parse(&body), Request::parse(text.as_bytes()));
        let _ = (parse_size_answer(&body), cosignature("a\n0\nb\n", &body, witness().verifier()));
    }
}
