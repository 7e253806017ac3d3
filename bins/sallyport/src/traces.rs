//! OpenTelemetry traces, made from the record: a span for each session, and in it one for each statement.
//!
//! Whatever is recorded has a span and nothing else has one, so traces cannot tell another story than the log. They
//! carry names, verdicts and numbers: never a statement's text, a parameter, a label that a client chose, or a message
//! of the target. [`SPANS`] is the documentation and the only set of names.

use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use parking_lot::Mutex;
use proxy_core::record::{ApprovalStep, Entry, Event, Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted};
use proxy_core::{RequestId, SessionId, Store, StoreError, Timestamp};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Statements of one session that wait for their outcome (256). In a longer pipeline, further spans end at once and say
/// no outcome.
const OPEN_MAX: usize = 256;

/// A kind of span, with its attributes.
#[derive(Debug)]
pub struct SpanFamily {
    /// Its name.
    pub name: &'static str,
    /// What it covers.
    pub help: &'static str,
    /// Names of its attributes, and what they say.
    pub attributes: &'static [(&'static str, &'static str)],
}

/// A session's span.
const SESSION: &str = "sallyport.session";
/// A statement's span.
const STATEMENT: &str = "sallyport.statement";

const ID: &str = "sallyport.session.id";
const PRINCIPAL: &str = "sallyport.principal";
const KIND: &str = "sallyport.principal.kind";
const CONNECTION: &str = "sallyport.connection";
const SYSTEM: &str = "db.system.name";
const NAMESPACE: &str = "db.namespace";
const POLICIES: &str = "sallyport.policies";
const POLICY_VERSION: &str = "sallyport.policy.version";
const REQUESTS: &str = "sallyport.requests";
const REQUEST: &str = "sallyport.request";
const REQUEST_KIND: &str = "sallyport.request.kind";
const ACTIONS: &str = "sallyport.actions";
const VERDICT: &str = "sallyport.verdict";
const APPROVAL: &str = "sallyport.approval";
const OUTCOME: &str = "sallyport.outcome";
const CODE: &str = "db.response.status_code";
const ROWS: &str = "db.response.returned_rows";
const MASKED: &str = "sallyport.columns.masked";
const REFUSED: &str = "sallyport.columns.refused";

/// Every kind of span, in the order of the reference.
pub const SPANS: [SpanFamily; 2] = [
    SpanFamily {
        name: SESSION,
        help: "A session, from its permission to its end.",
        attributes: &[
            (ID, "The session's id: `sallyport sessions show ID`."),
            (PRINCIPAL, "Who: `ISSUER/SUBJECT`."),
            (KIND, "`service`, `agent` or `human`."),
            (CONNECTION, "The connection's name."),
            (SYSTEM, "`postgresql`."),
            (NAMESPACE, "The database."),
            (POLICIES, "The policies that permitted it."),
            (POLICY_VERSION, "The policy set."),
            (REQUESTS, "Requests in it."),
        ],
    },
    SpanFamily {
        name: STATEMENT,
        help: "A statement, from its decision to its outcome, within its session. A denied one takes no time.",
        attributes: &[
            (ID, "The session's id."),
            (REQUEST, "Its number in the session."),
            (REQUEST_KIND, "`query`, `prepare`, `execute` or `command`."),
            (SYSTEM, "`postgresql`."),
            (NAMESPACE, "The database."),
            (ACTIONS, "What it does: `select`, `update` … without the objects."),
            (VERDICT, "`allow`, `deny` or `hold`."),
            (POLICIES, "The policies that determined it."),
            (POLICY_VERSION, "The policy set."),
            (APPROVAL, "For one that was held: `approved`, `denied`, `expired` or `withdrawn`."),
            (OUTCOME, "`completed`, `failed`, `skipped`, `refused` or `unknown`."),
            (CODE, "The target's error code, where it failed."),
            (ROWS, "Rows returned or touched."),
            (MASKED, "Result columns that were masked."),
            (REFUSED, "Result columns for which the result was refused."),
        ],
    },
];

/// A session that is open, with its statements that have no outcome yet. A span that is dropped ends.
struct OpenSession {
    context: Context,
    system: &'static str,
    database: String,
    statements: HashMap<RequestId, Span>,
}

/// A store whose entries become spans.
pub struct TracedStore {
    store: Arc<dyn Store>,
    tracer: SdkTracer,
    open: Mutex<HashMap<SessionId, OpenSession>>,
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(Array::String(names.into_iter().map(|name| StringValue::from(name.to_owned())).collect()))
}

/// OpenTelemetry's name of the system that is spoken to.
fn system(protocol: &str) -> &'static str {
    if protocol == "postgres" { "postgresql" } else { "other_sql" }
}

impl TracedStore {
    /// Makes spans of what goes to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, tracer: SdkTracer) -> Self {
        Self { store, tracer, open: Mutex::default() }
    }

    fn trace(&self, entry: &Entry) {
        let Some((id, _)) = entry.session else { return };
        match &entry.event {
            Event::SessionStarted(started) => self.session_started(id, entry.time, started),
            Event::SessionEnded { requests, .. } => self.session_ended(id, entry.time, *requests),
            Event::Request(request) => self.requested(id, entry.time, request),
            Event::Approval { request, step, .. } => self.approval(id, entry.time, *request, *step),
            Event::Outcome(outcome) => self.outcome(id, entry.time, outcome),
            Event::GatewayStarted { .. }
            | Event::GatewayStopped { .. }
            | Event::Activated { .. }
            | Event::ReloadRefused { .. }
            | Event::LoginFailed { .. }
            | Event::Administration { .. }
            | Event::LogRead { .. }
            | Event::ClockJump { .. }
            | Event::Heartbeat
            | Event::LogKey(_)
            | Event::Destroyed(_) => {}
        }
    }

    fn session_started(&self, id: SessionId, at: Timestamp, started: &SessionStarted) {
        let system = system(&started.protocol);
        let attributes = [
            KeyValue::new(ID, id.to_string()),
            KeyValue::new(PRINCIPAL, started.principal.id()),
            KeyValue::new(KIND, started.principal.kind.as_str()),
            KeyValue::new(CONNECTION, started.target.connection.clone()),
            KeyValue::new(SYSTEM, system),
            KeyValue::new(NAMESPACE, started.target.database.clone()),
            KeyValue::new(POLICIES, list(started.policies.iter().map(String::as_str))),
            KeyValue::new(POLICY_VERSION, started.policy_version.clone()),
        ];
        let builder = SpanBuilder::from_name(SESSION).with_kind(SpanKind::Server);
        let span =
            builder.with_start_time(time(at)).with_attributes(attributes).start_with_context(&self.tracer, &Context::new());
        let open = OpenSession {
            context: Context::new().with_span(span),
            system,
            database: started.target.database.clone(),
            statements: HashMap::new(),
        };
        self.open.lock().insert(id, open);
    }

    fn session_ended(&self, id: SessionId, at: Timestamp, requests: u64) {
        let Some(session) = self.open.lock().remove(&id) else { return };
        for (_, mut span) in session.statements {
            span.set_attribute(KeyValue::new(OUTCOME, OutcomeStatus::Unknown.as_str()));
            span.end_with_timestamp(time(at));
        }
        let span = session.context.span();
        span.set_attribute(KeyValue::new(REQUESTS, number(requests)));
        span.end_with_timestamp(time(at));
    }

    fn requested(&self, id: SessionId, at: Timestamp, request: &RequestRecord) {
        let open = |session: &OpenSession| (session.context.clone(), session.system, session.database.clone());
        let Some((session, system, database)) = self.open.lock().get(&id).map(open) else { return };
        let actions: BTreeSet<&str> = request.facts.operations.iter().map(|operation| operation.action.as_str()).collect();
        let attributes = [
            KeyValue::new(ID, id.to_string()),
            KeyValue::new(REQUEST, number(request.request.0)),
            KeyValue::new(REQUEST_KIND, request.kind.as_str()),
            KeyValue::new(SYSTEM, system),
            KeyValue::new(NAMESPACE, database),
            KeyValue::new(ACTIONS, list(actions)),
            KeyValue::new(VERDICT, request.verdict.as_str()),
            KeyValue::new(POLICIES, list(request.policies.iter().map(|policy| &**policy))),
            KeyValue::new(POLICY_VERSION, request.policy_version.to_string()),
        ];
        let builder = SpanBuilder::from_name(STATEMENT).with_kind(SpanKind::Client);
        let builder = builder.with_start_time(time(at)).with_attributes(attributes);
        let mut span = builder.start_with_context(&self.tracer, &session);
        if request.verdict == RecordedVerdict::Deny {
            span.set_status(Status::error("denied"));
            span.end_with_timestamp(time(at));
            return;
        }
        if let Some(session) = self.open.lock().get_mut(&id)
            && session.statements.len() < OPEN_MAX
        {
            session.statements.insert(request.request, span);
            return;
        }
        span.end_with_timestamp(time(at));
    }

    fn approval(&self, id: SessionId, at: Timestamp, request: RequestId, step: ApprovalStep) {
        match step {
            ApprovalStep::Requested => {}
            ApprovalStep::Approved => {
                let mut open = self.open.lock();
                if let Some(span) = open.get_mut(&id).and_then(|session| session.statements.get_mut(&request)) {
                    span.set_attribute(KeyValue::new(APPROVAL, step.as_str()));
                }
            }
            ApprovalStep::Denied | ApprovalStep::Expired | ApprovalStep::Withdrawn => {
                let Some(mut span) = self.take(id, request) else { return };
                span.set_attribute(KeyValue::new(APPROVAL, step.as_str()));
                span.set_status(Status::error("not approved"));
                span.end_with_timestamp(time(at));
            }
        }
    }

    /// The span of a statement that ends now.
    fn take(&self, id: SessionId, request: RequestId) -> Option<Span> {
        self.open.lock().get_mut(&id)?.statements.remove(&request)
    }

    fn outcome(&self, id: SessionId, at: Timestamp, outcome: &Outcome) {
        let Some(mut span) = self.take(id, outcome.request) else { return };
        span.set_attribute(KeyValue::new(OUTCOME, outcome.status.as_str()));
        span.set_attribute(KeyValue::new(ROWS, number(outcome.rows)));
        span.set_attribute(KeyValue::new(MASKED, i64::from(outcome.columns_masked)));
        span.set_attribute(KeyValue::new(REFUSED, i64::from(outcome.columns_refused)));
        // A code is five letters or digits; whatever else a target says there could be anything.
        if let Some(code) = outcome.code.as_ref().filter(|code| code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric)) {
            span.set_attribute(KeyValue::new(CODE, String::from_utf8_lossy(code).into_owned()));
        }
        match outcome.status {
            OutcomeStatus::Failed => span.set_status(Status::error("failed")),
            OutcomeStatus::Refused => span.set_status(Status::error("refused")),
            OutcomeStatus::Completed | OutcomeStatus::Skipped | OutcomeStatus::Unknown => {}
        }
        span.end_with_timestamp(time(at));
    }
}

impl Store for TracedStore {
    fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
        let first = self.store.append(entries)?;
        entries.iter().for_each(|entry| self.trace(entry));
        Ok(first)
    }

    fn blocks(&self) -> bool {
        self.store.blocks()
    }
}

/// The reference of spans, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Traces: OpenTelemetry\n\n\
         <!-- Generated by `cargo xtask reference` from bins/sallyport/src/traces.rs. -->\n\n\
         With `otlp` in `[telemetry]`, what is recorded is also sent to a collector as spans, by OTLP over HTTP, under the\n\
         service name `sallyport`. They carry no statement's text, no parameter and no message of the target. A collector\n\
         that does not answer holds nothing up: its spans are dropped.\n",
    );
    for span in SPANS {
        let _ = write!(out, "\n## `{}`\n\n{}\n\n| attribute | meaning |\n| --- | --- |\n", span.name, span.help);
        for (name, help) in span.attributes {
            let _ = writeln!(out, "| `{name}` | {help} |");
        }
    }
    out
}
