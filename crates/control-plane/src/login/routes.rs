//! Logging in, and out.

use super::attempts::{Attempt, LASTS};
use super::table::Opening;
use super::{Login, local_path, random};
use crate::api::{ApiError, ApiState, Caller};
use crate::pages::failure::{Failure, rendered};
use crate::pages::viewer::Shell;
use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use identity::form_encoded;
use identity::limits::TOKEN_MAX;
use proxy_core::record::Event;
use proxy_core::{Principal, SecretBytes, Timestamp};
use proxy_io::clock::now;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The login's own addresses. Nobody is known on them yet.
pub(crate) fn router() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/login", get(begin))
        .route("/login/callback", get(callback))
        .route("/login/token", post(token))
        .route("/login/out", get(out))
        .route("/logout", post(log_out))
}

fn login(state: &ApiState) -> Result<&Arc<Login>, ApiError> {
    state.login.as_ref().ok_or_else(|| ApiError::NotFound("this gateway has no login for people".to_owned()))
}

/// Where to go afterwards.
#[derive(Debug, Default, Deserialize)]
struct Begin {
    #[serde(default)]
    next: String,
    /// `1`: whoever is logged in at the provider is asked again.
    #[serde(default)]
    fresh: String,
    /// `1`: straight to the provider, where there is a choice.
    #[serde(default)]
    provider: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    /// Where to go afterwards, and the same as part of a query.
    next: String,
    encoded: String,
    provider: bool,
}

/// `GET /login`.
async fn begin(State(state): State<Arc<ApiState>>, Query(asked): Query<Begin>) -> Result<Response, Failure> {
    let login = login(&state)?;
    let next = local_path(&asked.next).to_owned();
    let Some(provider) = login.provider.as_ref().filter(|_| !login.dev_tokens || asked.provider == "1") else {
        return Ok(rendered(&LoginPage {
            shell: Shell::default(),
            encoded: form_encoded(&next),
            next,
            provider: login.provider.is_some(),
        }));
    };
    let (state_text, browser) = (random()?, random()?);
    let attempt = Attempt::new(&browser, random()?, random()?, next);
    let to = provider.authorization(&state_text, &attempt, asked.fresh == "1").await.map_err(|error| {
        tracing::error!(%error, "nobody can log in");
        ApiError::Failed("the login provider cannot be reached now; the gateway's log says why".to_owned())
    })?;
    login.attempts.lock().add(state_text, attempt);
    let mut response = Redirect::to(&to).into_response();
    response.headers_mut().extend(login.cookies.set_attempt(&browser, LASTS).map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// What the provider sends the browser back with (Core §3.1.2.5).
#[derive(Debug, Deserialize)]
struct Callback {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /login/callback`.
async fn callback(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    Query(answer): Query<Callback>,
) -> Result<Response, Failure> {
    let login = login(&state)?;
    let provider = login.provider.as_ref().ok_or_else(|| ApiError::NotFound("nobody logs in here".to_owned()))?;
    let browser = login.cookies.attempt(&headers).unwrap_or_default();
    let attempt = login.attempts.lock().take(&answer.state, &browser);
    let attempt = attempt.ok_or_else(|| {
        ApiError::Invalid("this login was not begun in this browser, took too long, or is over; begin again".to_owned())
    })?;
    let failed = |why: String| {
        let state = Arc::clone(&state);
        async move {
            tracing::warn!(%why, "a login failed");
            refused(&state, "the provider's answer", why).await;
            Failure::from(ApiError::Forbidden("the login did not succeed; the gateway's log says why".to_owned()))
        }
    };
    match provider.is_of(answer.iss.as_deref()).await {
        Ok(true) => {}
        Ok(false) => return Err(failed("the answer is another provider's".to_owned()).await),
        Err(error) => return Err(failed(error.to_string()).await),
    }
    let Some(code) = answer.code.filter(|_| answer.error.is_none()) else {
        // RFC 6749 §4.1.2.1: a word of the standard's; anything else is not worth being kept.
        let word = answer.error.unwrap_or_default();
        let known = word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        return Err(failed(format!("the provider refused: {}", if known { word } else { String::new() })).await);
    };
    let logged_in = match provider.redeem(&code, &attempt).await {
        Ok(logged_in) => logged_in,
        Err(error) => return Err(failed(error.to_string()).await),
    };
    open(&state, login, logged_in.principal, logged_in.at, Some(logged_in.id_token), None, &attempt.next).await
}

/// A token of the development issuer.
#[derive(Deserialize)]
struct TokenForm {
    token: String,
    #[serde(default)]
    next: String,
}

/// `POST /login/token`.
async fn token(State(state): State<Arc<ApiState>>, headers: HeaderMap, Form(form): Form<TokenForm>) -> Result<Response, Failure> {
    let login = login(&state)?;
    // Another site must not log somebody in as somebody else.
    if !login.dev_tokens || !login.is_from_us(&headers) {
        return Err(ApiError::Forbidden("nobody logs in by a token here".to_owned()).into());
    }
    let token = form.token.trim();
    let verified = match token.len() {
        1..=TOKEN_MAX => (state.verify)(SecretBytes::new(token.as_bytes().to_vec())).await,
        _ => Err("it is empty or too long".to_owned()),
    };
    let refuse = || Failure::from(ApiError::Forbidden("the token is not valid here, or has expired".to_owned()));
    let principal = match verified {
        Ok(principal) => principal,
        Err(why) => {
            refused(&state, "a token", why).await;
            return Err(refuse());
        }
    };
    let Some(left) = principal.expires.map(|expires| Duration::from_micros(expires.micros_since(now()))) else {
        return Err(refuse());
    };
    open(&state, login, principal, now(), None, Some(left), local_path(&form.next)).await
}

/// A login that failed, for the log. It is not what must be recorded before something happens: nothing does.
async fn refused(state: &ApiState, label: &str, reason: String) {
    let event = Event::LoginFailed {
        source: "a browser".to_owned(),
        protocol: "admin".to_owned(),
        label: label.to_owned(),
        connection: String::new(),
        reason,
    };
    if let Err(error) = state.record_event(event).await {
        tracing::error!(%error, "a failed login could not be recorded");
    }
}

async fn open(
    state: &ApiState,
    login: &Login,
    mut principal: Principal,
    at: Timestamp,
    id_token: Option<String>,
    at_most: Option<Duration>,
    next: &str,
) -> Result<Response, Failure> {
    if !(login.stands)(&principal) {
        refused(state, &principal.id(), "it is revoked".to_owned()).await;
        return Err(ApiError::Forbidden(format!("{} is locked out of this gateway", principal.id())).into());
    }
    if at_most.is_none() {
        // An ID token says who logged in, and not until when: the session's own time does.
        principal.expires = None;
    }
    let caller = Caller::Remote(Box::new(principal.clone()));
    let details = BTreeMap::from([("roles".to_owned(), principal.roles.join(", "))]);
    state.record_action(caller.id(), "logged in", "the pages".to_owned(), details).await?;
    let (id, csrf) = (random()?, random()?);
    let opening = Opening { id: id.clone(), csrf, principal: Arc::new(principal), logged_in: at, id_token, at_most };
    let lasts = login.table.lock().open(opening);
    let mut response = Redirect::to(next).into_response();
    response.headers_mut().extend(login.cookies.clear().map(|cookie| (header::SET_COOKIE, cookie)));
    // Set last: of two with one name, browsers keep the later.
    if let Some(cookie) = login.cookies.set_session(&id, lasts) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// A form of the button.
#[derive(Deserialize)]
struct LogOut {
    csrf: String,
}

/// `POST /logout`. The browser goes on to the provider by the page's own refresh: the page's policy lets no form end up there.
async fn log_out(State(state): State<Arc<ApiState>>, headers: HeaderMap, Form(form): Form<LogOut>) -> Result<Response, Failure> {
    let login = login(&state)?;
    let Some(person) = login.find(&headers) else { return Ok(Redirect::to("/login/out").into_response()) };
    login.is_ours(&headers, &person, Some(&form.csrf))?;
    let id = login.cookies.session(&headers).unwrap_or_default();
    let id_token = login.table.lock().remove(&id);
    let recorded = state.record_action(person.principal.id(), "logged out", "the pages".to_owned(), BTreeMap::new()).await;
    if let Err(error) = recorded {
        // Whoever wants to go is not kept.
        tracing::error!(%error, "a logout could not be recorded");
    }
    let to = match &login.provider {
        Some(provider) if id_token.is_some() => provider.end(id_token.as_deref()).await,
        _ => None,
    };
    let mut response = match to.and_then(|to| HeaderValue::from_str(&format!("0; url={to}")).ok()) {
        Some(refresh) => (StatusCode::OK, [(HeaderName::from_static("refresh"), refresh)], out_page()).into_response(),
        None => Redirect::to("/login/out").into_response(),
    };
    response.headers_mut().extend(login.cookies.clear().map(|cookie| (header::SET_COOKIE, cookie)));
    for cookie in login.cookies.clear() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

#[derive(Template)]
#[template(path = "out.html")]
struct OutPage {
    shell: Shell,
}

fn out_page() -> Response {
    rendered(&OutPage { shell: Shell::default() })
}

/// `GET /login/out`.
async fn out() -> Response {
    out_page()
}
