use super::*;
use crate::limits::STORE_FILE_MAX;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const NOW: Timestamp = Timestamp(1_795_521_600_000_000);

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control/machine-keys.json");
    Place { _folder: folder, path }
}

fn new_key(subject: &str) -> NewKey {
    NewKey {
        subject: subject.to_owned(),
        kind: PrincipalKind::Service,
        roles: vec!["writer".to_owned(), "reader".to_owned()],
        connections: Vec::new(),
        expires: None,
        description: "nightly import".to_owned(),
        created_by: "local:root".to_owned(),
    }
}

fn later(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1_000_000)
}

fn scram(keys: &MachineKeys, login: &str, password: &[u8], now: Timestamp) -> Result<Principal, String> {
    let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
    let mut exchange = keys.exchange(login, None);
    let challenge = exchange.scram.first(crate::scram::SCRAM_SHA_256, client.message()).map_err(|error| error.to_string())?;
    client.update(&challenge).map_err(|error| error.to_string())?;
    let last = exchange.scram.last(client.message()).map_err(|error| error.to_string())?;
    client.finish(&last).map_err(|error| error.to_string())?;
    keys.principal_for(&exchange, now).map_err(|error| error.to_string())
}

#[test]
fn a_key_logs_in_both_ways() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    assert!(!place.path.exists(), "opening writes nothing");
    let created = keys.create(new_key("ci-bot"), NOW).unwrap();
    assert_eq!(created.login, format!("ci-bot+{}", created.id));
    assert_eq!(split_login(&created.login), Some(("ci-bot", created.id.as_str())));
    assert!(is_secret(created.secret.expose()));
    assert_eq!(created.secret.expose().len(), 64);

    let by_secret = keys.verify_secret(created.secret.expose(), NOW).unwrap();
    let by_scram = scram(&keys, &created.login, created.secret.expose(), NOW).unwrap();
    assert_eq!(by_secret, by_scram);
    assert_eq!(by_secret.id(), "key/ci-bot");
    assert_eq!(by_secret.roles, ["reader", "writer"]);
    assert_eq!(by_secret.credential_id, Some(format!("key:{}", created.id)));
    assert!(by_secret.answers_to(&created.login) && by_secret.answers_to("ci-bot"));
    assert_eq!(keys.get(&created.id).unwrap().last_used, Some(NOW));
}

#[test]
fn the_file_reveals_no_secret_and_is_private() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let created = keys.create(new_key("ci-bot"), NOW).unwrap();
    let secret = String::from_utf8(created.secret.expose().to_vec()).unwrap();
    let random = &secret[3 + ID_LEN + 1..secret.len() - CHECK_LEN];
    for entry in fs::read_dir(place.path.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::read_to_string(&path).unwrap().contains(random), "{path:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    let shown = format!("{keys:?}{created:?}{:?}", keys.list());
    assert!(!shown.contains(random));
    // What a thief has does not log in.
    let stored = fs::read_to_string(&place.path).unwrap();
    let verifier = stored.split('"').find(|text| text.starts_with("SCRAM-SHA-256$")).unwrap();
    let stored_key = verifier.rsplit_once('$').unwrap().1.split_once(':').unwrap().0;
    for stolen in [verifier.as_bytes(), stored_key.as_bytes(), &STANDARD.decode(stored_key).unwrap()] {
        assert!(scram(&keys, &created.login, stolen, NOW).is_err());
        assert!(keys.verify_secret(stolen, NOW).is_err());
    }
}

#[test]
fn wrong_keys_are_refused() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let created = keys.create(new_key("ci-bot"), NOW).unwrap();
    let other = keys.create(new_key("other"), NOW).unwrap();
    let secret = String::from_utf8(created.secret.expose().to_vec()).unwrap();

    let mut typo = secret.clone().into_bytes();
    typo[30] = if typo[30] == b'a' { b'b' } else { b'a' };
    for mistyped in [typo.as_slice(), &secret.as_bytes()[..63], b"sp_", b"", b"sp_x_y", &[b's', b'p', b'_', 0xff]] {
        assert_eq!(keys.verify_secret(mistyped, NOW), Err(KeyError::Mistyped));
    }
    // Well formed, but never created: with a known id and with an unknown one.
    for id in [created.id.as_str(), "kaaaaaaaaaa"] {
        let body = format!("sp_{id}_{}", "0".repeat(RANDOM_LEN));
        let forged = format!("{body}{}", checksum(&body));
        assert_eq!(keys.verify_secret(forged.as_bytes(), NOW), Err(KeyError::Wrong), "{id}");
    }
    // One key's secret under another's name, or under another subject.
    assert!(scram(&keys, &other.login, created.secret.expose(), NOW).is_err());
    assert!(scram(&keys, &format!("admin+{}", created.id), created.secret.expose(), NOW).is_err());
    assert!(scram(&keys, "ci-bot", created.secret.expose(), NOW).is_err());
}

#[test]
fn unknown_names_get_the_same_salt_each_time_and_after_a_restart() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    keys.create(new_key("ci-bot"), NOW).unwrap();
    let salt = |keys: &MachineKeys, login: &str| {
        let challenge = keys.exchange(login, None).scram.first("SCRAM-SHA-256", b"n,,n=,r=abc").unwrap();
        String::from_utf8(challenge).unwrap().split_once(",s=").unwrap().1.to_owned()
    };
    let first = salt(&keys, "ghost+kaaaaaaaaaa");
    assert_eq!(salt(&keys, "ghost+kaaaaaaaaaa"), first);
    assert_ne!(salt(&keys, "ghost+kaaaaaaaaab"), first);
    assert_eq!(salt(&MachineKeys::open(&place.path).unwrap(), "ghost+kaaaaaaaaaa"), first);
    assert!(first.ends_with(",i=4096") && first.len() == "W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len(), "as a real one: {first}");
}

#[test]
fn expiry_and_revocation() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let created = keys.create(NewKey { expires: Some(later(60)), ..new_key("ci-bot") }, NOW).unwrap();
    let principal = keys.verify_secret(created.secret.expose(), NOW).unwrap();
    assert_eq!(principal.expires, Some(later(60)));
    assert_eq!(keys.still_valid(&principal, later(59)), Ok(()));
    assert_eq!(keys.still_valid(&principal, later(60)), Err(EndReason::Expired));
    let expired = KeyError::Expired { id: created.id.clone(), since: later(60) };
    assert_eq!(keys.verify_secret(created.secret.expose(), later(60)), Err(expired.clone()));
    assert_eq!(scram(&keys, &created.login, created.secret.expose(), later(60)), Err(expired.to_string()));

    let revoked = keys.revoke(&created.id, "local:root", later(5)).unwrap();
    assert_eq!((revoked.revoked, revoked.revoked_by.as_deref()), (Some(later(5)), Some("local:root")));
    assert_eq!(keys.still_valid(&principal, later(6)), Err(EndReason::Revoked));
    let refused = KeyError::Revoked { id: created.id.clone(), at: later(5) };
    assert_eq!(keys.verify_secret(created.secret.expose(), later(6)), Err(refused.clone()));
    assert_eq!(scram(&keys, &created.login, created.secret.expose(), later(6)), Err(refused.to_string()));
    // Who does not have the secret does not learn that it was revoked.
    assert!(scram(&keys, &created.login, b"guess", later(6)).unwrap_err().contains("proof"));

    assert_eq!(keys.revoke(&created.id, "somebody", later(9)).unwrap().revoked, Some(later(5)), "the first revocation stands");
    assert!(matches!(keys.revoke("kaaaaaaaaaa", "x", NOW), Err(KeyStoreError::NotFound(_))));
    let token = Principal { issuer: "entra".to_owned(), ..principal };
    assert_eq!(keys.still_valid(&token, later(999)), Ok(()), "tokens are not ours");
}

#[test]
fn the_gateway_notices_what_the_command_line_does() {
    let place = place();
    let gateway = MachineKeys::open(&place.path).unwrap();
    assert!(!gateway.reload_if_changed().unwrap());
    let command = MachineKeys::open(&place.path).unwrap();
    let created = command.create(new_key("ci-bot"), NOW).unwrap();
    assert!(gateway.verify_secret(created.secret.expose(), NOW).is_err());
    assert!(gateway.reload_if_changed().unwrap());
    assert!(!gateway.reload_if_changed().unwrap());
    let principal = gateway.verify_secret(created.secret.expose(), NOW).unwrap();
    command.revoke(&created.id, "local:root", NOW).unwrap();
    assert!(gateway.reload_if_changed().unwrap());
    assert_eq!(gateway.still_valid(&principal, NOW), Err(EndReason::Revoked));

    fs::remove_file(&place.path).unwrap();
    assert!(gateway.reload_if_changed().unwrap());
    assert_eq!(gateway.list(), [], "no file, no keys");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let place = place();
    let threads = (0..6).map(|thread| {
        let path = place.path.clone();
        std::thread::spawn(move || {
            let keys = MachineKeys::open(&path).unwrap();
            for round in 0..5 {
                keys.create(new_key(&format!("bot-{thread}-{round}")), NOW).unwrap();
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(MachineKeys::open(&place.path).unwrap().list().len(), 30);
}

#[test]
fn a_crash_while_writing_leaves_the_old_file() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let created = keys.create(new_key("ci-bot"), NOW).unwrap();
    // What a crash leaves: half a temporary file, with a mode of its own, and the lock's file.
    let temporary = place.path.with_extension("json.tmp");
    fs::write(&temporary, "{\"version\": 1, \"keys\": [").unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
    let again = MachineKeys::open(&place.path).unwrap();
    assert!(again.verify_secret(created.secret.expose(), NOW).is_ok());
    again.create(new_key("second"), NOW).unwrap();
    assert!(!temporary.exists());
    assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(MachineKeys::open(&place.path).unwrap().list().len(), 2);
}

#[test]
fn a_failed_write_changes_nothing() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let created = keys.create(new_key("ci-bot"), NOW).unwrap();
    // A folder in the temporary file's place: it cannot be written, not even by root.
    fs::create_dir(place.path.with_extension("json.tmp")).unwrap();
    assert!(matches!(keys.create(new_key("second"), NOW), Err(KeyStoreError::File(StoreFileError::Io { .. }))));
    assert!(keys.revoke(&created.id, "x", NOW).is_err());
    assert_eq!(keys.list().len(), 1);
    assert_eq!(keys.get(&created.id).unwrap().revoked, None, "it does not claim what was not written");
}

#[test]
fn damaged_or_open_files_are_not_used() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let created = keys.create(new_key("ci-bot"), NOW).unwrap();
    let good = fs::read_to_string(&place.path).unwrap();
    let damaged = [
        good[..good.len() / 2].to_owned(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace("4096:", "4096;"),
        good.replace("\"roles\"", "\"rolls\""),
        String::new(),
    ];
    for text in damaged {
        fs::write(&place.path, &text).unwrap();
        let error = keys.reload_if_changed().unwrap_err();
        assert!(matches!(error, StoreFileError::Damaged { .. }), "{error}");
        assert!(MachineKeys::open(&place.path).is_err());
        assert!(keys.create(new_key("second"), NOW).is_err(), "and not overwritten");
        assert_eq!(fs::read_to_string(&place.path).unwrap(), text);
        assert!(keys.verify_secret(created.secret.expose(), NOW).is_ok(), "the keys stay as they were");
    }
    fs::write(&place.path, &good).unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(MachineKeys::open(&place.path), Err(StoreFileError::Permissions { mode: 0o640, .. })));
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::OpenOptions::new().write(true).open(&place.path).unwrap().set_len(STORE_FILE_MAX + 1).unwrap();
    assert!(matches!(MachineKeys::open(&place.path), Err(StoreFileError::TooLarge { .. })));
}

#[test]
fn connections_of_a_key() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    let tied = keys.create(NewKey { connections: vec!["orders".to_owned()], ..new_key("a") }, NOW).unwrap();
    let free = keys.create(new_key("b"), NOW).unwrap();
    let tied = keys.verify_secret(tied.secret.expose(), NOW).unwrap();
    let free = keys.verify_secret(free.secret.expose(), NOW).unwrap();
    assert!(keys.allows(&tied, "orders") && !keys.allows(&tied, "payroll"));
    assert!(keys.allows(&free, "payroll"));
    let gone = Principal { credential_id: Some("key:kaaaaaaaaaa".to_owned()), ..free };
    assert!(!keys.allows(&gone, "payroll"));
}

#[test]
fn requests_that_make_no_sense() {
    let place = place();
    let keys = MachineKeys::open(&place.path).unwrap();
    for bad in [
        new_key(""),
        new_key("a b"),
        new_key("a\nb"),
        new_key(&"x".repeat(513)),
        NewKey { expires: Some(NOW), ..new_key("a") },
        NewKey { roles: vec![String::new()], ..new_key("a") },
        NewKey { description: "x".repeat(1025), ..new_key("a") },
    ] {
        assert!(matches!(keys.create(bad, NOW), Err(KeyStoreError::Invalid(_))));
    }
    assert!(!place.path.exists());
}

#[test]
fn secrets_are_drawn_from_the_whole_alphabet() {
    let text = random_text(BASE62, 20_000).unwrap();
    assert_eq!(text.len(), 20_000);
    for character in BASE62 {
        let count = text.bytes().filter(|byte| byte == character).count();
        assert!((200..500).contains(&count), "{character}: {count} of about 322");
    }
}

#[test]
fn login_names() {
    assert_eq!(split_login("a+b+kabcdefghij"), Some(("a+b", "kabcdefghij")));
    for other in ["ci-bot", "+kabcdefghij", "a+", "a+xabcdefghij", "a+kabcdefghi1", "a+kabcdefghijk", "a+KABCDEFGHIJ"] {
        assert_eq!(split_login(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn no_secret_or_login_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), login in ".{0,40}") {
        let place = place();
        let keys = MachineKeys::open(&place.path).unwrap();
        prop_assert!(keys.verify_secret(&bytes, NOW).is_err());
        let _ = split_login(&login);
        prop_assert!(keys.exchange(&login, None).scram.first("SCRAM-SHA-256", b"n,,n=,r=a").is_ok());
    }
}
