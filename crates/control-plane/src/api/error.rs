//! What a caller of the API is told when it does not work.

use crate::approvals::Refused;
use crate::log::LogError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proxy_core::StoreError;

/// A refusal or a failure, with its status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No valid token.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may not do it.
    #[error("{0}")]
    Forbidden(String),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is settled, or not possible now.
    #[error("{0}")]
    Conflict(String),
    /// The audit store does not accept: nothing was done.
    #[error("the audit store does not accept the entry, so nothing was done: {0}")]
    Store(StoreError),
    /// Something failed.
    #[error("{0}")]
    Failed(String),
}

impl ApiError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sallyport\""));
        }
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Unknown(_) | Refused::NotStanding(_) => Self::NotFound(text),
            Refused::Settled { .. } => Self::Conflict(text),
            Refused::Own(_) | Refused::Sponsor { .. } | Refused::NotReviewer { .. } => Self::Forbidden(text),
            Refused::Width { .. } => Self::Invalid(text),
            Refused::Again(_) => Self::Conflict(text),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let text = error.to_string();
        match error {
            LogError::Store(_) => Self::Failed(text),
            LogError::NoSession(_) => Self::NotFound(text),
            LogError::Ambiguous(_) => Self::Invalid(text),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
