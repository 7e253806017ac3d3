//! Who looks at a page, and what surrounds it.

use super::failure::Failure;
use crate::api::{ApiError, ApiState, Caller, Role};
use crate::login::Person;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use identity::form_encoded;
use proxy_io::clock::now;
use std::sync::Arc;

/// Somebody who has logged in.
pub(super) struct Viewer {
    pub(super) caller: Caller,
    pub(super) person: Person,
    headers: HeaderMap,
}

impl Viewer {
    /// The request's headers: the login is looked at again while a page follows.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether they have one of the roles.
    pub(super) fn is(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.caller.has(*role))
    }

    /// Goes on to show a page only with one of the roles. `here`: the page's name in the navigation.
    pub(super) fn may_look(&self, state: &ApiState, here: &'static str, roles: &[Role]) -> Result<Shell, Failure> {
        let shell = self.shell(state, here);
        self.caller.require(roles).map_err(Failure::of(&shell))?;
        Ok(shell)
    }

    /// Goes on to do what a form asks for only if they have shown lately who they are, the form comes from our own page, and
    /// they have one of the roles.
    pub(super) fn may_change(&self, state: &ApiState, change: &Change<'_>) -> Result<Shell, Failure> {
        let shell = self.shell(state, change.here);
        let login = state.login.as_ref().ok_or_else(no_pages).map_err(Failure::of(&shell))?;
        if !login.is_fresh(&self.person, now()) {
            let why = ApiError::Unauthenticated("you logged in a while ago: log in once more to decide on this".to_owned());
            return Err(Failure::log_in(why, format!("/login?fresh=1&provider=1&next={}", form_encoded(change.page))));
        }
        login.is_ours(&self.headers, &self.person, Some(change.csrf)).map_err(Failure::of(&shell))?;
        self.caller.require(change.roles).map_err(Failure::of(&shell))?;
        Ok(shell)
    }

    /// What surrounds their pages.
    fn shell(&self, state: &ApiState, here: &'static str) -> Shell {
        let reads = self.is(&[Role::Admin, Role::Auditor]);
        Shell {
            here,
            who: self.caller.id(),
            csrf: self.person.csrf.clone(),
            waiting: if self.is(&[Role::Admin, Role::Auditor, Role::Reviewer]) { state.approvals.len() } else { 0 },
            sessions: reads,
            seen: format!("{}-{}", state.approvals.version(), state.live.version()),
        }
    }
}

/// What a form asks for.
pub(super) struct Change<'c> {
    /// The name in the navigation of the page that it is on.
    pub(super) here: &'static str,
    /// That page's address: whoever has to log in once more comes back to it.
    pub(super) page: &'c str,
    /// What the form brings along.
    pub(super) csrf: &'c str,
    /// Who may.
    pub(super) roles: &'c [Role],
}

fn no_pages() -> ApiError {
    ApiError::NotFound("this gateway has no login for people: add [login] to its configuration".to_owned())
}

/// What surrounds a page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shell {
    /// The page's name in the navigation.
    pub(crate) here: &'static str,
    /// Who looks; empty: nobody has logged in.
    pub(crate) who: String,
    /// What their forms bring along.
    pub(crate) csrf: String,
    /// Requests that wait.
    pub(crate) waiting: usize,
    /// Whether they may look at sessions.
    pub(crate) sessions: bool,
    /// What the page is as new as, for `/events`.
    pub(crate) seen: String,
}

impl Shell {
    /// For links to files that change with the program.
    pub(crate) fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

/// How a page was asked for.
pub(super) enum Asked {
    /// By a link.
    Link,
    /// By the page's own script, which has to leave the page.
    Script,
    /// By a form. The login's own page could not be reached from it: the page's policy lets no form end up elsewhere.
    Form,
}

/// Why there is no viewer.
pub(super) enum NoViewer {
    /// They have to log in, and come back here.
    LogIn { next: String, how: Asked },
    /// There is no login.
    NoPages,
}

impl IntoResponse for NoViewer {
    fn into_response(self) -> Response {
        match self {
            Self::NoPages => Failure::from(no_pages()).into_response(),
            Self::LogIn { next, how } => {
                let to = format!("/login?next={}", form_encoded(&next));
                match how {
                    Asked::Link => Redirect::to(&to).into_response(),
                    Asked::Script => {
                        let to = HeaderValue::from_str(&to).unwrap_or(HeaderValue::from_static("/login"));
                        (StatusCode::UNAUTHORIZED, [(HeaderName::from_static("hx-redirect"), to)]).into_response()
                    }
                    Asked::Form => {
                        let why = ApiError::Unauthenticated("your login has ended, so nothing was done".to_owned());
                        Failure::log_in(why, to).into_response()
                    }
                }
            }
        }
    }
}

impl FromRequestParts<Arc<ApiState>> for Viewer {
    type Rejection = NoViewer;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, NoViewer> {
        let login = state.login.as_ref().ok_or(NoViewer::NoPages)?;
        let Some(person) = login.find(&parts.headers) else {
            let page = parts.method == axum::http::Method::GET;
            let how = match (page, parts.headers.contains_key("hx-request")) {
                (true, false) => Asked::Link,
                (true, true) => Asked::Script,
                (false, _) => Asked::Form,
            };
            // A form's address is no page to come back to.
            let next = parts.uri.path_and_query().filter(|_| page).map_or("/", |here| here.as_str()).to_owned();
            return Err(NoViewer::LogIn { next, how });
        };
        let caller = Caller::Remote(Box::new((*person.principal).clone()));
        Ok(Self { caller, person, headers: parts.headers.clone() })
    }
}
