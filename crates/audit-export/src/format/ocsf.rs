//! OCSF 1.8, the Open Cybersecurity Schema Framework: one event in each line.
//!
//! | entry | class |
//! | --- | --- |
//! | request, outcome | Datastore Activity (6005); in an SSH session SSH Activity (4007), in a Kubernetes one API Activity (6003) |
//! | session_started, session_ended, login_failed | Authentication (3002) |
//! | everything else | API Activity (6003) |
//!
//! All carry the profile `datetime` (`time_dt` has the microseconds that `time` has not); those with a verdict the
//! profile `security_control`. What the class has no attribute for stands under `unmapped`.

use super::{EncodeError, Encoder, Format, json_line, without_empty};
use crate::context::{LogInfo, SessionContext};
use crate::row::Row;
use crate::text::{Texts, endpoint, rfc3339};
use audit_store::{EventKind, StoredEntry};
use proxy_core::record::{OutcomeStatus, RecordedVerdict};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The schema's version.
pub(super) const VERSION: &str = "1.8.0";

pub(super) struct Ocsf {
    pub(super) log: LogInfo,
    pub(super) texts: Texts,
}

/// A class, with its category.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Authentication,
    Ssh,
    Api,
    Datastore,
}

impl Class {
    fn of(row: &Row) -> Self {
        match row.kind {
            EventKind::Request | EventKind::Outcome => match row.who.protocol.as_str() {
                "ssh" => Self::Ssh,
                "kubernetes" => Self::Api,
                _ => Self::Datastore,
            },
            EventKind::SessionStarted | EventKind::SessionEnded | EventKind::LoginFailed => Self::Authentication,
            EventKind::GatewayStarted
            | EventKind::GatewayStopped
            | EventKind::Activated
            | EventKind::ReloadRefused
            | EventKind::Approval
            | EventKind::Administration
            | EventKind::LogRead
            | EventKind::ClockJump
            | EventKind::Heartbeat
            | EventKind::LogKey
            | EventKind::Destroyed => Self::Api,
        }
    }

    /// `class_uid`, `class_name`, `category_uid`, `category_name`.
    fn names(self) -> (u64, &'static str, u64, &'static str) {
        match self {
            Self::Authentication => (3002, "Authentication", 3, "Identity & Access Management"),
            Self::Ssh => (4007, "SSH Activity", 4, "Network Activity"),
            Self::Api => (6003, "API Activity", 6, "Application Activity"),
            Self::Datastore => (6005, "Datastore Activity", 6, "Application Activity"),
        }
    }
}

/// `activity_id` and `activity_name`.
type Activity = (u64, &'static str);

const UNKNOWN: Activity = (0, "Unknown");
const OTHER: Activity = (99, "Other");

/// Activities of Datastore Activity by the policy's action, what weighs most first: a statement that deletes and reads
/// is a Delete.
const DATASTORE: [(&[&str], Activity); 7] = [
    (&["delete", "truncate"], (7, "Delete")),
    (&["update"], (2, "Update")),
    (&["insert", "copy_in"], (5, "Write")),
    (&["ddl", "grant", "maintain", "set_role", "replicate", "lock", "call", "unknown"], OTHER),
    (&["copy_out"], (1, "Read")),
    (&["select"], (4, "Query")),
    (&["connect"], (3, "Connect")),
];

/// The same by the first word of the target's completion tag.
const TAGS: [(&str, Activity); 7] = [
    ("DELETE", (7, "Delete")),
    ("TRUNCATE", (7, "Delete")),
    ("UPDATE", (2, "Update")),
    ("MERGE", (2, "Update")),
    ("INSERT", (5, "Write")),
    ("SELECT", (4, "Query")),
    ("CREATE", (6, "Create")),
];

fn activity(class: Class, row: &Row) -> Activity {
    match class {
        Class::Authentication if row.kind == EventKind::SessionEnded => (2, "Logoff"),
        Class::Authentication => (1, "Logon"),
        Class::Ssh => (6, "Traffic"),
        Class::Datastore => datastore_activity(row),
        Class::Api => api_activity(row),
    }
}

fn datastore_activity(row: &Row) -> Activity {
    if let Some(tag) = &row.tag {
        let word = tag.split(' ').next().unwrap_or_default();
        return TAGS.iter().find(|(known, _)| *known == word).map_or(OTHER, |(_, activity)| *activity);
    }
    let has = |names: &[&str]| row.actions.iter().any(|action| names.contains(&action.as_str()));
    match DATASTORE.iter().find(|(names, _)| has(names)) {
        Some((_, activity)) => *activity,
        None if row.request_kind == Some("connect") => (3, "Connect"),
        None if row.actions.is_empty() => UNKNOWN,
        None => OTHER,
    }
}

fn api_activity(row: &Row) -> Activity {
    let action = row.action.as_deref().or(row.actions.first().map(String::as_str)).unwrap_or_default();
    match (row.kind, action) {
        (EventKind::LogRead, _) => (2, "Read"),
        (EventKind::Activated | EventKind::ReloadRefused | EventKind::Approval, _) => (3, "Update"),
        (_, "key created" | "revoked" | "create") => (1, "Create"),
        (_, "get" | "list" | "watch") => (2, "Read"),
        (_, "key revoked" | "revocation lifted" | "session killed" | "delete") => (4, "Delete"),
        (_, "update" | "patch") => (3, "Update"),
        _ => OTHER,
    }
}

/// `severity_id`: 1 informational, 2 low, 3 medium, 4 high.
fn severity(row: &Row) -> (u64, &'static str) {
    match (row.kind, row.verdict, row.status) {
        (EventKind::LoginFailed | EventKind::ReloadRefused | EventKind::ClockJump, _, _) => (3, "Medium"),
        (_, Some(RecordedVerdict::Deny), _) | (_, _, Some(OutcomeStatus::Refused)) => (3, "Medium"),
        (_, Some(RecordedVerdict::Hold), _) | (EventKind::Approval | EventKind::Administration, _, _) => (2, "Low"),
        (_, _, Some(OutcomeStatus::Failed | OutcomeStatus::Unknown)) => (2, "Low"),
        _ => (1, "Informational"),
    }
}

/// `status_id`: 0 unknown, 1 success, 2 failure.
fn status(row: &Row) -> (u64, &'static str) {
    match (row.kind, row.verdict, row.status) {
        (EventKind::LoginFailed | EventKind::ReloadRefused, _, _) | (_, Some(RecordedVerdict::Deny), _) => (2, "Failure"),
        // Allowed, and not yet run; held, and not yet decided.
        (EventKind::Request, _, _) | (_, _, Some(OutcomeStatus::Unknown)) => (0, "Unknown"),
        (_, _, Some(OutcomeStatus::Failed | OutcomeStatus::Refused | OutcomeStatus::Skipped)) => (2, "Failure"),
        _ => (1, "Success"),
    }
}

/// Profile `security_control`: `action_id`, `action`, `disposition_id`, `disposition`. A held request is neither allowed
/// nor denied yet.
fn control(row: &Row) -> Option<(u64, &'static str, u64, &'static str)> {
    match (row.kind, row.verdict, row.status) {
        (EventKind::SessionStarted, _, _) | (_, Some(RecordedVerdict::Allow), _) => Some((1, "Allowed", 1, "Allowed")),
        (EventKind::LoginFailed, _, _) => Some((2, "Denied", 25, "Rejected")),
        (_, Some(RecordedVerdict::Deny), _) => Some((2, "Denied", 2, "Blocked")),
        (_, Some(RecordedVerdict::Hold), _) => Some((0, "Unknown", 14, "Delayed")),
        (_, _, Some(OutcomeStatus::Refused)) => Some((2, "Denied", 2, "Blocked")),
        (EventKind::Approval, _, _) => match row.action.as_deref() {
            Some("approval approved") => Some((1, "Allowed", 8, "Approved")),
            Some("approval denied" | "approval expired" | "approval withdrawn") => Some((2, "Denied", 25, "Rejected")),
            _ => Some((0, "Unknown", 14, "Delayed")),
        },
        _ => None,
    }
}

/// An endpoint; `name` stands in where there is no address, since OCSF wants one of them.
fn network(address: &str, name: &str) -> Value {
    let (host, port) = endpoint(address);
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_string());
    let hostname = ip.is_none().then_some(host);
    json!({ "ip": ip, "hostname": hostname, "port": port, "name": name })
}

/// `user.type_id`: 1 a person, 4 a service; an agent is what OCSF calls Other.
fn user(row: &Row) -> Value {
    let who = &row.who;
    let (type_id, kind) = match who.principal_kind.as_str() {
        "Human" => (1, "User"),
        "Service" => (4, "Service"),
        "Agent" => (99, "Agent"),
        _ => (0, "Unknown"),
    };
    let start = (row.kind == EventKind::SessionStarted).then_some(&row.details);
    let detail = |name: &str| start.and_then(|details| details.get(name)).cloned();
    let roles = detail("roles").and_then(|roles| roles.as_array().cloned()).unwrap_or_default();
    let groups: Vec<Value> = roles.into_iter().map(|role| json!({ "name": role })).collect();
    let name = who.principal.split_once('/').map_or(who.label.as_str(), |(_, subject)| subject);
    let name = if name.is_empty() && who.principal.is_empty() { "unknown" } else { name };
    json!({
        "name": name,
        "uid": who.principal,
        "uid_alt": who.label,
        "type_id": type_id,
        "type": kind,
        "domain": detail("tenant"),
        "credential_uid": detail("credential_id"),
        "groups": groups,
    })
}

fn session(row: &Row) -> Value {
    let issuer = row.who.principal.split_once('/').map(|(issuer, _)| issuer);
    json!({ "uid": row.session, "issuer": issuer })
}

/// Who acted: the session's principal, whom the entry names, or the gateway itself.
fn actor(row: &Row) -> Value {
    let application = row.who.application.as_str();
    match (&row.actor, row.session) {
        (Some(by), session_id) => {
            let session = session_id.map(|_| session(row));
            json!({ "user": { "name": by, "uid": by, "type_id": 0, "type": "Unknown" }, "session": session })
        }
        (None, Some(_)) => json!({ "user": user(row), "session": session(row), "app_name": application }),
        (None, None) => json!({ "app_name": "sallyport" }),
    }
}

fn policy(row: &Row) -> Value {
    json!({ "name": row.policies.join(", "), "version": row.policy_version })
}

/// What the classes have in common: base event, metadata, endpoints.
fn base(row: &Row, log: &LogInfo, class: Class) -> Map<String, Value> {
    let (class_uid, class_name, category_uid, category_name) = class.names();
    let (activity_id, activity_name) = activity(class, row);
    let (severity_id, severity) = severity(row);
    let (status_id, status) = status(row);
    let control = control(row);
    let profiles: &[&str] = if control.is_some() { &["datetime", "security_control"] } else { &["datetime"] };
    let request = row.request.map(|request| format!("/{request}")).unwrap_or_default();
    let mut event = json!({
        "activity_id": activity_id,
        "activity_name": activity_name,
        "category_uid": category_uid,
        "category_name": category_name,
        "class_uid": class_uid,
        "class_name": class_name,
        "type_uid": class_uid * 100 + activity_id,
        "type_name": format!("{class_name}: {activity_name}"),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_code": row.code,
        "status_detail": row.reason,
        "time": row.time.0.div_euclid(1_000),
        "time_dt": rfc3339(row.time),
        "duration": row.duration_micros.map(|micros| micros / 1_000),
        "message": row.title(),
        "metadata": {
            "version": VERSION,
            "product": { "name": "Sallyport", "vendor_name": "Sallyport", "version": log.version },
            "profiles": profiles,
            "uid": format!("{}:{}", log.id, row.index),
            "sequence": row.index,
            "event_code": row.kind.as_str(),
            "log_name": log.id,
            "log_provider": "sallyport",
            "correlation_uid": row.session.map(|id| format!("{id}{request}")),
        },
        "src_endpoint": network(&row.who.source, if row.who.source.is_empty() { &log.host } else { "" }),
        "dst_endpoint": network(&row.who.address, &row.who.connection),
    });
    if let (Some((action_id, action, disposition_id, disposition)), Some(map)) = (control, event.as_object_mut()) {
        map.insert("action_id".into(), json!(action_id));
        map.insert("action".into(), json!(action));
        map.insert("disposition_id".into(), json!(disposition_id));
        map.insert("disposition".into(), json!(disposition));
        map.insert("policy".into(), policy(row));
    }
    match event {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The attributes of the class.
fn of_class(row: &Row, class: Class) -> Value {
    match class {
        Class::Datastore => {
            let who = &row.who;
            let known = [&who.database, &who.connection].into_iter().find(|name| !name.is_empty());
            let name = known.map_or("unknown", String::as_str);
            json!({
                "actor": actor(row),
                "type_id": 1,
                "type": "Database",
                "database": { "name": name, "uid": format!("{}/{}", who.connection, who.database), "type_id": 1, "type": "Relational" },
                "query_info": query(row),
            })
        }
        Class::Authentication => json!({
            "user": user(row),
            "session": row.session.map(|_| session(row)),
            "service": { "name": "sallyport" },
            "is_remote": true,
        }),
        Class::Api => {
            let first = row.actions.first().map(String::as_str);
            let operation = row.action.as_deref().or(first).or(row.request_kind).unwrap_or(row.kind.as_str());
            let objects = row.object.iter().chain(&row.objects).map(|object| json!({ "name": object })).collect::<Vec<_>>();
            json!({
                "actor": actor(row),
                "api": { "operation": operation, "service": { "name": "sallyport" } },
                "resources": objects,
            })
        }
        Class::Ssh => json!({ "app_name": row.who.application }),
    }
}

/// The statement; of an outcome, the size of its answer. `uid` joins the two.
fn query(row: &Row) -> Option<Value> {
    if row.kind == EventKind::Outcome {
        return None;
    }
    let uid = row.session.zip(row.request).map(|(id, request)| format!("{id}/{request}"));
    // It is required; a statement that was removed is empty here, and named under `unmapped.details.withheld`.
    Some(json!({ "query_string": row.statement.as_deref().unwrap_or_default(), "uid": uid }))
}

/// What the class has no attribute for.
fn unmapped(row: &Row, class: Class) -> Value {
    json!({
        "number": row.number,
        "request": row.request,
        "request_kind": row.request_kind,
        "statement_base64": row.statement_base64.then_some(true),
        "statement": row.statement.as_ref().filter(|_| class != Class::Datastore),
        "actions": row.actions,
        "objects": row.objects,
        "verdict": row.verdict,
        "outcome": row.status,
        "tag": row.tag,
        "rows": row.rows,
        "bytes": row.bytes,
        "duration_micros": row.duration_micros,
        "columns_passed": row.columns.map(|columns| columns[0]),
        "columns_masked": row.columns.map(|columns| columns[1]),
        "columns_refused": row.columns.map(|columns| columns[2]),
        "masked_classes": row.masked_classes,
        "protocol": row.who.protocol,
        "upstream_user": row.who.upstream_user,
        "application": row.who.application,
        "principal": (class == Class::Ssh).then_some(&row.who.principal),
    })
}

fn event(row: &Row, log: &LogInfo) -> Value {
    let class = Class::of(row);
    let mut map = base(row, log, class);
    if let Value::Object(attributes) = of_class(row, class) {
        map.extend(attributes);
    }
    map.insert("unmapped".into(), unmapped(row, class));
    let mut event = without_empty(Value::Object(map)).unwrap_or_default();
    // As they are: a parameter that is NULL, or an empty text, says something.
    if !row.details.is_empty() {
        event["unmapped"]["details"] = json!(row.details);
    }
    // Required, even when there is nothing in it.
    if class == Class::Datastore && row.kind == EventKind::Request {
        let there = event["query_info"]["query_string"].is_string();
        if !there {
            event["query_info"]["query_string"] = json!("");
        }
    }
    event
}

impl Encoder for Ocsf {
    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let row = Row::new(stored, session, self.texts);
        json_line(row.index, Format::Ocsf, &event(&row, &self.log), out)
    }
}
