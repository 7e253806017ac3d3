//! The kill list: principals and single tokens that are refused although they are valid elsewhere.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::units::{parse_duration, show_time};
use axum::Json;
use axum::extract::{Extension, State};
use identity::{Revocation, RevocationError, Revocations, Revoked};
use proxy_core::Timestamp;
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is revoked, as the API and the command line take it: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedName {
    /// A principal, `ISSUER/SUBJECT`: whatever it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// One token, `ISSUER/ID`, where ID is its `jti` (Entra: `uti`); sessions and the log show it as the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl RevokedName {
    /// As `identity` takes it.
    ///
    /// # Errors
    /// It names none or both, or a name has no issuer.
    pub fn resolve(&self) -> Result<Revoked, String> {
        let split = |text: &str| match text.split_once('/') {
            Some((issuer, name)) if !issuer.is_empty() && !name.is_empty() => Ok((issuer.to_owned(), name.to_owned())),
            _ => Err(format!("{text:?} is not ISSUER/NAME; the issuer is an [[issuer]]'s name, or key")),
        };
        match (&self.principal, &self.token) {
            (Some(principal), None) => split(principal).map(|_| Revoked::Principal(principal.clone())),
            (None, Some(token)) => split(token).map(|(issuer, id)| Revoked::Credential { issuer, id }),
            _ => Err("name a principal or a token: one of the two".to_owned()),
        }
    }
}

/// A new entry of the kill list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// What is revoked.
    pub what: RevokedName,
    /// For how long: `12h`; until it is lifted if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

impl RevocationRequest {
    /// As `identity` takes it.
    ///
    /// # Errors
    /// The name or the lifetime is none.
    pub fn resolve(self, by: &str, now: Timestamp) -> Result<Revocation, String> {
        let lifetime = self
            .lifetime
            .map(|text| parse_duration(&text).ok_or_else(|| format!("{text:?} is not a lifetime; write 12h or 30d")))
            .transpose()?;
        let until = lifetime.map(|lifetime| now.after(lifetime));
        Ok(Revocation { what: self.what.resolve()?, since: now, until, by: by.to_owned(), reason: self.reason })
    }
}

/// What is revoked, in words: for the record and for people.
#[must_use]
pub fn revoked_name(what: &Revoked) -> String {
    match what {
        Revoked::Principal(id) => format!("principal {id}"),
        Revoked::Credential { issuer, id } => format!("token {issuer}/{id}"),
    }
}

/// For the record of a new entry.
#[must_use]
pub fn revocation_details(entry: &Revocation) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("reason".to_owned(), entry.reason.clone()),
        ("until".to_owned(), entry.until.map_or_else(|| "lifted".to_owned(), show_time)),
    ])
}

/// An entry in a listing.
#[must_use]
pub fn revocation_value(entry: &Revocation) -> Value {
    let mut value = match &entry.what {
        Revoked::Principal(id) => json!({ "principal": id }),
        Revoked::Credential { issuer, id } => json!({ "token": format!("{issuer}/{id}") }),
    };
    value["since"] = json!(show_time(entry.since));
    value["until"] = json!(entry.until.map(show_time));
    value["by"] = json!(entry.by);
    value["reason"] = json!(entry.reason);
    value
}

impl From<RevocationError> for ApiError {
    fn from(error: RevocationError) -> Self {
        match error {
            RevocationError::Invalid | RevocationError::Full => Self::Invalid(error.to_string()),
            RevocationError::NotFound => Self::NotFound(error.to_string()),
            RevocationError::File(_) => Self::Failed(error.to_string()),
        }
    }
}

/// `GET /api/v1/revocations`.
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    Ok(Json(json!({ "revocations": state.revocations.list().iter().map(revocation_value).collect::<Vec<_>>() })))
}

/// `POST /api/v1/revocations`. Live sessions of what is revoked end.
pub(super) async fn create(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<RevocationRequest>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let entry = request.resolve(&caller.id(), now()).map_err(ApiError::Invalid)?;
    state.record_action(caller.id(), "revoked", revoked_name(&entry.what), revocation_details(&entry)).await?;
    let value = revocation_value(&entry);
    change(&state, move |list| list.revoke(entry)).await?;
    Ok(Json(value))
}

/// `POST /api/v1/revocations/lift`.
pub(super) async fn lift(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Json(name): Json<RevokedName>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let what = name.resolve().map_err(ApiError::Invalid)?;
    let entry = state.revocations.list().into_iter().find(|entry| entry.what == what).ok_or(RevocationError::NotFound)?;
    state.record_action(caller.id(), "revocation lifted", revoked_name(&what), BTreeMap::new()).await?;
    change(&state, move |list| list.lift(&what)).await?;
    Ok(Json(revocation_value(&entry)))
}

/// Changes the list, away from the event loop, and has every session look whether it may stay.
async fn change(
    state: &ApiState,
    change: impl FnOnce(&Revocations) -> Result<(), RevocationError> + Send + 'static,
) -> Result<(), ApiError> {
    let list = Arc::clone(&state.revocations);
    let changed = tokio::task::spawn_blocking(move || change(&list)).await;
    changed.map_err(|error| ApiError::Failed(error.to_string()))??;
    state.live.recheck();
    Ok(())
}
