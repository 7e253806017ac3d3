//! Elastic Common Schema, version 8.17: one document in each line, for `_bulk` or an agent's NDJSON input.
//!
//! What ECS has a field for is there; everything else stands under `sallyport.*`, as ECS asks of custom fields.

use super::{EncodeError, Encoder, Format, json_line, json_text, without_empty};
use crate::context::{LogInfo, SessionContext};
use crate::row::Row;
use crate::text::{Texts, endpoint, rfc3339};
use audit_store::{EventKind, StoredEntry};
use proxy_core::record::{OutcomeStatus, RecordedVerdict};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The schema's version.
pub(super) const VERSION: &str = "8.17.0";

pub(super) struct Ecs {
    pub(super) log: LogInfo,
    pub(super) texts: Texts,
}

/// Actions that change data or structure, as against those that read.
const CHANGES: [&str; 8] = ["insert", "update", "delete", "truncate", "copy_in", "ddl", "grant", "maintain"];

/// `event.category` and `event.type`.
fn classes(row: &Row) -> (&'static [&'static str], Vec<&'static str>) {
    let changes = row.actions.iter().any(|action| CHANGES.contains(&action.as_str()));
    let used = if changes { "change" } else { "access" };
    match (row.kind, row.verdict) {
        (EventKind::Request, Some(RecordedVerdict::Deny)) => (&["database"], vec![used, "denied"]),
        (EventKind::Request, Some(RecordedVerdict::Allow)) => (&["database"], vec![used, "allowed"]),
        (EventKind::Request, Some(RecordedVerdict::Hold) | None) => (&["database"], vec![used]),
        (EventKind::Outcome, _) if matches!(row.status, Some(OutcomeStatus::Failed | OutcomeStatus::Refused)) => {
            (&["database"], vec!["access", "error"])
        }
        (EventKind::Outcome, _) => (&["database"], vec!["access"]),
        (EventKind::SessionStarted, _) => (&["authentication", "session"], vec!["start", "allowed"]),
        (EventKind::SessionEnded, _) => (&["authentication", "session"], vec!["end"]),
        (EventKind::LoginFailed, _) => (&["authentication"], vec!["start", "denied"]),
        (EventKind::Approval, _) => (&["iam"], vec!["info"]),
        (EventKind::Administration, _) => (&["configuration"], vec!["admin"]),
        (EventKind::LogRead, _) => (&["database"], vec!["access"]),
        (EventKind::Activated, _) => (&["configuration"], vec!["change"]),
        (EventKind::ReloadRefused, _) => (&["configuration"], vec!["error"]),
        (EventKind::GatewayStarted, _) => (&["process"], vec!["start"]),
        (EventKind::GatewayStopped, _) => (&["process"], vec!["end"]),
        (EventKind::LogKey, _) => (&["configuration"], vec!["creation"]),
        (EventKind::Destroyed, _) => (&["database"], vec!["deletion"]),
        (EventKind::ClockJump | EventKind::Heartbeat, _) => (&["host"], vec!["info"]),
    }
}

/// `event.outcome`.
fn outcome(row: &Row) -> &'static str {
    match (row.kind, row.verdict, row.status) {
        (EventKind::LoginFailed | EventKind::ReloadRefused, _, _) | (_, Some(RecordedVerdict::Deny), _) => "failure",
        (_, Some(RecordedVerdict::Hold), _) => "unknown",
        (_, _, Some(OutcomeStatus::Failed | OutcomeStatus::Refused | OutcomeStatus::Skipped)) => "failure",
        (_, _, Some(OutcomeStatus::Unknown)) => "unknown",
        _ => "success",
    }
}

fn address(text: &str) -> Value {
    let (host, port) = endpoint(text);
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_string());
    let domain = ip.is_none().then_some(host);
    json!({ "address": host, "ip": ip, "domain": domain, "port": port })
}

/// The names that a search for a person starts from.
fn related(row: &Row) -> Value {
    let mut users: Vec<&str> = Vec::new();
    let names = [row.who.principal.as_str(), &row.who.label, &row.who.upstream_user, row.actor.as_deref().unwrap_or_default()];
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        if !users.contains(&name) {
            users.push(name);
        }
    }
    let ip = endpoint(&row.who.source).0.parse::<IpAddr>().ok().map(|ip| vec![ip.to_string()]);
    json!({ "user": users, "ip": ip })
}

fn document(row: &Row, log: &LogInfo) -> Value {
    let (category, types) = classes(row);
    let user = row.actor.as_deref().unwrap_or(&row.who.principal);
    let roles = row.details.get("roles").filter(|_| row.kind == EventKind::SessionStarted);
    let columns = row.columns.map(|[passed, masked, refused]| json!({ "passed": passed, "masked": masked, "refused": refused }));
    json!({
        "@timestamp": rfc3339(row.time),
        "ecs": { "version": VERSION },
        "message": row.title(),
        "event": {
            "kind": "event",
            "category": category,
            "type": types,
            "action": row.action.as_deref().unwrap_or(row.kind.as_str()),
            "outcome": outcome(row),
            "id": format!("{}:{}", log.id, row.index),
            "sequence": row.index,
            "code": row.kind.as_str(),
            "reason": row.reason,
            "duration": row.duration_micros.map(|micros| micros.saturating_mul(1_000)),
            "module": "sallyport",
            "dataset": "sallyport.audit",
            "provider": "sallyport",
        },
        "observer": { "vendor": "Sallyport", "product": "Sallyport", "type": "gateway", "version": log.version, "hostname": log.host },
        "user": { "id": user, "name": if row.actor.is_some() { user } else { &row.who.label }, "roles": roles },
        "source": address(&row.who.source),
        "destination": address(&row.who.address),
        "network": { "protocol": row.who.protocol },
        "service": { "name": row.who.connection },
        "rule": { "name": row.policies, "version": row.policy_version },
        "error": { "code": row.code },
        "related": related(row),
        "sallyport": {
            "log": { "id": log.id, "index": row.index },
            "session": { "id": row.session, "number": row.number },
            "principal": { "id": row.who.principal, "kind": row.who.principal_kind },
            "connection": row.who.connection,
            "database": row.who.database,
            "upstream_user": row.who.upstream_user,
            "application": row.who.application,
            "request": { "number": row.request, "kind": row.request_kind },
            "statement": row.statement,
            "statement_base64": row.statement_base64.then_some(true),
            "actions": row.actions,
            "objects": row.objects,
            "verdict": row.verdict,
            "status": row.status,
            "tag": row.tag,
            "rows": row.rows,
            "bytes": row.bytes,
            "columns": columns,
            "masked_classes": row.masked_classes,
            "object": row.object,
            // As one text: keys of claims and tags would become fields of the index, without bound.
            "details": (!row.details.is_empty()).then(|| json_text(&row.details)),
        },
    })
}

impl Encoder for Ecs {
    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let row = Row::new(stored, session, self.texts);
        json_line(row.index, Format::Ecs, &without_empty(document(&row, &self.log)), out)
    }
}
