//! Against a provider that can be told to lie.

use super::*;
use crate::testing::{Answer, Gateway, ask};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Json;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use identity::{IssuerConfig, IssuerKind, Purpose, Revoked};
use proxy_core::SecretBytes;
use proxy_core::record::Event;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;

/// What the provider does. Everything is right unless it is changed.
#[derive(Default)]
struct Behaviour {
    /// Claims instead of the right ones; null: left out.
    claims: Value,
    header: Value,
    /// Answers of the token endpoint instead of the right one.
    answer: Option<(u16, String)>,
    /// Described so instead.
    metadata: Value,
    /// The nonce of the login that has begun.
    nonce: String,
    /// What was sent to the token endpoint: its authorization, its form.
    redeemed: Vec<(String, HashMap<String, String>)>,
    unsigned: bool,
}

struct Fake {
    url: String,
    key: Mutex<(String, EcdsaKeyPair)>,
    behaviour: Mutex<Behaviour>,
}

fn new_key(kid: &str) -> (String, EcdsaKeyPair) {
    (kid.to_owned(), EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
}

fn merged(mut right: Value, instead: &Value) -> Value {
    for (name, value) in instead.as_object().into_iter().flatten() {
        if value.is_null() {
            right.as_object_mut().unwrap().remove(name);
        } else {
            right[name] = value.clone();
        }
    }
    right
}

impl Fake {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Arc::new(Self { url, key: Mutex::new(new_key("one")), behaviour: Mutex::default() });
        let router = axum::Router::new()
            .route("/.well-known/openid-configuration", get(Self::metadata))
            .route("/jwks", get(Self::jwks))
            .route("/token", post(Self::token))
            .with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum_serve(listener, router).await });
        fake
    }

    async fn metadata(State(fake): State<Arc<Self>>) -> Json<Value> {
        let url = &fake.url;
        let right = json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/jwks"),
            "end_session_endpoint": format!("{url}/end"),
            "authorization_response_iss_parameter_supported": true,
        });
        Json(merged(right, &fake.behaviour.lock().metadata))
    }

    async fn jwks(State(fake): State<Arc<Self>>) -> Json<Value> {
        let key = fake.key.lock();
        let (x, y) = key.1.public_key().as_ref()[1..].split_at(32);
        let b64 = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        Json(
            json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "kid": key.0, "use": "sig", "alg": "ES256" }] }),
        )
    }

    async fn token(State(fake): State<Arc<Self>>, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
        let authorization = headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
        fake.behaviour.lock().redeemed.push((authorization, form));
        if let Some((status, body)) = fake.behaviour.lock().answer.clone() {
            return (StatusCode::from_u16(status).unwrap(), [("location", "/jwks")], body).into_response();
        }
        let (behaviour, key) = (fake.behaviour.lock(), fake.key.lock());
        let now = proxy_io::clock::now().0 / 1_000_000;
        let right = json!({
            "iss": fake.url, "sub": "ann", "aud": "sallyport", "exp": now + 300, "iat": now, "auth_time": now,
            "nonce": behaviour.nonce, "roles": ["reviewer", "dba"], "name": "Ann", "sid": "s1",
        });
        let header = merged(json!({ "alg": "ES256", "kid": key.0 }), &behaviour.header);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&merged(right, &behaviour.claims)));
        let signature = key.1.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let signature = if behaviour.unsigned { String::new() } else { URL_SAFE_NO_PAD.encode(signature) };
        Json(json!({ "access_token": "x", "token_type": "Bearer", "id_token": format!("{signed}.{signature}") })).into_response()
    }
}

async fn axum_serve(listener: tokio::net::TcpListener, router: axum::Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

/// A gateway, its provider, and a browser that keeps cookies.
struct Rig {
    gateway: Gateway,
    fake: Arc<Fake>,
    address: SocketAddr,
}

const URL: &str = "https://sallyport.example:8443";

impl Rig {
    async fn start() -> Self {
        Self::with(|config| config).await
    }

    async fn with(change: impl FnOnce(LoginConfig) -> LoginConfig) -> Self {
        let fake = Fake::start().await;
        let issuer =
            IssuerConfig { purpose: Purpose::LogIn, ..IssuerConfig::new("people", IssuerKind::Oidc, &fake.url, &["sallyport"]) };
        let provider = ProviderConfig {
            issuer,
            discovery: fake.url.clone(),
            client_id: "sallyport".into(),
            client_secret: Some(Box::new(|| Ok(SecretBytes::new(b"s%cret &".to_vec())))),
            scopes: vec!["profile".into()],
            url: URL.into(),
        };
        let config = change(LoginConfig {
            provider: Some(provider),
            url: Some(URL.into()),
            dev_tokens: false,
            lasts: Duration::from_secs(8 * 3_600),
            idle: Duration::from_secs(1_800),
            fresh: None,
        });
        let gateway = Gateway::with_login(|revocations| {
            let revocations = Arc::clone(revocations);
            let stands = move |principal: &Principal| revocations.against(principal, proxy_io::clock::now()).is_none();
            Some(Login::new(config, HttpClient::new(None).unwrap(), Box::new(stands)).unwrap())
        });
        let address = gateway.listen().await;
        Self { gateway, fake, address }
    }

    fn login(&self) -> &Login {
        self.gateway.state.login.as_ref().unwrap()
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        ask(self.address, "GET", path, &format!("Cookie: {cookie}\r\n"), "").await
    }

    async fn post(&self, path: &str, cookie: &str, headers: &str, form: &str) -> Answer {
        let headers = format!("Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\n{headers}");
        ask(self.address, "POST", path, &headers, form).await
    }

    /// Begins a login: its state, and the browser's cookie.
    async fn begin(&self, path: &str) -> (String, String) {
        let answer = self.get(path, "").await;
        assert_eq!(answer.status, 303, "{answer:?}");
        let query = parameters(answer.header("location"));
        self.fake.behaviour.lock().nonce.clone_from(&query["nonce"]);
        (query["state"].clone(), cookie(&answer, "__Host-sallyport-login"))
    }

    async fn answer(&self, state: &str, cookie: &str) -> Answer {
        let iss = identity::form_encoded(&self.fake.url);
        self.get(&format!("/login/callback?code=abc&state={state}&iss={iss}"), cookie).await
    }

    /// Logs in: the session's cookie.
    async fn log_in(&self) -> String {
        let (state, browser) = self.begin("/login").await;
        let answer = self.answer(&state, &browser).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{answer:?}");
        cookie(&answer, "__Host-sallyport")
    }

    async fn csrf(&self, session: &str) -> String {
        let headers = format!("cookie: {session}");
        let (_, value) = headers.split_once(": ").unwrap();
        let mut map = HeaderMap::new();
        map.insert("cookie", value.parse().unwrap());
        self.login().find(&map).unwrap().csrf
    }
}

fn parameters(url: &str) -> HashMap<String, String> {
    let (_, query) = url.split_once('?').unwrap();
    let decode = |text: &str| {
        let mut bytes = text.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            let hex = |byte: Option<u8>| char::from(byte.unwrap()).to_digit(16).unwrap();
            out.push(if byte == b'%' { u8::try_from(hex(bytes.next()) * 16 + hex(bytes.next())).unwrap() } else { byte });
        }
        String::from_utf8(out).unwrap()
    };
    query.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), decode(value))).collect()
}

/// A cookie as the browser sends it back. It is checked on the way.
fn cookie(answer: &Answer, name: &str) -> String {
    let set = answer.headers.iter().filter(|(header, _)| header == "set-cookie").map(|(_, value)| value);
    let last = set.rev().find(|value| value.starts_with(&format!("{name}="))).unwrap();
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
        assert!(last.contains(part), "{last}");
    }
    assert!(!last.contains("Domain"), "{last}");
    last.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn who_logs_in_at_the_provider_has_a_session() {
    let rig = Rig::start().await;
    let answer = rig.get("/login?next=/approvals/abc123", "").await;
    let query = parameters(answer.header("location"));
    assert!(answer.header("location").starts_with(&format!("{}/authorize?", rig.fake.url)));
    assert_eq!(query["redirect_uri"], format!("{URL}/login/callback"));
    assert_eq!((query["scope"].as_str(), query["response_type"].as_str()), ("openid profile", "code"));
    assert_eq!((query["code_challenge"].len(), query["code_challenge_method"].as_str()), (43, "S256"));
    let (state, browser) = rig.begin("/login?next=/approvals/abc123").await;
    let answer = rig.answer(&state, &browser).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/approvals/abc123"));
    let session = cookie(&answer, "__Host-sallyport");
    let page = rig.get("/", &session).await;
    assert!(page.status == 200 && page.body.contains("people/ann"), "{page:?}");
    // The secret goes to the provider as OAuth has it, and the verifier is the one that the challenge was made of.
    let redeemed = rig.fake.behaviour.lock().redeemed.remove(0);
    assert_eq!(redeemed.0, format!("Basic {}", STANDARD.encode("sallyport:s%25cret%20%26")));
    assert_eq!(redeemed.1["grant_type"], "authorization_code");
    assert_eq!(redeemed.1["code_verifier"].len(), 43);
    let logged =
        |event: &Event| matches!(event, Event::Administration { by, action, .. } if by == "people/ann" && action == "logged in");
    assert!(rig.gateway.recorded().iter().any(logged));
    // The same by the API, with what the cookie may.
    assert_eq!(rig.get("/api/v1/approvals", &session).await.status, 200);
    assert_eq!(rig.get("/api/v1/sessions", &session).await.status, 403);
}

#[tokio::test]
async fn an_answer_fits_to_one_login_of_one_browser_once() {
    let rig = Rig::start().await;
    let (state, browser) = rig.begin("/login").await;
    let (other_state, other_browser) = rig.begin("/login").await;
    for (state, browser) in [("", browser.as_str()), ("forged", &browser), (&state, ""), (&state, &other_browser)] {
        assert_eq!(rig.answer(state, browser).await.status, 400, "{state} {browser}");
    }
    assert_eq!(rig.fake.behaviour.lock().redeemed.len(), 0, "a code is shown for a login of this browser alone");
    // Nobody's attempt has ended the login.
    rig.fake.behaviour.lock().nonce = String::new();
    let (state, browser) = rig.begin("/login").await;
    assert_eq!(rig.answer(&state, &browser).await.status, 303);
    assert_eq!(rig.answer(&state, &browser).await.status, 400, "a state is used once");
    // The nonce is of the last login that has begun: that of another does not do.
    assert_eq!(rig.answer(&other_state, &other_browser).await.status, 403);
}

#[tokio::test]
async fn a_provider_that_lies_logs_nobody_in() {
    let rig = Rig::start().await;
    let cases: [(&str, Value, Value); 13] = [
        ("another login's nonce", json!({ "nonce": "x" }), json!({})),
        ("no nonce", json!({ "nonce": null }), json!({})),
        ("another's audience", json!({ "aud": "other" }), json!({})),
        ("several audiences and no party", json!({ "aud": ["sallyport", "other"] }), json!({})),
        ("another party", json!({ "azp": "other" }), json!({})),
        ("another issuer", json!({ "iss": "https://evil.example" }), json!({})),
        ("expired", json!({ "exp": 1 }), json!({})),
        ("no expiry", json!({ "exp": null }), json!({})),
        ("nobody", json!({ "sub": null }), json!({})),
        ("an access token", json!({ "typ": "Bearer" }), json!({})),
        ("no algorithm", json!({}), json!({ "alg": "none" })),
        ("a shared secret's algorithm", json!({}), json!({ "alg": "HS256" })),
        ("another kind of token", json!({}), json!({ "typ": "logout+jwt" })),
    ];
    for (what, claims, header) in cases {
        let (state, browser) = rig.begin("/login").await;
        {
            let mut behaviour = rig.fake.behaviour.lock();
            (behaviour.claims, behaviour.header) = (claims, header);
        }
        let answer = rig.answer(&state, &browser).await;
        assert_eq!(answer.status, 403, "{what}: {answer:?}");
        assert!(!answer.headers.iter().any(|(_, value)| value.starts_with("__Host-sallyport=")), "{what}");
    }
    rig.fake.behaviour.lock().claims = json!({});
    rig.fake.behaviour.lock().header = json!({});
    for answer in
        [(500, String::new()), (302, String::new()), (200, "{}".into()), (200, "x".repeat(2 << 20)), (400, "<b>".into())]
    {
        let (state, browser) = rig.begin("/login").await;
        rig.fake.behaviour.lock().answer = Some(answer);
        let answer = rig.answer(&state, &browser).await;
        assert_eq!(answer.status, 403);
        assert!(!answer.body.contains("<b>"));
    }
    rig.fake.behaviour.lock().answer = None;
    rig.fake.behaviour.lock().unsigned = true;
    let (state, browser) = rig.begin("/login").await;
    assert_eq!(rig.answer(&state, &browser).await.status, 403);
    assert_eq!(rig.login().table.lock().len(), 0);
    let failed = rig.gateway.recorded().iter().filter(|event| matches!(event, Event::LoginFailed { .. })).count();
    assert_eq!(failed, 19, "each is in the log");
}

#[tokio::test]
async fn another_providers_answer_is_not_redeemed_here() {
    let rig = Rig::start().await;
    for iss in ["", "&iss=https%3A%2F%2Fevil.example"] {
        let (state, browser) = rig.begin("/login").await;
        let answer = rig.get(&format!("/login/callback?code=abc&state={state}{iss}"), &browser).await;
        assert_eq!(answer.status, 403, "{iss}");
    }
    let (state, browser) = rig.begin("/login").await;
    let path = format!("/login/callback?error=%3Cscript%3E&state={state}&iss={}", identity::form_encoded(&rig.fake.url));
    let answer = rig.get(&path, &browser).await;
    assert!(answer.status == 403 && !answer.body.contains("script>alert"), "{answer:?}");
    assert_eq!(rig.fake.behaviour.lock().redeemed.len(), 0);
    // A description that is another's, or that sends people off without TLS.
    for metadata in [json!({ "issuer": "https://evil.example" }), json!({ "token_endpoint": "http://evil.example/token" })] {
        let rig = Rig::start().await;
        rig.fake.behaviour.lock().metadata = metadata;
        assert_eq!(rig.get("/login", "").await.status, 500);
    }
}

#[tokio::test]
async fn keys_are_fetched_again_when_the_provider_has_new_ones() {
    let rig = Rig::start().await;
    rig.log_in().await;
    *rig.fake.key.lock() = new_key("two");
    rig.log_in().await;
}

#[tokio::test]
async fn a_session_has_a_new_id_each_time_and_ends() {
    let rig = Rig::with(|config| LoginConfig { idle: Duration::from_secs(600), ..config }).await;
    let (first, second) = (rig.log_in().await, rig.log_in().await);
    assert_ne!(first, second);
    // An id that somebody else has put there is not taken up.
    let (state, browser) = rig.begin("/login").await;
    let answer = rig.answer(&state, &format!("{browser}; __Host-sallyport=chosen")).await;
    assert!(!cookie(&answer, "__Host-sallyport").contains("chosen"));
    assert_eq!(rig.get("/", "__Host-sallyport=chosen").await.status, 303);
    rig.login().table.lock().age(Duration::from_secs(400), false);
    let by_itself = format!("Cookie: {second}\r\nHX-Request: true\r\n");
    assert_eq!(ask(rig.address, "GET", "/", &by_itself, "").await.status, 200);
    rig.login().table.lock().age(Duration::from_secs(201), false);
    assert_eq!(ask(rig.address, "GET", "/", &by_itself, "").await.status, 401, "a page that is left open is nobody");
    assert_eq!(rig.get("/", &first).await.header("location"), "/login?next=%2F", "nobody was there for too long");
    let third = rig.log_in().await;
    rig.login().table.lock().age(Duration::from_secs(9 * 3_600), true);
    assert_eq!(rig.get("/", &third).await.status, 303, "it has its end, however busy it is");
    // One person's do not fill the table.
    for _ in 0..25 {
        rig.log_in().await;
    }
    assert_eq!(rig.login().table.lock().len(), 20);
}

#[tokio::test]
async fn who_is_locked_out_is_out_at_once() {
    let rig = Rig::start().await;
    let session = rig.log_in().await;
    let now = proxy_io::clock::now();
    let whom = Revoked::Principal("people/ann".into());
    let entry = identity::Revocation { what: whom, since: now, until: None, by: "test".into(), reason: "left".into() };
    rig.gateway.state.revocations.revoke(entry).unwrap();
    assert_eq!(rig.get("/", &session).await.status, 303);
    let (state, browser) = rig.begin("/login").await;
    assert_eq!(rig.answer(&state, &browser).await.status, 403);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_no_login() {
    let rig = Rig::start().await;
    let (state, browser) = rig.begin("/login").await;
    *rig.gateway.store.closed.lock() = true;
    assert_eq!(rig.answer(&state, &browser).await.status, 503);
    assert_eq!(rig.login().table.lock().len(), 0);
}

#[tokio::test]
async fn a_form_of_another_site_does_nothing() {
    let rig = Rig::start().await;
    let session = rig.log_in().await;
    let csrf = rig.csrf(&session).await;
    let ticket = rig.gateway.hold();
    let path = format!("/approvals/{}/approve", ticket.id());
    let (ours, theirs) = (format!("Origin: {URL}\r\n"), "Origin: https://evil.example\r\n");
    for (origin, token) in [
        (theirs, csrf.as_str()),
        ("Origin: null\r\n", &csrf),
        ("", &csrf),
        ("Sec-Fetch-Site: cross-site\r\n", &csrf),
        ("Sec-Fetch-Site: same-site\r\n", &csrf),
        (&ours, ""),
        (&ours, "forged"),
        ("Origin: http://sallyport.example:8443\r\n", &csrf),
        ("Origin: https://sallyport.example\r\n", &csrf),
    ] {
        let form = format!("csrf={token}&reason=");
        assert_eq!(rig.post(&path, &session, origin, &form).await.status, 403, "{origin} {token}");
        let api = format!("/api/v1/approvals/{}/approve", ticket.id());
        let answer = rig.post(&api, &session, &format!("{origin}X-CSRF-Token: {token}\r\n"), "").await;
        assert_eq!(answer.status, 403, "{origin} {token}");
    }
    assert_eq!(rig.gateway.state.approvals.len(), 1);
    let answer = rig.post(&path, &session, &ours, &format!("csrf={csrf}&reason=ticket+7")).await;
    assert_eq!((answer.status, answer.header("location")), (303, format!("/approvals/{}", ticket.id()).as_str()), "{answer:?}");
    assert_eq!(rig.gateway.state.approvals.len(), 0);
}

#[tokio::test]
async fn the_page_afterwards_is_one_of_ours() {
    for bad in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "",
        "evil",
        "/\t/evil.example",
        "/a\r\nSet-Cookie: x=y",
        "/@evil.example",
        "/login/out",
        "/ü",
    ] {
        assert_eq!(local_path(bad), "/", "{bad}");
    }
    for good in ["/", "/approvals/abc123", "/sessions?principal=dev%2Fci&since=2h"] {
        assert_eq!(local_path(good), good);
    }
}

#[tokio::test]
async fn logging_out_ends_the_session_here_and_at_the_provider() {
    let rig = Rig::start().await;
    let session = rig.log_in().await;
    let csrf = rig.csrf(&session).await;
    let ours = format!("Origin: {URL}\r\n");
    assert_eq!(rig.post("/logout", &session, "Origin: https://evil.example\r\n", &format!("csrf={csrf}")).await.status, 403);
    let answer = rig.post("/logout", &session, &ours, &format!("csrf={csrf}")).await;
    let to = answer.header("refresh").strip_prefix("0; url=").unwrap().to_owned();
    let query = parameters(&to);
    assert!(to.starts_with(&format!("{}/end?", rig.fake.url)), "{to}");
    assert_eq!(query["post_logout_redirect_uri"], format!("{URL}/login/out"));
    assert_eq!(query["id_token_hint"].matches('.').count(), 2);
    assert_eq!(rig.get("/", &session).await.status, 303);
    assert!(answer.headers.iter().any(|(_, value)| value.starts_with("__Host-sallyport=;")));
}

#[tokio::test]
async fn a_decision_can_need_a_login_of_lately() {
    let rig = Rig::with(|config| LoginConfig { fresh: Some(Duration::from_secs(300)), ..config }).await;
    let long_ago = proxy_io::clock::now().0 / 1_000_000 - 301;
    rig.fake.behaviour.lock().claims = json!({ "auth_time": long_ago });
    let session = rig.log_in().await;
    let (csrf, ticket) = (rig.csrf(&session).await, rig.gateway.hold());
    let (path, ours) = (format!("/approvals/{}/approve", ticket.id()), format!("Origin: {URL}\r\n"));
    let answer = rig.post(&path, &session, &ours, &format!("csrf={csrf}")).await;
    assert!(answer.status == 401 && answer.body.contains("/login?fresh=1"), "{answer:?}");
    let api = format!("/api/v1/approvals/{}/approve", ticket.id());
    assert_eq!(rig.post(&api, &session, &format!("{ours}X-CSRF-Token: {csrf}\r\n"), "").await.status, 401);
    let fresh = rig.get("/login?fresh=1", "").await;
    assert!(fresh.header("location").contains("&prompt=login&max_age=0"));
    rig.fake.behaviour.lock().claims = json!({});
    let session = rig.log_in().await;
    let csrf = rig.csrf(&session).await;
    assert_eq!(rig.post(&path, &session, &ours, &format!("csrf={csrf}")).await.status, 303);
}

#[tokio::test]
async fn attempts_that_nobody_ends_give_way() {
    let mut attempts = Attempts::default();
    for number in 0..10_005 {
        attempts.add(number.to_string(), attempts::Attempt::new("b", String::new(), String::new(), String::new()));
    }
    assert_eq!(attempts.len(), 10_000);
    assert!(attempts.take("0", "b").is_none());
    assert!(attempts.take("10004", "b").is_some());
}

#[tokio::test]
async fn a_token_of_the_development_issuer_logs_in_on_loopback() {
    let rig = Rig::with(|config| LoginConfig { provider: None, url: None, dev_tokens: true, ..config }).await;
    let host = rig.address.to_string();
    let ours = format!("Origin: http://{host}\r\n");
    assert_eq!(rig.post("/login/token", "", "Origin: https://evil.example\r\n", "token=ann").await.status, 403);
    assert_eq!(rig.post("/login/token", "", &ours, "token=forged").await.status, 403);
    let rebound = "Host: evil.example\r\nOrigin: http://evil.example\r\n";
    assert_eq!(rig.post("/login/token", "", rebound, "token=ann").await.status, 403, "a name that points here is not loopback");
}
