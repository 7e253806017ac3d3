//! Who calls the API, and what they may.

use super::{ApiError, ApiState};
use crate::approvals::{Groups, Reviewer};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use identity::limits::TOKEN_MAX;
use proxy_core::{Principal, SecretBytes};
use proxy_io::clock::now;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Roles of the API: values of the token's roles claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May do everything but approve: for that, the groups that the policy names are needed.
    Admin,
    /// May see and decide held requests.
    Reviewer,
    /// May read the log.
    Auditor,
}

impl Role {
    /// Its name in the token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Reviewer => "reviewer",
            Self::Auditor => "auditor",
        }
    }
}

/// Where a connection comes from: what the server knows before any token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Through the gateway's own socket.
    Local {
        /// The operating system's user.
        user: String,
    },
    /// Through the listener.
    Remote {
        /// Whether within TLS, or from this host. A token is not taken otherwise.
        private: bool,
    },
}

/// What anybody may ask.
const OPEN: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/log/checkpoint", "/integrations/slack"];

/// Finds out who calls before anything else is looked at: every resource but those of [`OPEN`] needs a caller.
pub(super) async fn known(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    if !OPEN.contains(&request.uri().path()) {
        match identify(&state, &peer, request.method(), request.headers()).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(refused) => return refused.into_response(),
        };
    }
    next.run(request).await
}

/// This process' user as a caller, for the record of what the command line does without a gateway.
#[must_use]
pub fn local_caller() -> String {
    let uid = std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid());
    Caller::Local(crate::machine::user_name(uid)).id()
}

/// Who calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Caller {
    /// An administrator of this machine.
    Local(String),
    /// A verified identity.
    Remote(Box<Principal>),
}

impl Caller {
    /// For the record: `local:USER` or the principal's id.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Local(user) => format!("local:{user}"),
            Self::Remote(principal) => principal.id(),
        }
    }

    /// Whether they have a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Remote(principal) => principal.roles.iter().any(|held| held == role.as_str()),
        }
    }

    /// Goes on only with one of the roles.
    pub(crate) fn require(&self, roles: &[Role]) -> Result<(), ApiError> {
        if roles.iter().any(|role| self.has(*role)) {
            return Ok(());
        }
        let names = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
        Err(ApiError::Forbidden(format!("{} needs the role {names} for this", self.id())))
    }

    /// The caller as a reviewer.
    #[must_use]
    pub fn reviewer(&self) -> Reviewer {
        let (groups, principal) = match self {
            Self::Local(_) => (Groups::All, None),
            Self::Remote(principal) => {
                (Groups::These(principal.roles.iter().cloned().collect()), Some(Arc::new((**principal).clone())))
            }
        };
        Reviewer { id: self.id(), principal, groups }
    }
}

async fn identify(state: &ApiState, peer: &Peer, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
    match peer {
        Peer::Local { user } => return Ok(Caller::Local(user.clone())),
        Peer::Remote { private: false } => {
            return Err(ApiError::Unauthenticated("a token is accepted within TLS only: use https".to_owned()));
        }
        Peer::Remote { private: true } => {}
    }
    let missing = || ApiError::Unauthenticated("send a token: Authorization: Bearer TOKEN".to_owned());
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return by_cookie(state, method, headers)?.ok_or_else(missing);
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") || token.is_empty() || token.len() > TOKEN_MAX {
        return Err(missing());
    }
    let principal = (state.verify)(SecretBytes::new(token.to_vec())).await;
    // Why it is not valid goes to the gateway's log: the caller learns only that it is not.
    let principal = principal.map_err(|why| {
        tracing::info!(%why, "a token for the admin API was refused");
        ApiError::Unauthenticated("the token is not valid here, or has expired".to_owned())
    })?;
    if principal.expires.is_some_and(|expires| expires <= now()) {
        return Err(ApiError::Unauthenticated("the token is not valid here, or has expired".to_owned()));
    }
    Ok(Caller::Remote(Box::new(principal)))
}

/// Whoever has logged in with this browser: a page's own scripts ask in their name. What changes something must come from our
/// pages.
fn by_cookie(state: &ApiState, method: &Method, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
    let Some((login, person)) = state.login.as_ref().and_then(|login| Some((login, login.find(headers)?))) else {
        return Ok(None);
    };
    if !method.is_safe() {
        login.is_ours(headers, &person, None)?;
        if !login.is_fresh(&person, now()) {
            return Err(ApiError::Unauthenticated("the login is too old for this: log in once more".to_owned()));
        }
    }
    Ok(Some(Caller::Remote(Box::new((*person.principal).clone()))))
}
