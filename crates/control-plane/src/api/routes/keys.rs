//! Machine keys.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::units::{parse_duration, show_time};
use axum::Json;
use axum::extract::{Extension, Path, State};
use identity::{KeyInfo, KeyStoreError, NewKey};
use proxy_core::{PrincipalKind, Timestamp};
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Lifetime of a key when the caller does not say (90 days): a key that never expires is never looked at again.
pub(crate) const LIFETIME_DEFAULT: Duration = Duration::from_secs(90 * 86_400);

/// What a new key shall be, as the API and the command line take it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// Whose it is.
    pub subject: String,
    /// What kind of principal.
    #[serde(default = "service")]
    pub kind: PrincipalKind,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The connections that it may be used for; empty: all that policy allows.
    #[serde(default)]
    pub connections: Vec<String>,
    /// How long it is valid: `90d`, or `never`.
    pub lifetime: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

fn service() -> PrincipalKind {
    PrincipalKind::Service
}

impl KeyRequest {
    /// As `identity` takes it.
    ///
    /// # Errors
    /// The lifetime is not one.
    pub fn resolve(self, by: &str, now: Timestamp) -> Result<NewKey, String> {
        let lifetime = match self.lifetime.as_deref() {
            None => Some(LIFETIME_DEFAULT),
            Some("never") => None,
            Some(text) => {
                Some(parse_duration(text).ok_or_else(|| format!("{text:?} is not a lifetime; write 90d, 12h or never"))?)
            }
        };
        let expires = lifetime.map(|lifetime| now.after(lifetime));
        Ok(NewKey {
            subject: self.subject,
            kind: self.kind,
            roles: self.roles,
            connections: self.connections,
            expires,
            description: self.description,
            created_by: by.to_owned(),
        })
    }
}

/// For the record of a key's creation.
#[must_use]
pub fn creation_details(key: &KeyInfo) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("subject".to_owned(), key.subject.clone()),
        ("roles".to_owned(), key.roles.join(", ")),
        ("connections".to_owned(), key.connections.join(", ")),
        ("expires".to_owned(), key.expires.map_or_else(|| "never".to_owned(), show_time)),
        ("description".to_owned(), key.description.clone()),
    ])
}

/// A key in a listing: never its secret.
#[must_use]
pub fn key_value(key: &KeyInfo) -> Value {
    let mut value = json!(key);
    value["created"] = json!(show_time(key.created));
    for (name, at) in [("expires", key.expires), ("revoked", key.revoked), ("last_used", key.last_used)] {
        value[name] = json!(at.map(show_time));
    }
    value
}

impl From<KeyStoreError> for ApiError {
    fn from(error: KeyStoreError) -> Self {
        match error {
            KeyStoreError::Invalid(_) | KeyStoreError::Full => Self::Invalid(error.to_string()),
            KeyStoreError::NotFound(_) => Self::NotFound(error.to_string()),
            KeyStoreError::File(_) | KeyStoreError::NoRandomness(_) => Self::Failed(error.to_string()),
        }
    }
}

/// `GET /api/v1/keys`.
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    Ok(Json(json!({ "keys": state.keys.list().iter().map(key_value).collect::<Vec<_>>() })))
}

/// `POST /api/v1/keys`. The secret is in the answer, and nowhere else afterwards.
pub(super) async fn create(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<KeyRequest>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let new = request.resolve(&caller.id(), now()).map_err(ApiError::Invalid)?;
    let keys = Arc::clone(&state.keys);
    let created = tokio::task::spawn_blocking(move || keys.create(new, now())).await;
    let created = created.map_err(|error| ApiError::Failed(error.to_string()))??;
    let info = state.keys.get(&created.id).ok_or_else(|| ApiError::Failed("the key is not there".to_owned()))?;
    // Nobody has seen the secret yet: a key that cannot be recorded is as if it had never been.
    if let Err(error) =
        state.record_action(caller.id(), "key created", format!("key {}", created.id), creation_details(&info)).await
    {
        let keys = Arc::clone(&state.keys);
        let revoked = tokio::task::spawn_blocking(move || keys.revoke(&created.id, "gateway", now())).await;
        if !matches!(revoked, Ok(Ok(_))) {
            tracing::error!("a key that could not be recorded could not be revoked either");
        }
        return Err(error);
    }
    let mut value = key_value(&info);
    value["secret"] = json!(String::from_utf8_lossy(created.secret.expose()));
    Ok(Json(value))
}

/// `POST /api/v1/keys/{id}/revoke`. Its live sessions end.
pub(super) async fn revoke(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let info = state
        .keys
        .get(&id)
        .ok_or_else(|| ApiError::NotFound(format!("there is no key {id:?}; `sallyport keys list` shows them")))?;
    let details = BTreeMap::from([("subject".to_owned(), info.subject)]);
    state.record_action(caller.id(), "key revoked", format!("key {id}"), details).await?;
    let (keys, by) = (Arc::clone(&state.keys), caller.id());
    let revoked = tokio::task::spawn_blocking(move || keys.revoke(&id, &by, now())).await;
    let revoked = revoked.map_err(|error| ApiError::Failed(error.to_string()))??;
    state.live.recheck();
    Ok(Json(key_value(&revoked)))
}
