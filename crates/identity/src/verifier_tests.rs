use super::*;
use crate::issuer::KeySource;
use crate::limits::{CLAIMS_MAX, ROLES_MAX};
use crate::testing::{NOW, Reply, Server, TestKey, http, key_set, now};
use proptest::prelude::*;
use proxy_core::PrincipalKind;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const ISS: &str = "https://login.example.com";
const TENANT: &str = "9f2b1c1e-0000-4000-8000-000000000001";
const OTHER_TENANT: &str = "9f2b1c1e-0000-4000-8000-000000000002";
const OID: &str = "11111111-2222-3333-4444-555555555555";
const APP: &str = "aaaaaaaa-2222-3333-4444-555555555555";

fn verifier_of(config: IssuerConfig) -> Verifier {
    Verifier::new(vec![config], http()).unwrap()
}

async fn oidc(keys: &[Value]) -> Verifier {
    let mut config = IssuerConfig::new("main", IssuerKind::Oidc, ISS, &["sallyport", "api://sallyport"]);
    config.keys = KeySource::Inline(key_set(keys));
    let verifier = verifier_of(config);
    verifier.refresh_all().await;
    verifier
}

fn claims() -> Value {
    json!({"iss": ISS, "aud": "sallyport", "sub": "ci-bot", "exp": NOW + 600, "nbf": NOW - 10, "iat": NOW - 10, "roles": ["writer", "reader"]})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn every_allowed_algorithm_is_accepted_with_its_key_and_no_other() {
    let keys = [("rsa", TestKey::rsa()), ("p256", TestKey::p256()), ("p384", TestKey::p384()), ("ed", TestKey::ed())];
    let verifier = oidc(&keys.iter().map(|(kid, key)| key.jwk(kid)).collect::<Vec<_>>()).await;
    let all = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];
    for (kid, key) in &keys {
        let own: &[&str] = match *kid {
            "rsa" => &all[..4],
            "p256" => &all[4..5],
            "p384" => &all[5..6],
            _ => &all[6..],
        };
        for algorithm in all {
            let got = verifier.try_verify(key.token(algorithm, kid, &claims()).as_bytes(), now()).unwrap();
            if own.contains(&algorithm) {
                let principal = got.unwrap();
                assert_eq!(principal.id(), "main/ci-bot");
                assert_eq!(principal.roles, ["reader", "writer"]);
                assert_eq!(principal.kind, PrincipalKind::Service);
                assert_eq!(principal.expires, Some(Timestamp::from_seconds(NOW + 600)));
                assert_eq!(principal.claims["sub"], "ci-bot");
            } else {
                assert!(matches!(got, Err(TokenError::KeyMismatch { .. })), "{algorithm} with {kid}");
            }
        }
    }
}

#[tokio::test]
async fn an_altered_token_or_another_key_s_signature_is_refused() {
    let (own, other) = (TestKey::p256(), TestKey::p256());
    let verifier = oidc(&[own.jwk("a")]).await;
    let forged = other.token("ES256", "a", &claims());
    assert_eq!(verifier.try_verify(forged.as_bytes(), now()), Some(Err(TokenError::BadSignature("main".to_owned()))));

    let good = own.token("ES256", "a", &claims());
    let admin = own.token("ES256", "a", &with(json!({"sub": "admin"})));
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let spliced = format!("{}.{}.{}", parts(&good)[0], parts(&admin)[1], parts(&good)[2]);
    assert_eq!(verifier.try_verify(spliced.as_bytes(), now()), Some(Err(TokenError::BadSignature("main".to_owned()))));
    let cut = &good[..good.len() - 2];
    assert_eq!(verifier.try_verify(cut.as_bytes(), now()), Some(Err(TokenError::BadSignature("main".to_owned()))));
}

#[tokio::test]
async fn none_and_symmetric_algorithms_are_refused_even_with_the_public_key_as_the_secret() {
    let own = TestKey::rsa();
    let verifier = oidc(&[own.jwk("a")]).await;
    for algorithm in ["none", "HS256", "HS384", "HS512"] {
        let token = own.token(algorithm, "a", &claims());
        let got = verifier.try_verify(token.as_bytes(), now()).unwrap();
        assert_eq!(got, Err(TokenError::Algorithm(algorithm.to_owned())));
    }
}

#[tokio::test]
async fn a_key_is_used_for_its_own_algorithm_and_purpose_alone() {
    let own = TestKey::rsa();
    let mut jwk = own.jwk("a");
    jwk["alg"] = json!("RS512");
    let verifier = oidc(&[jwk]).await;
    assert!(verifier.try_verify(own.token("RS512", "a", &claims()).as_bytes(), now()).unwrap().is_ok());
    let got = verifier.try_verify(own.token("RS256", "a", &claims()).as_bytes(), now()).unwrap();
    assert!(matches!(got, Err(TokenError::KeyMismatch { .. })));

    let spare = TestKey::ed();
    for (member, value) in [("use", json!("enc")), ("key_ops", json!(["sign"])), ("alg", json!("HS256")), ("d", json!("AA"))] {
        let mut jwk = own.jwk("a");
        jwk[member] = value;
        let verifier = oidc(&[jwk, spare.jwk("spare")]).await;
        let got = verifier.try_verify(own.token("RS256", "a", &claims()).as_bytes(), now()).unwrap();
        assert!(matches!(got, Err(TokenError::UnknownKey { .. })), "{member}");
    }
}

#[tokio::test]
async fn a_token_without_a_key_id_needs_exactly_one_fitting_key() {
    let (one, two) = (TestKey::p256(), TestKey::p256());
    let token = one.token_with_header(&json!({"alg": "ES256"}), &claims());
    let single = oidc(&[one.jwk("a"), TestKey::ed().jwk("b")]).await;
    assert!(single.try_verify(token.as_bytes(), now()).unwrap().is_ok());
    let several = oidc(&[one.jwk("a"), two.jwk("b")]).await;
    assert!(matches!(several.try_verify(token.as_bytes(), now()).unwrap(), Err(TokenError::UnknownKey { kid: None, .. })));
}

#[tokio::test]
async fn claims_are_checked() {
    let own = TestKey::ed();
    let verifier = oidc(&[own.jwk("a")]).await;
    let verify = |changes: Value| verifier.try_verify(own.token("EdDSA", "a", &with(changes)).as_bytes(), now()).unwrap();
    let at = Timestamp::from_seconds;

    assert_eq!(verify(json!({"exp": NOW})), Err(TokenError::Expired { since: at(NOW) }), "no leeway");
    assert_eq!(verify(json!({"exp": NOW - 3600})), Err(TokenError::Expired { since: at(NOW - 3600) }));
    assert!(verify(json!({"exp": NOW + 1})).is_ok());
    assert_eq!(verify(json!({"exp": null})), Err(TokenError::Claim("exp")));
    assert_eq!(verify(json!({"exp": "tomorrow"})), Err(TokenError::Claim("exp")));

    assert!(verify(json!({"nbf": NOW + 60, "iat": NOW + 60})).is_ok(), "within the skew");
    assert_eq!(verify(json!({"nbf": NOW + 61})), Err(TokenError::NotYetValid { from: at(NOW + 61) }));
    assert_eq!(verify(json!({"iat": NOW + 61})), Err(TokenError::NotYetValid { from: at(NOW + 61) }));
    assert!(verify(json!({"nbf": null, "iat": null})).is_ok());

    assert!(verify(json!({"aud": ["other", "api://sallyport"]})).is_ok());
    let wrong = verify(json!({"aud": "https://ossrdbms-aad.database.windows.net"}));
    assert!(matches!(wrong, Err(TokenError::WrongAudience { .. })));
    assert!(matches!(verify(json!({"aud": "SALLYPORT"})), Err(TokenError::WrongAudience { .. })));
    assert!(matches!(verify(json!({"aud": []})), Err(TokenError::WrongAudience { .. })));
    assert_eq!(verify(json!({"aud": null})), Err(TokenError::Claim("aud")));
    assert_eq!(verify(json!({"aud": ["sallyport", 1]})), Err(TokenError::Claim("aud")));

    for bad in [Value::Null, json!(""), json!(1), json!("a\nb"), json!("x".repeat(513))] {
        assert_eq!(verify(json!({"sub": bad})), Err(TokenError::Claim("sub")), "{bad}");
    }
    assert_eq!(verify(json!({"iss": null})), Err(TokenError::Claim("iss")));
    for iss in ["https://login.example.com/", "https://LOGIN.example.com", "https://evil.example"] {
        assert_eq!(verify(json!({"iss": iss})), Err(TokenError::UnknownIssuer(iss.to_owned())));
    }

    assert_eq!(verify(json!({"cnf": {"jkt": "x"}})), Err(TokenError::SenderConstrained));
    for (name, kind) in [("typ", "ID"), ("typ", "Refresh"), ("token_use", "id")] {
        assert_eq!(verify(json!({name: kind})), Err(TokenError::WrongType(kind.to_owned())));
    }
    assert!(verify(json!({"typ": "Bearer"})).is_ok());
}

#[tokio::test]
async fn roles_claims_and_aliases() {
    let own = TestKey::ed();
    let verifier = oidc(&[own.jwk("a")]).await;
    let verify = |changes: Value| verifier.try_verify(own.token("EdDSA", "a", &with(changes)).as_bytes(), now()).unwrap();
    assert_eq!(verify(json!({"roles": null})).unwrap().roles, Vec::<String>::new());
    assert_eq!(verify(json!({"roles": "b  a b"})).unwrap().roles, ["a", "b"]);
    assert_eq!(verify(json!({"roles": ["a", 1]})), Err(TokenError::Claim("roles")));
    assert_eq!(verify(json!({"roles": {"a": 1}})), Err(TokenError::Claim("roles")));
    assert_eq!(verify(json!({"roles": vec!["r"; ROLES_MAX + 1]})), Err(TokenError::TooManyRoles));

    let principal = verify(json!({
        "client_id": "shop", "azp": "other", "jti": "t-1", "flag": true, "count": 7, "groups": ["x"], "address": {"a": "b"},
        "long": "x".repeat(1025), "preferred_username": "root",
    }))
    .unwrap();
    assert_eq!(principal.application.as_deref(), Some("shop"));
    assert_eq!(principal.credential_id.as_deref(), Some("t-1"));
    assert!(principal.answers_to("ci-bot") && principal.answers_to("shop"));
    assert!(!principal.answers_to("root"), "a name that the caller may have chosen");
    assert_eq!((principal.claims["flag"].as_str(), principal.claims["count"].as_str()), ("true", "7"));
    for left_out in ["groups", "address", "long"] {
        assert!(!principal.claims.contains_key(left_out), "{left_out}");
    }
    let human = verify(json!({"auth_time": NOW, "azp": "portal"})).unwrap();
    assert_eq!(human.kind, PrincipalKind::Human);
    assert!(!human.answers_to("portal"), "the application is not the person");

    let many = (0..=CLAIMS_MAX).map(|i| (format!("c{i}"), json!(i))).collect::<serde_json::Map<_, _>>();
    assert_eq!(verify(Value::Object(many)), Err(TokenError::TooManyClaims));
}

#[tokio::test]
async fn settings_of_an_issuer() {
    let own = TestKey::ed();
    let mut config = IssuerConfig::new("kc", IssuerKind::Oidc, ISS, &["sallyport"]);
    config.keys = KeySource::Inline(key_set(&[own.jwk("a")]));
    config.roles_claim = "realm_access.roles".to_owned();
    config.alias_claims = vec!["device".to_owned()];
    config.token_age_max = Some(Duration::from_secs(300));
    let verifier = verifier_of(config);
    let verify = |changes: Value| own.token("EdDSA", "a", &with(changes));
    let token = verify(json!({"realm_access": {"roles": ["ops"]}, "device": "press-7"}));
    let principal = verifier.verify(token.as_bytes(), now()).await.unwrap();
    assert_eq!(principal.roles, ["ops"]);
    assert!(principal.answers_to("press-7"));
    let old = verifier.verify(verify(json!({"iat": NOW - 301})).as_bytes(), now()).await;
    assert_eq!(old, Err(TokenError::TooOld { issued: Timestamp::from_seconds(NOW - 301) }));
    assert_eq!(verifier.verify(verify(json!({"iat": null})).as_bytes(), now()).await, Err(TokenError::Claim("iat")));
}

#[test]
fn issuers_do_not_share_a_name_or_an_iss() {
    let config = |name: &str, iss: &str| IssuerConfig::new(name, IssuerKind::Oidc, iss, &["a"]);
    assert!(Verifier::new(vec![config("a", "https://a"), config("b", "https://b")], http()).is_ok());
    assert!(Verifier::new(vec![config("a", "https://a"), config("a", "https://b")], http()).is_err());
    assert!(Verifier::new(vec![config("a", "https://a"), config("b", "https://a")], http()).is_err());
}

fn entra_claims(version_1: bool) -> Value {
    let iss = if version_1 {
        format!("https://sts.windows.net/{TENANT}/")
    } else {
        format!("https://login.microsoftonline.com/{TENANT}/v2.0")
    };
    let application = if version_1 { "appid" } else { "azp" };
    json!({"iss": iss, "aud": "api://sallyport", "tid": TENANT, "oid": OID, "sub": "pairwise", application: APP, "idtyp": "app",
        "uti": "uti-1", "exp": NOW + 600, "nbf": NOW, "iat": NOW, "roles": ["orders.read"], "ver": if version_1 { "1.0" } else { "2.0" }})
}

fn entra(tenants: &[&str], jwks: &[Value]) -> Verifier {
    let place = if tenants.is_empty() { TENANT } else { "organizations" };
    let url = format!("https://login.microsoftonline.com/{place}/v2.0");
    let mut config = IssuerConfig::new("entra", IssuerKind::Entra, &url, &["api://sallyport"]);
    config.tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
    config.keys = KeySource::Inline(key_set(jwks));
    verifier_of(config)
}

#[tokio::test]
async fn entra_tokens_of_both_versions() {
    let own = TestKey::rsa();
    let verifier = entra(&[], &[own.jwk("a")]);
    for version_1 in [true, false] {
        let token = own.token("RS256", "a", &entra_claims(version_1));
        let principal = verifier.verify(token.as_bytes(), now()).await.unwrap();
        assert_eq!(principal.subject, format!("{TENANT}/{OID}"));
        assert_eq!(principal.tenant.as_deref(), Some(TENANT));
        assert_eq!(principal.application.as_deref(), Some(APP));
        assert_eq!(principal.credential_id.as_deref(), Some("uti-1"));
        assert_eq!(principal.kind, PrincipalKind::Service);
        assert!(principal.answers_to(OID) && principal.answers_to(APP) && principal.answers_to(&principal.subject));
        assert!(!principal.answers_to("pairwise"));
        assert_eq!(principal.claims["idtyp"], "app");
    }
}

#[tokio::test]
async fn entra_s_own_rules() {
    let own = TestKey::rsa();
    let verifier = entra(&[], &[own.jwk("a")]);
    let verify = async |changes: Value| {
        let mut claims = entra_claims(false);
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        verifier.verify(own.token("RS256", "a", &claims).as_bytes(), now()).await
    };
    for none in [Value::Null, json!([]), json!("")] {
        assert_eq!(verify(json!({"roles": none})).await, Err(TokenError::MissingRoles));
    }
    for (name, blamed) in [("tid", "tid"), ("oid", "oid"), ("azp", "azp")] {
        assert_eq!(verify(json!({name: null})).await, Err(TokenError::Claim(blamed)), "{name}");
    }
    assert_eq!(verify(json!({"oid": "admin"})).await, Err(TokenError::Claim("oid")));
    assert_eq!(verify(json!({"tid": OTHER_TENANT})).await, Err(TokenError::WrongTenant(OTHER_TENANT.to_owned())));
    assert_eq!(verify(json!({"tid": "common"})).await, Err(TokenError::WrongTenant("common".to_owned())));
    let other = format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0");
    assert_eq!(verify(json!({"iss": other, "tid": OTHER_TENANT})).await, Err(TokenError::UnknownIssuer(other)));

    assert_eq!(verify(json!({"idtyp": "user", "scp": "access"})).await.unwrap().kind, PrincipalKind::Human);
    for (name, value) in [
        ("xms_par_app_azp", json!(APP)),
        ("xms_act_fct", json!("3 11")),
        ("xms_sub_fct", json!(["9", "11"])),
        ("xms_act_fct", json!([11])),
    ] {
        let principal = verify(json!({name: value})).await.unwrap();
        assert_eq!(principal.kind, PrincipalKind::Agent, "{name}");
        assert!(principal.claims.contains_key(name), "{name} is recorded");
    }
    assert_eq!(verify(json!({"xms_act_fct": "3 111"})).await.unwrap().kind, PrincipalKind::Service);
}

#[tokio::test]
async fn with_several_tenants_a_key_must_sign_for_the_token_s_tenant() {
    let (shared, of_one, unnamed, of_other) = (TestKey::rsa(), TestKey::rsa(), TestKey::rsa(), TestKey::rsa());
    let signing_for = |key: &TestKey, kid: &str, tenant: &str| {
        let mut jwk = key.jwk(kid);
        jwk["issuer"] = json!(format!("https://login.microsoftonline.com/{tenant}/v2.0"));
        jwk
    };
    let keys = [
        signing_for(&shared, "shared", "{tenantid}"),
        signing_for(&of_one, "one", TENANT),
        unnamed.jwk("unnamed"),
        signing_for(&of_other, "other", OTHER_TENANT),
    ];
    let verifier = entra(&[TENANT, OTHER_TENANT], &keys);
    for version_1 in [false, true] {
        let claims = entra_claims(version_1);
        for (key, kid) in [(&shared, "shared"), (&of_one, "one")] {
            assert!(verifier.verify(key.token("RS256", kid, &claims).as_bytes(), now()).await.is_ok(), "{kid} {version_1}");
        }
        for (key, kid) in [(&unnamed, "unnamed"), (&of_other, "other")] {
            let got = verifier.verify(key.token("RS256", kid, &claims).as_bytes(), now()).await;
            assert!(matches!(got, Err(TokenError::KeyOfOtherIssuer(_))), "{kid} {version_1}");
        }
    }
}

// Discovery, rotation and failures, against a server on loopback.

struct Provider {
    server: Server,
    verifier: Arc<Verifier>,
    clock: Clock,
}

impl Provider {
    async fn start(keys: &[Value]) -> Self {
        let server = Server::provider(keys).await;
        let clock = Clock::default();
        let config = IssuerConfig::new("main", IssuerKind::Oidc, &server.base, &["sallyport"]);
        let verifier = Arc::new(Verifier::with_clock(vec![config], http(), &clock).unwrap());
        Self { server, verifier, clock }
    }

    fn push(&self, seconds: u64) {
        self.clock.pushed_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn verify(&self, key: &TestKey, kid: &str) -> Result<Principal, TokenError> {
        let token = key.token("ES256", kid, &with(json!({"iss": self.server.base})));
        self.verifier.verify(token.as_bytes(), now()).await
    }

    fn fetches(&self) -> usize {
        self.server.hits("/keys")
    }
}

fn unavailable(result: &Result<Principal, TokenError>) -> &str {
    match result {
        Err(error @ TokenError::KeysUnavailable { cause, .. }) => {
            assert_eq!(error.refusal(), proxy_core::session::LoginRefusal::Unavailable);
            cause
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn keys_are_discovered_once_for_logins_at_the_same_time() {
    let key = TestKey::p256();
    let provider = Provider::start(&[key.jwk("a")]).await;
    let token = key.token("ES256", "a", &with(json!({"iss": provider.server.base})));
    assert!(provider.verifier.try_verify(token.as_bytes(), now()).is_none(), "nothing is known yet");
    let logins = (0..50).map(|_| provider.verify(&key, "a"));
    for result in futures_join(logins).await {
        assert!(result.is_ok());
    }
    assert_eq!(provider.fetches(), 1);
    assert!(provider.verifier.try_verify(token.as_bytes(), now()).unwrap().is_ok(), "now at once");
}

/// All of them, interleaved on this thread.
async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending = futures.map(|future| Some(Box::pin(future))).collect::<Vec<_>>();
    let mut done = pending.iter().map(|_| None).collect::<Vec<Option<T>>>();
    std::future::poll_fn(|context| {
        for (slot, result) in pending.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
                *slot = None;
            }
        }
        if pending.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().map(Option::unwrap).collect()
}

#[tokio::test]
async fn a_rotated_key_is_found_and_unknown_ids_cause_one_fetch_in_five_minutes() {
    let (old, new) = (TestKey::p256(), TestKey::p256());
    let provider = Provider::start(&[old.jwk("old")]).await;
    assert!(provider.verify(&old, "old").await.is_ok());
    provider.server.set("/keys", Reply::Json(key_set(&[old.jwk("old"), new.jwk("new")])));
    assert!(provider.verify(&new, "new").await.is_ok());
    assert_eq!(provider.fetches(), 2);
    for invented in 0..20 {
        let got = provider.verify(&new, &format!("x{invented}")).await;
        assert!(matches!(got, Err(TokenError::UnknownKey { .. })));
    }
    provider.push(299);
    assert!(provider.verify(&new, "y").await.is_err());
    assert_eq!(provider.fetches(), 2);
    provider.push(1);
    assert!(provider.verify(&new, "z").await.is_err());
    assert!(provider.verify(&new, "z").await.is_err());
    assert_eq!(provider.fetches(), 3);
}

#[tokio::test]
async fn a_withdrawn_key_is_not_accepted_after_the_next_refresh() {
    let (old, new) = (TestKey::p256(), TestKey::p256());
    let provider = Provider::start(&[old.jwk("old")]).await;
    assert!(provider.verify(&old, "old").await.is_ok());
    provider.server.set("/keys", Reply::Json(key_set(&[new.jwk("new")])));
    provider.verifier.refresh_all().await;
    assert!(matches!(provider.verify(&old, "old").await, Err(TokenError::UnknownKey { .. })));
}

#[tokio::test]
async fn known_keys_outlive_an_outage_for_a_day_and_then_logins_fail_closed() {
    let key = TestKey::p256();
    let provider = Provider::start(&[key.jwk("a")]).await;
    assert!(provider.verify(&key, "a").await.is_ok());
    provider.server.set("/keys", Reply::Raw("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"));
    provider.push(23 * 3600);
    provider.verifier.refresh_all().await;
    assert!(provider.verify(&key, "a").await.is_ok());
    let status = &provider.verifier.key_status()[0];
    assert!(status.keys == 1 && matches!(status.error, Some(FetchError::Status { status: 500, .. })), "{status:?}");
    provider.push(3600);
    assert!(unavailable(&provider.verify(&key, "a").await).contains("500"));
    assert_eq!(provider.verifier.key_status()[0].keys, 0);

    let before = provider.fetches();
    for _ in 0..10 {
        unavailable(&provider.verify(&key, "a").await);
    }
    assert_eq!(provider.fetches(), before, "not asked again at once");
    provider.server.set("/keys", Reply::Json(key_set(&[key.jwk("a")])));
    provider.push(15);
    assert!(provider.verify(&key, "a").await.is_ok());
}

#[tokio::test]
async fn the_background_refresh_fetches_at_once_and_hourly() {
    let key = TestKey::p256();
    let provider = Provider::start(&[key.jwk("a")]).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let verifier = Arc::clone(&provider.verifier);
    let refresh = tokio::spawn(async move { verifier.run_refresh(async { drop(stopped.await) }).await });
    for _ in 0..200 {
        if provider.verifier.key_status()[0].keys == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(provider.verifier.key_status()[0].keys, 1);
    let due = || provider.verifier.issuers[0].keys.is_due();
    assert!(!due());
    provider.push(3599);
    assert!(!due());
    provider.push(1);
    assert!(due());
    stop.send(()).unwrap();
    refresh.await.unwrap();
}

#[tokio::test]
async fn documents_that_are_not_in_order_are_refused() {
    let key = TestKey::p256();
    const DISCOVERY: &str = "/.well-known/openid-configuration";
    let cases: Vec<(&str, Reply, &str)> = vec![
        (
            DISCOVERY,
            Reply::Json(json!({"issuer": "https://evil.example", "jwks_uri": "https://evil.example/"}).to_string()),
            "its issuer is",
        ),
        (DISCOVERY, Reply::Json("{}".to_owned()), "its issuer is"),
        (DISCOVERY, Reply::Json("not json".to_owned()), "not JSON"),
        (DISCOVERY, Reply::Raw("HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n"), "302"),
        (DISCOVERY, Reply::Raw("garbage\r\n\r\n"), "could not be reached"),
        ("/keys", Reply::Json("{}".to_owned()), "not a JSON Web Key Set"),
        ("/keys", Reply::Json(json!({"keys": []}).to_string()), "no key"),
        ("/keys", Reply::Json(key_set(&vec![key.jwk("a"); 257])), "more than 256"),
        ("/keys", Reply::Raw("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "404"),
        ("/keys", Reply::Endless, "longer than"),
    ];
    for (path, reply, expected) in cases {
        let provider = Provider::start(&[key.jwk("a")]).await;
        provider.server.set(path, reply);
        let got = provider.verify(&key, "a").await;
        assert!(unavailable(&got).contains(expected), "{path}: {got:?}");
        assert_eq!(provider.server.hits("/other"), 0, "redirects are not followed");
    }
}

#[tokio::test]
async fn a_key_set_elsewhere_must_be_at_an_https_address() {
    let key = TestKey::p256();
    for elsewhere in ["http://169.254.169.254/keys", "http://login.example.com/keys", "file:///etc/passwd", "ftp://127.0.0.1/"] {
        let provider = Provider::start(&[key.jwk("a")]).await;
        let document = json!({"issuer": provider.server.base, "jwks_uri": elsewhere});
        provider.server.set("/.well-known/openid-configuration", Reply::Json(document.to_string()));
        let got = provider.verify(&key, "a").await;
        assert!(unavailable(&got).contains("https"), "{elsewhere}: {got:?}");
    }
}

#[tokio::test]
async fn a_silent_issuer_delays_a_login_by_five_seconds_and_no_more() {
    let key = TestKey::p256();
    let provider = Provider::start(&[key.jwk("a")]).await;
    provider.server.set("/.well-known/openid-configuration", Reply::Silence);
    let begun = std::time::Instant::now();
    assert!(unavailable(&provider.verify(&key, "a").await).contains("5 seconds"));
    let took = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(8)).contains(&took), "{took:?}");
    let begun = std::time::Instant::now();
    unavailable(&provider.verify(&key, "a").await);
    assert!(begun.elapsed() < Duration::from_secs(1), "the next one is told at once");
}

#[tokio::test]
async fn keys_in_a_file_are_read_again() {
    let (old, new) = (TestKey::p256(), TestKey::p256());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, key_set(&[old.jwk("old")])).unwrap();
    let mut config = IssuerConfig::new("main", IssuerKind::Oidc, ISS, &["sallyport"]);
    config.keys = KeySource::File(path.clone());
    let clock = Clock::default();
    let verifier = Verifier::with_clock(vec![config], http(), &clock).unwrap();
    let token = |key: &TestKey, kid: &str| key.token("ES256", kid, &claims());
    assert!(verifier.verify(token(&old, "old").as_bytes(), now()).await.is_ok());
    std::fs::write(&path, key_set(&[new.jwk("new")])).unwrap();
    assert!(verifier.verify(token(&new, "new").as_bytes(), now()).await.is_ok());
    assert!(verifier.verify(token(&old, "old").as_bytes(), now()).await.is_err());
    std::fs::remove_file(&path).unwrap();
    clock.pushed_seconds.store(24 * 3600, Ordering::Relaxed);
    assert!(matches!(verifier.verify(token(&new, "new").as_bytes(), now()).await, Err(TokenError::KeysUnavailable { .. })));
}

#[tokio::test]
async fn a_reload_keeps_the_keys() {
    let key = TestKey::p256();
    let provider = Provider::start(&[key.jwk("a")]).await;
    assert!(provider.verify(&key, "a").await.is_ok());
    let config = IssuerConfig::new("renamed", IssuerKind::Oidc, &provider.server.base, &["sallyport"]);
    let next = Verifier::new(vec![config], http()).unwrap();
    next.adopt_keys(&provider.verifier);
    let token = key.token("ES256", "a", &with(json!({"iss": provider.server.base})));
    assert_eq!(next.try_verify(token.as_bytes(), now()).unwrap().unwrap().issuer, "renamed");
    assert_eq!(provider.fetches(), 1);
}

#[test]
fn refusals_do_not_show_the_token() {
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzZWNyZXQtc3ViamVjdCJ9.c2VjcmV0LXNpZ25hdHVyZQ";
    let verifier = Verifier::new(Vec::new(), http()).unwrap();
    let error = verifier.try_verify(token.as_bytes(), now()).unwrap().unwrap_err();
    for text in [format!("{error:?}"), error.to_string(), error.public().0] {
        assert!(!text.contains("eyJ") && !text.contains("c2VjcmV0"), "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let verifier = Verifier::new(Vec::new(), http()).unwrap();
        prop_assert!(verifier.try_verify(&bytes, now()).unwrap().is_err());
    }

    #[test]
    fn no_header_or_claims_make_it_panic(header in ".{0,60}", claims in r#"[\{\}\[\]":,a-z0-9\.\-e ]{0,80}"#) {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let verifier = Verifier::new(Vec::new(), http()).unwrap();
        for header in [header.as_str(), r#"{"alg":"ES256"}"#] {
            let token = format!("{}.{}.c2ln", encode(header), encode(&claims));
            prop_assert!(verifier.try_verify(token.as_bytes(), now()).unwrap().is_err());
        }
    }

    #[test]
    fn no_key_set_makes_it_panic(text in r#"[\{\}\[\]":,a-zA-Z0-9 ]{0,120}"#, member in ".{0,40}") {
        let _ = KeySet::parse(text.as_bytes());
        let keys = json!({"keys": [{"kty": "RSA", "n": member, "e": member}, {"kty": "EC", "crv": "P-256", "x": member, "y": member}, member]});
        prop_assert!(KeySet::parse(keys.to_string().as_bytes()).is_err());
    }
}
