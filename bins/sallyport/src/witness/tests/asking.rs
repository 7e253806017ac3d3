//! The gateway's side, against our witness and against one that says anything.

use super::super::server::{Timeouts, serve};
use super::super::{Cosigned, WitnessClient, WitnessError, WitnessSetupError, Witnesses, seconds};
use super::{Log, NAME, Served, http, open, post, scripted};
use crate::config::WitnessConfig;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tlog::witness::SIZE_TYPE;
use tlog::{KeyKind, Note, NoteError, Signer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn ask(config: &WitnessConfig, log: &Log, size: u64, known: u64) -> Result<String, WitnessError> {
    WitnessClient::new(config).unwrap().cosign(&log.note(size), known, &|old, new| log.proof(old, new)).await
}

#[tokio::test]
async fn a_witness_is_asked_from_the_size_that_it_knows() {
    let log = Log::new(0, 64);
    let served = Served::start(&log, Timeouts::default()).await;
    let proofs = AtomicUsize::new(0);
    let client = WitnessClient::new(&served.config()).unwrap();
    let proof = |old, new| {
        proofs.fetch_add(1, Ordering::Relaxed);
        log.proof(old, new)
    };
    for (size, known, requests) in [(5, 0, 1), (9, 5, 1), (20, 0, 2), (20, 20, 1), (30, 9, 2), (40, 35, 2), (40, 60, 1)] {
        proofs.store(0, Ordering::Relaxed);
        let line = client.cosign(&log.note(size), known, &proof).await.unwrap();
        assert_eq!(proofs.load(Ordering::Relaxed), requests, "{size} from {known}");
        let note = Note::parse(format!("{}{line}", log.note(size)).as_bytes()).unwrap();
        let verified = note.verify(&[log.key(), served.witness.key().clone()]).unwrap();
        assert_eq!(verified.len(), 2);
    }
}

#[tokio::test]
async fn a_log_that_forgot_or_forked_is_told() {
    let (log, fork) = (Log::new(0, 64), Log::new(1, 4));
    let served = Served::start(&log, Timeouts::default()).await;
    let config = served.config();
    assert!(ask(&config, &log, 20, 0).await.is_ok());
    for known in [0, 9, 20] {
        assert_eq!(ask(&config, &log, 19, known).await, Err(WitnessError::Ahead { size: 20 }), "restored, from {known}");
        assert_eq!(ask(&config, &fork, 20, known).await, Err(WitnessError::Forked { size: 20 }), "forked, from {known}");
        assert_eq!(ask(&config, &fork, 30, known).await, Err(WitnessError::Forked { size: 20 }), "went on, from {known}");
    }
    let none = WitnessClient::new(&config).unwrap().cosign(&log.note(30), 0, &|old, _| (old == 0).then(Vec::new)).await;
    assert_eq!(none, Err(WitnessError::NoProof { old: 20, new: 30 }));
    let wrong = WitnessClient::new(&config).unwrap().cosign("no note", 0, &|_, _| None).await;
    assert!(matches!(wrong, Err(WitnessError::NotACheckpoint(_))), "{wrong:?}");
}

#[tokio::test]
async fn nothing_that_a_witness_says_passes_for_its_cosignature() {
    let log = Log::new(0, 64);
    let signer = Signer::from_seed(NAME, KeyKind::Witness, &[9; 32]).unwrap();
    let other = Signer::from_seed(NAME, KeyKind::Witness, &[8; 32]).unwrap();
    let text = Note::parse(log.note(9).as_bytes()).unwrap().text;
    let now = seconds();
    let (ok, size) = (|body: &str| vec![http(200, "text/plain", body)], |body: &str| http(409, SIZE_TYPE, body));
    let forged = NoteError::Forged(NAME.to_owned());
    for (answers, expected) in [
        (ok(&signer.sign(&text, now)), Ok(())),
        (ok(&format!("{}{}", other.sign(&text, now), signer.sign(&text, now))), Ok(())),
        (ok(&other.sign(&text, now)), Err(WitnessError::Cosignature(NoteError::Unsigned))),
        (ok(&signer.sign("another text\n", now)), Err(WitnessError::Cosignature(forged))),
        (ok(""), Err(WitnessError::Cosignature(NoteError::Malformed("it does not end with a line")))),
        (ok(&signer.sign(&text, now - 3_600)), Err(WitnessError::Clock { said: now - 3_600, here: now })),
        (ok(&signer.sign(&text, now + 3_600)), Err(WitnessError::Clock { said: now + 3_600, here: now })),
        (ok(&"x".repeat(65 << 10)), Err(WitnessError::TooLarge)),
        (vec![http(302, "text/plain", "")], Err(WitnessError::Status(302))),
        (vec![http(500, "text/plain", "")], Err(WitnessError::Status(500))),
        (vec![http(404, "text/plain", "")], Err(WitnessError::UnknownLog(404))),
        (vec![http(403, "text/plain", "")], Err(WitnessError::UnknownLog(403))),
        (vec![http(409, "text/plain", "7\n")], Err(WitnessError::Forked { size: 5 })),
        (vec![http(422, "text/plain", "")], Err(WitnessError::Forked { size: 5 })),
        (vec![size("seven\n")], Err(WitnessError::Status(409))),
        (vec![size("10\n")], Err(WitnessError::Ahead { size: 10 })),
        (vec![size("18446744073709551615\n")], Err(WitnessError::Ahead { size: u64::MAX })),
        (vec![size("5\n")], Err(WitnessError::Contradiction(5))),
        (vec![size("9\n"), size("9\n")], Err(WitnessError::Forked { size: 9 })),
        (vec![size("7\n"), size("6\n"), size("7\n"), size("6\n")], Err(WitnessError::Contradiction(7))),
    ] {
        let address = scripted(answers.clone()).await;
        let config = WitnessConfig { key: signer.verifier().clone(), url: format!("http://{address}"), ca: None };
        let mut said = ask(&config, &log, 9, 5).await.map(|line| assert_eq!(line, signer.sign(&text, now)));
        if let Err(WitnessError::Clock { here, .. }) = &mut said {
            *here = now;
        }
        assert_eq!(said, expected, "{answers:?}");
    }
    let config = WitnessConfig { key: signer.verifier().clone(), url: "http://127.0.0.1:1".to_owned(), ca: None };
    assert!(matches!(ask(&config, &log, 9, 5).await, Err(WitnessError::Unreachable(_))));
}

#[tokio::test]
async fn as_many_as_are_needed_cosign_and_the_rest_is_named() {
    let (log, fork) = (Log::new(0, 64), Log::new(1, 4));
    let timeouts = Timeouts::default();
    let (first, second, third) =
        (Served::start(&log, timeouts).await, Served::start(&log, timeouts).await, Served::start(&log, timeouts).await);
    assert_eq!(post(second.address, &log.request(0, 50)).await.0, 200);
    assert_eq!(post(third.address, &fork.request(0, 8)).await.0, 200);
    let deaf = WitnessConfig { url: format!("http://{}", scripted(vec![]).await), ..first.config() };
    let gone = WitnessConfig { url: "http://127.0.0.1:1".to_owned(), ..first.config() };
    let all = [first.config(), second.config(), third.config(), deaf, gone];
    let witnesses = Witnesses::new(&all, 1).unwrap();
    let started = Instant::now();
    let sum = witnesses.cosign(&log.note(9), |old, new| log.proof(old, new)).await;
    assert!(started.elapsed() < Duration::from_secs(8), "one that does not answer is not waited for once there are enough");
    let Cosigned { note, by, missing, ahead, forked, enough } = sum;
    assert_eq!((by, enough), (vec![NAME.to_owned()], true));
    assert_eq!((ahead, forked), (Some((NAME.to_owned(), 50)), Some((NAME.to_owned(), 8))));
    let why: Vec<_> = missing.into_iter().map(|(_, error)| error).collect();
    assert!(
        matches!(
            &why[..],
            [
                WitnessError::Ahead { size: 50 },
                WitnessError::Forked { size: 8 },
                WitnessError::TimedOut,
                WitnessError::Unreachable(_)
            ]
        ),
        "{why:?}"
    );
    let note = Note::parse(note.as_bytes()).unwrap();
    assert_eq!(note.verify(&[log.key(), first.witness.key().clone()]).map(|verified| verified.len()), Ok(2));

    let two = Witnesses::new(&[first.config(), all[4].clone()], 2).unwrap();
    let sum = two.cosign(&log.note(10), |old, new| log.proof(old, new)).await;
    assert!(!sum.enough && sum.by.len() == 1 && sum.missing.len() == 1, "{sum:?}");
    let none = Witnesses::new(&[], 0).unwrap();
    assert!(none.is_empty() && none.cosign(&log.note(10), |_, _| None).await.enough);
}

/// The next checkpoint is asked for from the one before, without a question first.
#[tokio::test]
async fn what_a_witness_knows_is_remembered() {
    let log = Log::new(0, 64);
    let served = Served::start(&log, Timeouts::default()).await;
    let witnesses = Witnesses::new(&[served.config()], 1).unwrap();
    let asked = parking_lot::Mutex::new(vec![]);
    for size in [5, 9, 9, 20] {
        let proof = |old, new| {
            asked.lock().push((old, new));
            log.proof(old, new)
        };
        assert!(witnesses.cosign(&log.note(size), proof).await.enough);
    }
    assert_eq!(*asked.lock(), [(0, 5), (5, 9), (9, 9), (9, 20)]);
}

/// The connection is kept for the next checkpoint; one that the witness has closed meanwhile is no failure.
#[tokio::test]
async fn a_connection_that_was_closed_is_made_anew() {
    let log = Log::new(0, 64);
    let short = Timeouts { head: Duration::from_millis(200), ..Timeouts::default() };
    let served = Served::start(&log, short).await;
    let witnesses = Witnesses::new(&[served.config()], 1).unwrap();
    for size in [5, 9, 20] {
        let sum = witnesses.cosign(&log.note(size), |old, new| log.proof(old, new)).await;
        assert!(sum.enough, "{size}: {sum:?}");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test]
async fn a_witness_behind_tls_is_known_by_its_certificate() {
    let (log, dir) = (Log::new(0, 64), tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, private_key) = (dir.path().join("w.pem"), dir.path().join("w.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&private_key, made.signing_key.serialize_pem()).unwrap();
    let files = crate::config::TlsFiles { certificate: certificate.clone(), private_key };
    let settings = crate::serve::tls::Certificates::load(Some(&files)).unwrap().admin().unwrap();
    let witness = Arc::new(open(&dir.path().join("state"), &log));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, stop) = (listener.local_addr().unwrap().port(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    tokio::spawn(serve(Arc::clone(&witness), listener, Some(Arc::new(move || settings.clone())), Timeouts::default(), stop));
    let config = |ca: Option<&Path>, host: &str| WitnessConfig {
        key: witness.key().clone(),
        url: format!("https://{host}:{port}"),
        ca: ca.map(Path::to_owned),
    };
    assert!(ask(&config(Some(&certificate), "localhost"), &log, 9, 0).await.is_ok());
    let wrong = ask(&config(Some(&certificate), "127.0.0.1"), &log, 9, 0).await;
    assert!(matches!(&wrong, Err(WitnessError::Unreachable(why)) if why.contains("certificate")), "{wrong:?}");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(WitnessClient::new(&config(Some(&empty), "localhost")), Err(WitnessSetupError::Tls { .. })));
}
