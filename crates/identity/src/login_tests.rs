use super::*;
use crate::dev::{DevIssuer, DevToken};
use crate::issuer::{IssuerConfig, IssuerKind, KeySource};
use crate::keys::{CreatedKey, NewKey};
use crate::revocations::{Revocation, Revoked};
use crate::testing::{http, now};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proxy_core::{PrincipalKind, SecretBytes};
use std::time::Duration;

struct World {
    folder: tempfile::TempDir,
    authenticator: Arc<Authenticator>,
    dev: DevIssuer,
}

fn verifier(dev: &DevIssuer, name: &str) -> Arc<Verifier> {
    let mut config = IssuerConfig::new(name, IssuerKind::Dev, "sallyport:dev", &["sallyport"]);
    config.keys = KeySource::Inline(dev.jwks());
    Arc::new(Verifier::new(vec![config], http()).unwrap())
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let dev = DevIssuer::open_or_create(&folder.path().join("dev-issuer"), "sallyport:dev").unwrap();
    let keys = Arc::new(MachineKeys::open(&folder.path().join("machine-keys.json")).unwrap());
    let revocations = Arc::new(Revocations::open(&folder.path().join("revocations.json")).unwrap());
    let authenticator = Arc::new(Authenticator::new(verifier(&dev, "dev"), keys, revocations));
    World { folder, authenticator, dev }
}

fn later(seconds: i64) -> Timestamp {
    Timestamp(now().0 + seconds * 1_000_000)
}

impl World {
    fn token(&self, subject: &str, kind: PrincipalKind) -> SecretBytes {
        let token = DevToken {
            subject: subject.to_owned(),
            audience: "sallyport".to_owned(),
            kind,
            roles: vec!["reader".to_owned()],
            lifetime: Duration::from_secs(60),
            claims: serde_json::from_str(r#"{"team":"payments","sub":"admin","exp":9999999999}"#).unwrap(),
        };
        self.dev.issue(&token, now()).unwrap()
    }

    fn key(&self, subject: &str, connections: &[&str]) -> CreatedKey {
        let new = NewKey {
            subject: subject.to_owned(),
            kind: PrincipalKind::Agent,
            roles: vec!["reader".to_owned()],
            connections: connections.iter().map(|name| (*name).to_owned()).collect(),
            expires: None,
            description: String::new(),
            created_by: "test".to_owned(),
        };
        self.authenticator.keys().create(new, now()).unwrap()
    }

    async fn password(&self, label: &str, password: &[u8], at: Timestamp) -> Result<Principal, LoginFailure> {
        let context = LoginContext { label, connection: Some("orders"), server_end_point: None, now: at };
        let evidence = Evidence::Password(SecretBytes::new(password.to_vec()));
        outcome(self.authenticator.begin().step(&evidence, context).await)
    }

    async fn scram(
        &self,
        label: &str,
        secret: &[u8],
        client: ChannelBinding,
        ours: Option<&[u8]>,
    ) -> Result<Principal, LoginFailure> {
        let context = LoginContext { label, connection: Some("orders"), server_end_point: ours, now: now() };
        let mechanism = if ours.is_some() { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" }.to_owned();
        let mut client = ScramSha256::new(secret, client);
        let mut login = self.authenticator.begin();
        let initial = Evidence::SaslInitial { mechanism, data: client.message().to_vec() };
        let LoginOutcome::Challenge(challenge) = login.step(&initial, context).await else { panic!("no challenge") };
        client.update(&challenge).unwrap();
        let result = login.step(&Evidence::SaslResponse(client.message().to_vec()), context).await;
        if let LoginOutcome::Accepted { last, .. } = &result {
            client.finish(last.as_ref().unwrap()).unwrap();
        }
        outcome(result)
    }
}

fn outcome(outcome: LoginOutcome) -> Result<Principal, LoginFailure> {
    match outcome {
        LoginOutcome::Accepted { principal, .. } => Ok(*principal),
        LoginOutcome::Refused(failure) => Err(failure),
        LoginOutcome::Challenge(_) => panic!("a challenge"),
    }
}

#[tokio::test]
async fn a_token_of_the_dev_issuer_logs_in() {
    let world = world();
    for (kind, word) in [(PrincipalKind::Service, "service"), (PrincipalKind::Agent, "agent"), (PrincipalKind::Human, "human")] {
        let token = world.token("ci-bot", kind);
        let principal = world.password("ci-bot", token.expose(), now()).await.unwrap();
        assert_eq!((principal.id().as_str(), principal.kind), ("dev/ci-bot", kind));
        assert_eq!(principal.roles, ["reader"]);
        assert_eq!(principal.claims["team"], "payments");
        assert_eq!(principal.claims["principal_kind"], word);
        assert_eq!(principal.expires, Some(later(60)), "the further claims replace nothing");
        assert!(!format!("{principal:?}").contains(std::str::from_utf8(token.expose()).unwrap()));
    }
}

#[tokio::test]
async fn the_label_is_checked_and_the_client_is_told() {
    let world = world();
    let token = world.token("ci-bot", PrincipalKind::Service);
    for label in ["admin", "", "CI-BOT", "ci-bot "] {
        let failure = world.password(label, token.expose(), now()).await.unwrap_err();
        assert_eq!(failure.kind, LoginRefusal::Credential);
        assert_eq!(failure.message, format!("user \"{label}\" is not the token's subject"));
        assert_eq!(failure.hint, "connect as user \"ci-bot\"");
    }
    let long = "x\n".repeat(500);
    let failure = world.password(&long, token.expose(), now()).await.unwrap_err();
    assert!(failure.message.len() < 800 && !failure.message.contains('\n'));
}

#[tokio::test]
async fn refused_tokens_say_why_and_the_record_says_more() {
    let world = world();
    let token = world.token("ci-bot", PrincipalKind::Service);
    let expired = world.password("ci-bot", token.expose(), later(60)).await.unwrap_err();
    assert!(expired.message.starts_with("the token expired at 20") && expired.label == "expired", "{expired:?}");
    for (password, word) in [(&b""[..], "empty"), (b"hunter2", "malformed"), (b"sp_nonsense", "key_mistyped")] {
        let failure = world.password("ci-bot", password, now()).await.unwrap_err();
        assert_eq!((failure.kind, failure.label), (LoginRefusal::Credential, word));
        assert!(!failure.reason.contains("hunter2") && !failure.hint.is_empty());
    }
    let mut forged = token.expose().to_vec();
    let last = forged.len() - 5;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let failure = world.password("ci-bot", &forged, now()).await.unwrap_err();
    assert_eq!(failure.message, "the token's signature cannot be verified");
    assert!(failure.reason.contains("dev"), "{}", failure.reason);
}

#[tokio::test]
async fn a_machine_key_logs_in_by_scram_and_by_password() {
    let world = world();
    let key = world.key("press", &[]);
    let binding = [5; 32];
    let secret = key.secret.expose();
    let plain = world.scram(&key.login, secret, ChannelBinding::unrequested(), None).await.unwrap();
    let bound = ChannelBinding::tls_server_end_point(binding.to_vec());
    assert_eq!(world.scram(&key.login, secret, bound, Some(&binding)).await.unwrap(), plain);
    assert_eq!(world.password(&key.login, secret, now()).await.unwrap(), plain);
    assert_eq!(world.password("press", secret, now()).await.unwrap(), plain);
    assert_eq!((plain.id().as_str(), plain.kind), ("key/press", PrincipalKind::Agent));
    let failure = world.password("admin", secret, now()).await.unwrap_err();
    assert_eq!(failure.message, "user \"admin\" is not the key's subject");
}

#[tokio::test]
async fn unknown_keys_and_wrong_secrets_look_alike() {
    let world = world();
    let key = world.key("press", &[]);
    let wrong = world.scram(&key.login, b"wrong", ChannelBinding::unrequested(), None).await.unwrap_err();
    let unknown = world.scram("press+kaaaaaaaaaa", b"wrong", ChannelBinding::unrequested(), None).await.unwrap_err();
    assert_eq!(wrong, unknown);
    let other = ChannelBinding::tls_server_end_point(vec![6; 32]);
    let between = world.scram(&key.login, key.secret.expose(), other, Some(&[5; 32])).await.unwrap_err();
    assert!(between.message.contains("channel binding"), "{between:?}");
}

#[tokio::test]
async fn a_key_for_one_connection_opens_no_other() {
    let world = world();
    let key = world.key("press", &["payroll"]);
    let failure = world.password(&key.login, key.secret.expose(), now()).await.unwrap_err();
    assert_eq!((failure.kind, failure.label), (LoginRefusal::NotAllowed, "key_connection"));
    let key = world.key("press", &["payroll", "orders"]);
    assert!(world.scram(&key.login, key.secret.expose(), ChannelBinding::unrequested(), None).await.is_ok());
}

#[tokio::test]
async fn evidence_out_of_turn_ends_the_login() {
    let world = world();
    let key = world.key("press", &[]);
    let context = LoginContext { label: &key.login, connection: None, server_end_point: None, now: now() };
    let password = Evidence::Password(SecretBytes::new(key.secret.expose().to_vec()));
    let response = Evidence::SaslResponse(b"c=biws".to_vec());
    let initial = Evidence::SaslInitial { mechanism: "SCRAM-SHA-256".to_owned(), data: b"n,,n=,r=abc".to_vec() };

    let mut login = world.authenticator.begin();
    assert!(matches!(login.step(&response, context).await, LoginOutcome::Refused(_)));
    assert!(matches!(login.step(&password, context).await, LoginOutcome::Refused(_)), "over");

    let mut login = world.authenticator.begin();
    assert!(matches!(login.step(&initial, context).await, LoginOutcome::Challenge(_)));
    assert!(matches!(login.step(&password, context).await, LoginOutcome::Refused(_)), "not another method in the middle");

    let mut login = world.authenticator.begin();
    assert!(matches!(login.step(&initial, context).await, LoginOutcome::Challenge(_)));
    let renamed = LoginContext { label: "admin", ..context };
    assert!(matches!(login.step(&response, renamed).await, LoginOutcome::Refused(_)), "not another name in the middle");
}

#[tokio::test]
async fn sessions_end_when_the_credential_does() {
    let world = world();
    let principal = world.password("ci-bot", world.token("ci-bot", PrincipalKind::Service).expose(), now()).await.unwrap();
    let valid = |at| world.authenticator.still_valid(&principal, at);
    assert_eq!(valid(later(59)), Ok(()));
    assert_eq!(valid(later(60)), Err(EndReason::Expired));
    assert_eq!(world.authenticator.not_revoked(&principal, later(60)), Ok(()), "where a session may outlive its token");

    let key = world.key("press", &[]);
    let with_key = world.password(&key.login, key.secret.expose(), now()).await.unwrap();
    assert_eq!(world.authenticator.still_valid(&with_key, later(1)), Ok(()));
    world.authenticator.keys().revoke(&key.id, "test", later(2)).unwrap();
    assert_eq!(world.authenticator.still_valid(&with_key, later(3)), Err(EndReason::Revoked));
}

#[tokio::test]
async fn the_kill_list_ends_sessions_and_refuses_logins() {
    let world = world();
    let token = world.token("ci-bot", PrincipalKind::Service);
    let principal = world.password("ci-bot", token.expose(), now()).await.unwrap();
    let entry = |what: Revoked, until| Revocation {
        what,
        since: now(),
        until,
        by: "root".to_owned(),
        reason: "laptop stolen".to_owned(),
    };
    let list = world.authenticator.revocations();

    // By another process, as the command line does it.
    let command = Revocations::open(&world.folder.path().join("revocations.json")).unwrap();
    let everything = Revoked::Principal("dev/ci-bot".to_owned());
    command.revoke(entry(everything.clone(), Some(later(30)))).unwrap();
    assert!(list.reload_if_changed().unwrap() && !list.reload_if_changed().unwrap());
    assert_eq!(world.authenticator.still_valid(&principal, later(1)), Err(EndReason::Revoked));
    let failure = world.password("ci-bot", token.expose(), later(1)).await.unwrap_err();
    assert_eq!((failure.kind, failure.label), (LoginRefusal::NotAllowed, "revoked"));
    assert!(failure.reason.contains("laptop stolen") && !failure.message.contains("stolen"));
    assert_eq!(world.authenticator.still_valid(&principal, later(30)), Ok(()), "it was for a time");
    command.lift(&everything).unwrap();
    assert!(command.lift(&everything).is_err());
    assert!(list.reload_if_changed().unwrap());
    assert_eq!(list.list(), []);

    let one = Revoked::Credential { issuer: "dev".to_owned(), id: principal.credential_id.clone().unwrap() };
    list.revoke(entry(one, None)).unwrap();
    assert!(world.password("ci-bot", token.expose(), later(1)).await.is_err());
    assert!(
        world.password("ci-bot", world.token("ci-bot", PrincipalKind::Service).expose(), later(1)).await.is_ok(),
        "another token"
    );

    let key = world.key("press", &[]);
    list.revoke(entry(Revoked::Principal("key/press".to_owned()), None)).unwrap();
    let failure = world.scram(&key.login, key.secret.expose(), ChannelBinding::unrequested(), None).await.unwrap_err();
    assert_eq!(failure.label, "revoked");

    std::fs::remove_file(world.folder.path().join("revocations.json")).unwrap();
    assert!(list.reload_if_changed().is_err(), "a lost list does not let anybody in");
    assert_eq!(list.list().len(), 2);
}

#[tokio::test]
async fn a_new_configuration_replaces_the_issuers() {
    let world = world();
    let token = world.token("ci-bot", PrincipalKind::Service);
    world.password("ci-bot", token.expose(), now()).await.unwrap();
    world.authenticator.replace_verifier(verifier(&world.dev, "renamed"));
    assert_eq!(world.password("ci-bot", token.expose(), now()).await.unwrap().issuer, "renamed");
    world.authenticator.replace_verifier(Arc::new(Verifier::new(Vec::new(), http()).unwrap()));
    let failure = world.password("ci-bot", token.expose(), now()).await.unwrap_err();
    assert_eq!(failure.label, "unknown_issuer");
}

#[tokio::test]
async fn a_token_from_a_copied_key_folder_of_another_installation_is_refused() {
    let (world, other) = (world(), super::tests::world());
    let failure = world.password("ci-bot", other.token("ci-bot", PrincipalKind::Service).expose(), now()).await.unwrap_err();
    assert_eq!(failure.label, "unknown_key");
}

#[tokio::test]
async fn in_the_background_revocations_are_noticed_and_the_current_issuers_refreshed() {
    let world = world();
    let key = world.key("press", &[]);
    let principal = world.password(&key.login, key.secret.expose(), now()).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let authenticator = Arc::clone(&world.authenticator);
    let noticed = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&noticed);
    let changed = move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let running = tokio::spawn(async move { authenticator.run(async { drop(stopped.await) }, changed).await });
    let command = MachineKeys::open(&world.folder.path().join("machine-keys.json")).unwrap();
    command.revoke(&key.id, "root", now()).unwrap();
    let mut waited = 0;
    while world.authenticator.still_valid(&principal, now()).is_ok() {
        assert!(waited < 300, "not within three seconds");
        waited += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.authenticator.verifier().key_status()[0].keys, 1);
    stop.send(()).unwrap();
    running.await.unwrap();
    assert!(noticed.load(std::sync::atomic::Ordering::Relaxed) > 0, "live sessions are to be checked");
}

#[tokio::test]
async fn a_change_is_noticed_though_the_other_file_cannot_be_read() {
    let world = world();
    let key = world.key("press", &[]);
    world.authenticator.reload_files().1.unwrap();
    std::fs::write(world.folder.path().join("revocations.json"), "{").unwrap();
    let command = MachineKeys::open(&world.folder.path().join("machine-keys.json")).unwrap();
    command.revoke(&key.id, "root", now()).unwrap();
    let (changed, read) = world.authenticator.reload_files();
    assert!(changed, "sessions of the revoked key must be checked");
    assert!(read.is_err());
}
