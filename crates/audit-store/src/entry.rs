//! An entry as it is read back, and its JSON form.

use crate::decode::{Commitment, Decoded};
use crate::kind::EventKind;
use base64::Engine;
use proxy_core::record::{Outcome, RequestRecord, SessionStarted};
use proxy_core::{Entry, Event, Parameter};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An entry with its place in the log.
///
/// Its serde form is one JSON object: `index`, `time` (RFC 3339, UTC, microseconds), `session` and `number`
/// where it belongs to a session, `event` (see [`EventKind::as_str`]), then the event's own fields. Bytes are
/// a string where they are UTF-8, else `{"base64": "…"}`. Fields that are not kept any more stand under `withheld`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEntry {
    /// Its index in the log.
    pub index: u64,
    /// What it says; fields named in `withheld` are empty.
    pub entry: Entry,
    /// Fields whose content was removed, or cannot be opened; the log still commits to it.
    pub withheld: Vec<Withheld>,
}

/// A field whose content was removed, or is sealed with a key that the reader has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Withheld {
    /// The field's name.
    pub field: &'static str,
    /// Length of what was there, in bytes.
    pub length: u64,
    /// SHA-256 over salt and content, hexadecimal.
    pub sha256: String,
    /// Whether it is there, sealed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

impl StoredEntry {
    pub(crate) fn new(index: u64, decoded: Decoded) -> Self {
        let kind = EventKind::of(&decoded.entry.event);
        let withheld = |commitment: &Commitment| Withheld {
            field: kind.field_name(commitment.field),
            length: commitment.length,
            sha256: commitment.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            sealed: decoded.sealed.contains(&commitment.field),
        };
        Self { index, withheld: decoded.withheld.iter().map(withheld).collect(), entry: decoded.entry }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        EventKind::of(&self.entry.event)
    }
}

impl Serialize for StoredEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::new();
        map.insert("index".into(), json!(self.index));
        map.insert("time".into(), json!(rfc3339(self.entry.time)));
        if let Some((session, number)) = self.entry.session {
            map.insert("session".into(), json!(session));
            map.insert("number".into(), json!(number));
        }
        map.insert("event".into(), json!(self.kind().as_str()));
        if let Value::Object(fields) = event(&self.entry.event) {
            map.extend(fields);
        }
        if !self.withheld.is_empty() {
            map.insert("withheld".into(), json!(self.withheld));
        }
        map.serialize(serializer)
    }
}

/// RFC 3339 in UTC; a time out of its range is shown as its microseconds.
fn rfc3339(time: proxy_core::Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0) * 1_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} µs since 1970", time.0))
}

fn bytes(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(value) }),
    }
}

fn event(event: &Event) -> Value {
    match event {
        Event::GatewayStarted { version, host } => json!({ "version": version, "host": host }),
        Event::GatewayStopped { reason } => json!({ "reason": reason }),
        Event::Activated { what, digest, previous, difference, author } => {
            json!({ "what": what, "digest": digest, "previous": previous, "difference": difference, "author": author })
        }
        Event::ReloadRefused { what, error } => json!({ "what": what, "error": error }),
        Event::LoginFailed { source, protocol, label, connection, reason } => {
            json!({ "source": source, "protocol": protocol, "label": label, "connection": connection, "reason": reason })
        }
        Event::SessionStarted(started) => session_started(started),
        Event::SessionEnded { reason, requests, bytes_in, bytes_out } => {
            json!({ "reason": reason, "requests": requests, "bytes_in": bytes_in, "bytes_out": bytes_out })
        }
        Event::Request(record) => request(record),
        Event::Outcome(result) => outcome(result),
        Event::Approval { request, step, by, reason, digest } => {
            json!({ "request": request, "step": step, "by": by, "reason": reason, "digest": digest })
        }
        Event::Administration { by, action, object, details } => {
            json!({ "by": by, "action": action, "object": object, "details": details })
        }
        Event::LogRead { by, query } => json!({ "by": by, "query": query }),
        Event::ClockJump { micros } => json!({ "micros": micros }),
        Event::Heartbeat => Value::Null,
        Event::LogKey(key) => json!(key),
        Event::Destroyed(destroyed) => json!(destroyed),
    }
}

fn session_started(started: &SessionStarted) -> Value {
    let mut value = json!(started);
    value["principal"]["id"] = json!(started.principal.id());
    value["principal"]["expires"] = json!(started.principal.expires.map(rfc3339));
    value
}

fn request(record: &RequestRecord) -> Value {
    json!({
        "request": record.request,
        "kind": record.kind,
        "statement": bytes(&record.statement),
        "parameters": record.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "verdict": record.verdict,
        "reason": record.reason,
        "policies": record.policies,
        "policy_version": record.policy_version,
        "facts": *record.facts,
    })
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "value": parameter.value.as_deref().map(bytes),
        "format": parameter.format,
        "type": parameter.type_id,
    })
}

fn outcome(outcome: &Outcome) -> Value {
    json!({
        "request": outcome.request,
        "status": outcome.status,
        "code": outcome.code.as_deref().map(bytes),
        "tag": outcome.tag.as_deref().map(bytes),
        "rows": outcome.rows,
        "bytes": outcome.bytes,
        "duration_micros": outcome.duration_micros,
        "columns_passed": outcome.columns_passed,
        "columns_masked": outcome.columns_masked,
        "columns_refused": outcome.columns_refused,
        "masked_classes": outcome.masked_classes,
    })
}
