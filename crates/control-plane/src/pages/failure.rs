//! A page that says why there is no other.

use super::viewer::Shell;
use crate::api::ApiError;
use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

/// What a page could not do.
pub(crate) struct Failure {
    error: ApiError,
    shell: Option<Shell>,
    /// Where to go to get on; empty: to the first page.
    way: String,
}

impl Failure {
    /// For somebody whose pages look like this.
    pub(super) fn of(shell: &Shell) -> impl Fn(ApiError) -> Self + '_ {
        |error| Self { error, shell: Some(shell.clone()), way: String::new() }
    }

    /// For somebody who has to log in, once more or at all.
    pub(crate) fn log_in(error: ApiError, way: String) -> Self {
        Self { error, shell: None, way }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error, shell: None, way: String::new() }
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage {
    shell: Shell,
    title: &'static str,
    why: String,
    way: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.error.status();
        let title = match status {
            StatusCode::NOT_FOUND => "It is not here",
            StatusCode::UNAUTHORIZED => "Log in first",
            StatusCode::FORBIDDEN => "That is not yours to do",
            StatusCode::CONFLICT => "It is settled already",
            StatusCode::BAD_REQUEST => "That makes no sense",
            _ => "That did not work",
        };
        let page = FailurePage { shell: self.shell.unwrap_or_default(), title, why: self.error.to_string(), way: self.way };
        (status, rendered(&page)).into_response()
    }
}

/// A page as HTML.
pub(crate) fn rendered(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        // A template writes into memory: this does not happen.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
