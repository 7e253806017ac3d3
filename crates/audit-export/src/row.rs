//! One entry with every value in a place of its own: what all formats but JSON Lines are made from.

use crate::context::SessionContext;
use crate::limits::TITLE_MAX;
use crate::text::{Texts, readable, rfc3339};
use audit_store::{EventKind, StoredEntry};
use proxy_core::record::{Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted};
use proxy_core::{Event, Parameter, SessionId, Timestamp};
use serde_json::{Map, Value, json};

/// An entry, flat. A text that the kind of entry does not have, or that is not known, is empty or `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its index in the log.
    pub index: u64,
    /// When.
    pub time: Timestamp,
    /// What it is.
    pub kind: EventKind,
    /// Whose session.
    pub session: Option<SessionId>,
    /// Its number in the session.
    pub number: Option<u64>,
    /// Who and on what, from the session's start (or the entry itself, where it says).
    pub who: SessionContext,
    /// The request's number in its session.
    pub request: Option<u64>,
    /// What was asked: `query`, `execute` …
    pub request_kind: Option<&'static str>,
    /// The exact statement: text, or base64 where it is none.
    pub statement: Option<String>,
    /// Whether the statement is base64.
    pub statement_base64: bool,
    /// Policy actions of the request, each once: `select`, `delete` …
    pub actions: Vec<String>,
    /// Objects of the request, each once: `table public.customers`.
    pub objects: Vec<String>,
    /// The verdict.
    pub verdict: Option<RecordedVerdict>,
    /// Why: of a denial, an end, a refused login, a step of an approval.
    pub reason: Option<String>,
    /// The policies that determined it.
    pub policies: Vec<String>,
    /// The policy set.
    pub policy_version: Option<String>,
    /// How the request ended.
    pub status: Option<OutcomeStatus>,
    /// The target's error code.
    pub code: Option<String>,
    /// The target's completion tag.
    pub tag: Option<String>,
    /// Rows returned or touched.
    pub rows: Option<u64>,
    /// Bytes returned to the client.
    pub bytes: Option<u64>,
    /// From forwarding to completion, in microseconds.
    pub duration_micros: Option<u64>,
    /// Result columns that passed, were masked, were refused.
    pub columns: Option<[u64; 3]>,
    /// Classes that were masked.
    pub masked_classes: Vec<String>,
    /// Who did it, where it is not the session's principal: an administrator, a reviewer, a reader of the log.
    pub actor: Option<String>,
    /// What was done: `key created`, `approved`, `log read` …
    pub action: Option<String>,
    /// On what; for a reading, the query.
    pub object: Option<String>,
    /// Everything else that the entry says.
    pub details: Map<String, Value>,
}

/// The session's id of an entry, as text.
#[must_use]
pub fn session_of(stored: &StoredEntry) -> Option<String> {
    stored.entry.session.map(|(id, _)| id.to_string())
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn maybe_text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| readable(bytes).0)
}

fn parameter(parameter: &Parameter) -> Value {
    let value = parameter.value.as_deref().map(|bytes| match readable(bytes) {
        (text, false) => json!(text),
        (text, true) => json!({ "base64": text }),
    });
    json!({ "value": value, "format": parameter.format, "type": parameter.type_id })
}

fn each_once(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for name in names {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    list
}

impl Row {
    /// The row of an entry of that session.
    #[must_use]
    pub fn new(stored: &StoredEntry, session: Option<&SessionContext>, texts: Texts) -> Self {
        let mut row = Self {
            index: stored.index,
            time: stored.entry.time,
            kind: stored.kind(),
            session: stored.entry.session.map(|(id, _)| id),
            number: stored.entry.session.map(|(_, number)| number),
            who: session.cloned().unwrap_or_default(),
            request: None,
            request_kind: None,
            statement: None,
            statement_base64: false,
            actions: Vec::new(),
            objects: Vec::new(),
            verdict: None,
            reason: None,
            policies: Vec::new(),
            policy_version: None,
            status: None,
            code: None,
            tag: None,
            rows: None,
            bytes: None,
            duration_micros: None,
            columns: None,
            masked_classes: Vec::new(),
            actor: None,
            action: None,
            object: None,
            details: Map::new(),
        };
        row.take(&stored.entry.event);
        if !stored.withheld.is_empty() {
            row.details.insert("withheld".into(), json!(stored.withheld));
            // What is not there any more is not an empty statement.
            if stored.withheld.iter().any(|withheld| withheld.field == "statement") {
                row.statement = None;
            }
        }
        row.limit(texts);
        row
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::GatewayStarted { version, host } => {
                self.act(None, "gateway started", Some(host));
                self.details = fields(json!({ "version": version, "host": host }));
            }
            Event::GatewayStopped { reason } => {
                self.act(None, "gateway stopped", None);
                self.reason = Some(reason.clone());
            }
            Event::Activated { what, digest, previous, difference, author } => {
                self.act(author.as_ref(), "activated", Some(what));
                self.details = fields(json!({ "digest": digest, "previous": previous, "difference": difference }));
            }
            Event::ReloadRefused { what, error } => {
                self.act(None, "reload refused", Some(what));
                self.reason = Some(error.clone());
            }
            Event::LoginFailed { source, protocol, label, connection, reason } => {
                self.who = SessionContext {
                    source: source.clone(),
                    protocol: protocol.clone(),
                    label: label.clone(),
                    connection: connection.clone(),
                    ..SessionContext::default()
                };
                self.reason = Some(reason.clone());
            }
            Event::SessionStarted(started) => self.take_start(started),
            Event::SessionEnded { reason, requests, bytes_in, bytes_out } => {
                self.reason = Some(reason.clone());
                self.details = fields(json!({ "requests": requests, "bytes_in": bytes_in, "bytes_out": bytes_out }));
            }
            Event::Request(record) => self.take_request(record),
            Event::Outcome(outcome) => self.take_outcome(outcome),
            Event::Approval { request, step, by, reason, digest } => {
                self.act(by.as_ref(), &format!("approval {}", step.as_str()), None);
                self.request = Some(request.0);
                self.reason.clone_from(reason);
                self.details = fields(json!({ "step": step, "digest": digest }));
            }
            Event::Administration { by, action, object, details } => {
                self.act(Some(by), action, Some(object));
                self.details = details.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            }
            Event::LogRead { by, query } => self.act(Some(by), "log read", Some(query)),
            Event::ClockJump { micros } => {
                self.act(None, "clock jumped", None);
                self.details = fields(json!({ "micros": micros }));
            }
            Event::Heartbeat => self.act(None, "heartbeat", None),
            Event::LogKey(key) => {
                self.act(Some(&key.by), "log key", Some(&key.key));
                self.details = fields(json!({ "origin": key.origin, "previous": key.previous, "endorsement": key.endorsement }));
            }
            Event::Destroyed(destroyed) => {
                self.act(Some(&destroyed.by), "contents destroyed", Some(&destroyed.rule));
                self.reason.clone_from(&destroyed.reason);
                self.details = fields(json!(destroyed));
            }
        }
    }

    fn act(&mut self, by: Option<&String>, action: &str, object: Option<&String>) {
        (self.actor, self.action, self.object) = (by.cloned(), Some(action.to_owned()), object.cloned());
    }

    fn take_start(&mut self, started: &SessionStarted) {
        let principal = &started.principal;
        self.policies.clone_from(&started.policies);
        self.policy_version = Some(started.policy_version.clone());
        self.details = fields(json!({
            "issuer": principal.issuer,
            "subject": principal.subject,
            "tenant": principal.tenant,
            "application_id": principal.application,
            "credential_id": principal.credential_id,
            "aliases": principal.aliases,
            "roles": principal.roles,
            "claims": principal.claims,
            "expires": principal.expires.map(rfc3339),
            "owner": started.target.owner,
            "tags": started.target.tags,
            "tls": started.tls,
        }));
    }

    fn take_request(&mut self, record: &RequestRecord) {
        let (statement, encoded) = readable(&record.statement);
        (self.statement, self.statement_base64) = (Some(statement), encoded);
        self.request = Some(record.request.0);
        self.request_kind = Some(record.kind.as_str());
        self.actions = each_once(record.facts.operations.iter().map(|operation| operation.action.clone()));
        self.objects = each_once(record.facts.operations.iter().map(|operation| operation.object.to_string()));
        self.verdict = Some(record.verdict);
        self.reason.clone_from(&record.reason);
        self.policies = record.policies.iter().map(|policy| policy.to_string()).collect();
        self.policy_version = Some(record.policy_version.to_string());
        let parameters: Vec<Value> = record.parameters.iter().map(parameter).collect();
        self.details = fields(json!({ "parameters": parameters, "facts": *record.facts }));
    }

    fn take_outcome(&mut self, outcome: &Outcome) {
        self.request = Some(outcome.request.0);
        self.status = Some(outcome.status);
        self.code = maybe_text(outcome.code.as_deref());
        self.tag = maybe_text(outcome.tag.as_deref());
        (self.rows, self.bytes, self.duration_micros) = (Some(outcome.rows), Some(outcome.bytes), Some(outcome.duration_micros));
        self.columns = Some([outcome.columns_passed, outcome.columns_masked, outcome.columns_refused].map(u64::from));
        self.masked_classes.clone_from(&outcome.masked_classes);
    }

    fn limit(&mut self, texts: Texts) {
        if texts == Texts::Whole {
            return;
        }
        let optional = [&mut self.statement, &mut self.reason, &mut self.object, &mut self.code, &mut self.tag, &mut self.actor];
        for text in optional.into_iter().flatten() {
            *text = texts.limit(std::mem::take(text));
        }
        let who = &mut self.who;
        for text in [&mut who.principal, &mut who.label, &mut who.application, &mut who.connection, &mut who.database] {
            *text = texts.limit(std::mem::take(text));
        }
        for list in [&mut self.actions, &mut self.objects, &mut self.policies, &mut self.masked_classes] {
            list.truncate(crate::limits::LIST_MAX);
        }
        self.details.values_mut().for_each(|value| texts.limit_value(value));
    }

    /// What happened, in one line for people: it is a title, and leaves out what does not fit.
    #[must_use]
    pub fn title(&self) -> String {
        let who = if self.who.principal.is_empty() { &self.who.label } else { &self.who.principal };
        let line = match self.kind {
            EventKind::Request => format!(
                "{} {} by {who} on {}: {}",
                self.verdict.map_or("unknown", RecordedVerdict::as_str),
                self.request_kind.unwrap_or("request"),
                self.who.connection,
                self.statement.as_deref().unwrap_or("(withheld)")
            ),
            EventKind::Outcome => format!(
                "request {} of {who} on {}: {}{}",
                self.request.unwrap_or(0),
                self.who.connection,
                self.status.map_or("unknown", OutcomeStatus::as_str),
                self.tag.as_ref().or(self.code.as_ref()).map(|word| format!(", {word}")).unwrap_or_default()
            ),
            EventKind::SessionStarted => {
                format!("session of {who} on {}/{} started", self.who.connection, self.who.database)
            }
            EventKind::SessionEnded => {
                format!("session of {who} on {} ended: {}", self.who.connection, self.reason.as_deref().unwrap_or_default())
            }
            EventKind::LoginFailed => {
                format!("login of {who} on {} refused: {}", self.who.connection, self.reason.as_deref().unwrap_or_default())
            }
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
            | EventKind::Destroyed => {
                let mut line = self.action.clone().unwrap_or_default();
                for (word, part) in [(" ", &self.object), (" by ", &self.actor), (": ", &self.reason)] {
                    if let Some(part) = part.as_ref().filter(|part| !part.is_empty()) {
                        line.push_str(word);
                        line.push_str(part);
                    }
                }
                line
            }
        };
        title(&line)
    }
}

/// One line without control characters and line separators, cut after [`TITLE_MAX`] characters.
fn title(line: &str) -> String {
    let mut out = String::new();
    let ends = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let mut characters = line.chars().map(|c| if ends(c) { ' ' } else { c });
    out.extend(characters.by_ref().take(TITLE_MAX));
    if characters.next().is_some() {
        out.push('…');
    }
    out
}
