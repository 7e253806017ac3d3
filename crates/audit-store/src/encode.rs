//! Entry → leaf. `FORMAT.md` describes the bytes; [`crate::decode`] is the inverse.

use crate::decode::Commitment;
use crate::kind::{BESIDE, EventKind, FIRST_FIELD, NUMBER, SESSION, TIME, VERSION};
use crate::seal::{PayloadKeys, SEALED};
use crate::wire::{Writer, zigzag};
use aws_lc_rs::digest;
use proxy_core::record::{ApprovalStep, Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted};
use proxy_core::{Entry, Event, Facts, ObjectKind, Parameter, Principal, PrincipalKind, RequestKind, Target, ValueFormat};
use std::sync::Arc;

/// Bytes of salt before a payload's content.
pub const SALT_LENGTH: usize = 16;

/// A field that is too long for the leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The field's number; of a sealed payload, with the bit that says so.
    pub field: u32,
    /// Salt and content, or sealed, as they are stored.
    pub payload: Vec<u8>,
}

/// No randomness is to be had for a salt, or for what seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness for a salt")]
pub struct NoRandomness;

/// Appends the leaf of `entry` to `out`; what is longer than `inline_max` bytes goes to `beside`, in
/// ascending order of fields.
///
/// # Errors
/// [`NoRandomness`]; then `out` and `beside` are to be thrown away.
pub fn encode(entry: &Entry, inline_max: usize, out: &mut Vec<u8>, beside: &mut Vec<Beside>) -> Result<(), NoRandomness> {
    encode_repeated(entry, (inline_max, None), out, beside, &mut Repeated::default())
}

/// The same, where decisions are likely to be those of entries before. Payloads are sealed where there are keys.
pub(crate) fn encode_repeated(
    entry: &Entry,
    (inline_max, keys): (usize, Option<&PayloadKeys>),
    out: &mut Vec<u8>,
    beside: &mut Vec<Beside>,
    repeated: &mut Repeated,
) -> Result<(), NoRandomness> {
    let first = beside.len();
    let kind = EventKind::of(&entry.event);
    out.extend_from_slice(&[VERSION, kind as u8]);
    let mut header = Writer { out };
    header.fixed(TIME, entry.time.0);
    if let Some((session, number)) = entry.session {
        header.element(SESSION, &session.0);
        header.uint(NUMBER, number);
    }
    let mut body = Body { out, inline_max: inline_max.min(crate::limits::INLINE_MAX), beside, failed: false };
    event(&entry.event, &mut body, repeated);
    if body.failed {
        return Err(NoRandomness);
    }
    for kept in &mut beside[first..] {
        let sha256 = digest::digest(&digest::SHA256, &kept.payload);
        let length = (kept.payload.len() - SALT_LENGTH) as u64;
        Writer { out }.message(BESIDE, |w| {
            w.uint(1, u64::from(kept.field));
            w.uint(2, length);
            w.element(3, sha256.as_ref());
        });
        if let Some(keys) = keys.filter(|_| may_be_sealed(kind)) {
            let sha256 = sha256.as_ref().try_into().map_err(|_| NoRandomness)?;
            kept.payload = keys.seal(&Commitment { field: kept.field, length, sha256 }, &kept.payload)?;
            kept.field |= SEALED;
        }
    }
    Ok(())
}

/// Whether payloads of entries of this kind may be sealed. What every verifier needs is not: keys, and what was destroyed.
pub(crate) fn may_be_sealed(kind: EventKind) -> bool {
    !matches!(kind, EventKind::LogKey | EventKind::Destroyed)
}

/// The fields of a kind's own.
struct Body<'a> {
    out: &'a mut Vec<u8>,
    inline_max: usize,
    beside: &'a mut Vec<Beside>,
    failed: bool,
}

impl Body<'_> {
    fn uint(&mut self, field: u32, value: u64) {
        Writer { out: self.out }.uint(field, value);
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        if value.len() > self.inline_max {
            self.put_beside(field, value);
        } else {
            Writer { out: self.out }.bytes(field, value);
        }
    }

    fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn optional(&mut self, field: u32, value: Option<&[u8]>) {
        match value {
            Some(long) if long.len() > self.inline_max => self.put_beside(field, long),
            short => Writer { out: self.out }.optional(field, short),
        }
    }

    fn optional_text(&mut self, field: u32, value: Option<&str>) {
        self.optional(field, value.map(str::as_bytes));
    }

    /// A message; left out when it has no fields.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer<'_>)) {
        let before = self.out.len();
        let mut length = 0;
        Writer { out: self.out }.message(field, |w| {
            let start = w.out.len();
            write(w);
            length = w.out.len() - start;
        });
        if length == 0 {
            self.out.truncate(before);
        } else if length > self.inline_max {
            let content = self.out.split_off(self.out.len() - length);
            self.out.truncate(before);
            self.put_beside(field, &content);
        }
    }

    fn put_beside(&mut self, field: u32, content: &[u8]) {
        let mut payload = Vec::with_capacity(SALT_LENGTH + content.len());
        payload.resize(SALT_LENGTH, 0);
        self.failed |= aws_lc_rs::rand::fill(&mut payload).is_err();
        payload.extend_from_slice(content);
        self.beside.push(Beside { field, payload });
    }
}

/// Field numbers follow the order of [`EventKind::fields`].
fn event(event: &Event, body: &mut Body<'_>, repeated: &mut Repeated) {
    const F: u32 = FIRST_FIELD;
    match event {
        Event::GatewayStarted { version, host } => {
            body.text(F, version);
            body.text(F + 1, host);
        }
        Event::GatewayStopped { reason } => body.text(F, reason),
        Event::Activated { what, digest, previous, difference, author } => {
            body.text(F, what);
            body.text(F + 1, digest);
            body.optional_text(F + 2, previous.as_deref());
            body.message(F + 3, |w| w.list(1, difference.iter().map(String::as_str)));
            body.optional_text(F + 4, author.as_deref());
        }
        Event::ReloadRefused { what, error } => {
            body.text(F, what);
            body.text(F + 1, error);
        }
        Event::LoginFailed { source, protocol, label, connection, reason } => {
            for (field, value) in (F..).zip([source, protocol, label, connection, reason]) {
                body.text(field, value);
            }
        }
        Event::SessionStarted(started) => session_started(started, body),
        Event::SessionEnded { reason, requests, bytes_in, bytes_out } => {
            body.text(F, reason);
            body.uint(F + 1, *requests);
            body.uint(F + 2, *bytes_in);
            body.uint(F + 3, *bytes_out);
        }
        Event::Request(record) => request(record, body, repeated),
        Event::Outcome(result) => outcome(result, body),
        Event::Approval { request, step, by, reason, digest } => {
            body.uint(F, request.0);
            body.uint(F + 1, approval_step(*step));
            body.optional_text(F + 2, by.as_deref());
            body.optional_text(F + 3, reason.as_deref());
            body.text(F + 4, digest);
        }
        Event::Administration { by, action, object, details } => {
            body.text(F, by);
            body.text(F + 1, action);
            body.text(F + 2, object);
            body.message(F + 3, |w| w.map(1, details));
        }
        Event::LogRead { by, query } => {
            body.text(F, by);
            body.text(F + 1, query);
        }
        Event::ClockJump { micros } => body.uint(F, zigzag(*micros)),
        Event::Heartbeat => {}
        Event::LogKey(key) => {
            body.text(F, &key.origin);
            body.text(F + 1, &key.key);
            body.optional_text(F + 2, key.previous.as_deref());
            body.optional_text(F + 3, key.endorsement.as_deref());
            body.text(F + 4, &key.by);
        }
        Event::Destroyed(destroyed) => {
            body.text(F, &destroyed.rule);
            body.text(F + 1, &destroyed.by);
            body.optional_text(F + 2, destroyed.reason.as_deref());
            body.uint(F + 3, destroyed.first);
            body.uint(F + 4, destroyed.next);
            body.optional_text(F + 5, destroyed.connection.as_deref());
            body.message(F + 6, |w| w.list(1, destroyed.kinds.iter().map(String::as_str)));
            body.message(F + 7, |w| w.list(1, destroyed.fields.iter().map(String::as_str)));
            body.uint(F + 8, destroyed.contents);
        }
    }
}

fn session_started(started: &SessionStarted, body: &mut Body<'_>) {
    const F: u32 = FIRST_FIELD;
    body.message(F, |w| principal(&started.principal, w));
    body.message(F + 1, |w| target(&started.target, w));
    body.text(F + 2, &started.source);
    body.text(F + 3, &started.protocol);
    body.text(F + 4, &started.label);
    body.text(F + 5, &started.application);
    body.optional_text(F + 6, started.tls.as_deref());
    body.text(F + 7, &started.policy_version);
    body.message(F + 8, |w| w.list(1, started.policies.iter().map(String::as_str)));
}

fn principal(principal: &Principal, w: &mut Writer<'_>) {
    w.uint(
        1,
        match principal.kind {
            PrincipalKind::Service => 1,
            PrincipalKind::Agent => 2,
            PrincipalKind::Human => 3,
        },
    );
    w.bytes(2, principal.issuer.as_bytes());
    w.bytes(3, principal.subject.as_bytes());
    w.optional(4, principal.tenant.as_deref().map(str::as_bytes));
    w.optional(5, principal.application.as_deref().map(str::as_bytes));
    w.optional(6, principal.credential_id.as_deref().map(str::as_bytes));
    w.list(7, principal.aliases.iter().map(String::as_str));
    w.list(8, principal.roles.iter().map(String::as_str));
    w.map(9, &principal.claims);
    if let Some(expires) = principal.expires {
        w.message(10, |w| w.fixed(1, expires.0));
    }
}

fn target(target: &Target, w: &mut Writer<'_>) {
    w.bytes(1, target.connection.as_bytes());
    w.bytes(2, target.address.as_bytes());
    w.bytes(3, target.database.as_bytes());
    w.bytes(4, target.upstream_user.as_bytes());
    w.optional(5, target.owner.as_deref().map(str::as_bytes));
    w.map(6, &target.tags);
}

fn request(record: &RequestRecord, body: &mut Body<'_>, repeated: &mut Repeated) {
    const F: u32 = FIRST_FIELD;
    body.uint(F, record.request.0);
    body.uint(
        F + 1,
        match record.kind {
            RequestKind::Connect => 1,
            RequestKind::Query => 2,
            RequestKind::Prepare => 3,
            RequestKind::Execute => 4,
            RequestKind::Command => 5,
        },
    );
    body.uint(F + 2, verdict(record.verdict));
    body.bytes(F + 3, &record.statement);
    if !record.parameters.is_empty() {
        body.message(F + 4, |w| parameters(&record.parameters, w));
    }
    repeated.write(record, body);
    body.optional_text(F + 8, record.reason.as_deref());
}

/// What a decision says of a request.
fn decision(record: &RequestRecord, body: &mut Body<'_>) {
    const F: u32 = FIRST_FIELD;
    body.message(F + 5, |w| facts(&record.facts, w));
    if !record.policies.is_empty() {
        body.message(F + 6, |w| w.list(1, record.policies.iter().map(AsRef::as_ref)));
    }
    body.text(F + 7, &record.policy_version);
}

/// Decisions that are remembered: 2 to the power of this (64).
const REPEATED_BITS: u32 = 6;

/// The place of an address: its high bits, once a multiplication has mixed them.
fn place(address: usize) -> usize {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - REPEATED_BITS)
}

/// Decisions as they were encoded: a statement that runs again has the very facts and policies of before.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    places: Vec<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// Address of the facts that were last asked for: what comes for the second time is remembered.
    passing: usize,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    facts: Arc<Facts>,
    policies: Arc<[Arc<str>]>,
    version: Arc<str>,
    inline_max: usize,
    bytes: Vec<u8>,
}

impl Known {
    fn is(&self, record: &RequestRecord, inline_max: usize) -> bool {
        Arc::ptr_eq(&self.facts, &record.facts)
            && Arc::ptr_eq(&self.policies, &record.policies)
            && Arc::ptr_eq(&self.version, &record.policy_version)
            && self.inline_max == inline_max
    }
}

impl Repeated {
    fn write(&mut self, record: &RequestRecord, body: &mut Body<'_>) {
        self.places.resize_with(1 << REPEATED_BITS, Place::default);
        let address = Arc::as_ptr(&record.facts).addr();
        let Some(place) = self.places.get_mut(place(address)) else { return };
        if let Some(known) = place.known.as_ref().filter(|known| known.is(record, body.inline_max)) {
            body.out.extend_from_slice(&known.bytes);
            return;
        }
        let (start, beside) = (body.out.len(), body.beside.len());
        decision(record, body);
        // What is kept beside has a salt of its own each time.
        if std::mem::replace(&mut place.passing, address) == address && body.beside.len() == beside {
            place.known = Some(Known {
                facts: record.facts.clone(),
                policies: record.policies.clone(),
                version: record.policy_version.clone(),
                inline_max: body.inline_max,
                bytes: body.out.get(start..).unwrap_or_default().to_vec(),
            });
        }
    }
}

/// A verdict's number.
pub(crate) fn verdict(verdict: RecordedVerdict) -> u64 {
    match verdict {
        RecordedVerdict::Allow => 1,
        RecordedVerdict::Deny => 2,
        RecordedVerdict::Hold => 3,
    }
}

fn parameters(list: &[Parameter], w: &mut Writer<'_>) {
    for parameter in list {
        w.message(1, |w| {
            w.optional(1, parameter.value.as_deref());
            // Text, by far the most frequent, is the default.
            w.uint(
                2,
                match parameter.format {
                    ValueFormat::Text => 0,
                    ValueFormat::Binary => 1,
                },
            );
            w.uint(3, u64::from(parameter.type_id));
        });
    }
}

fn facts(facts: &Facts, w: &mut Writer<'_>) {
    for operation in &facts.operations {
        w.message(1, |w| {
            w.bytes(1, operation.action.as_bytes());
            w.uint(2, object_kind(operation.object.kind));
            w.list(3, operation.object.path.iter().map(String::as_str));
            w.uint(
                4,
                match operation.has_where {
                    None => 0,
                    Some(false) => 1,
                    Some(true) => 2,
                },
            );
        });
    }
    w.list(2, facts.unknown.iter().map(|unknown| unknown.what.as_str()));
    w.list(3, facts.kinds.iter().map(String::as_str));
    w.map(4, &facts.attributes);
}

fn object_kind(kind: ObjectKind) -> u64 {
    match kind {
        ObjectKind::Connection => 1,
        ObjectKind::Database => 2,
        ObjectKind::Schema => 3,
        ObjectKind::Table => 4,
        ObjectKind::Function => 5,
        ObjectKind::Namespace => 6,
        ObjectKind::KubeResource => 7,
        ObjectKind::Host => 8,
    }
}

fn outcome(outcome: &Outcome, body: &mut Body<'_>) {
    const F: u32 = FIRST_FIELD;
    body.uint(F, outcome.request.0);
    body.uint(
        F + 1,
        match outcome.status {
            OutcomeStatus::Completed => 1,
            OutcomeStatus::Failed => 2,
            OutcomeStatus::Skipped => 3,
            OutcomeStatus::Refused => 4,
            OutcomeStatus::Unknown => 5,
        },
    );
    body.optional(F + 2, outcome.code.as_deref());
    body.optional(F + 3, outcome.tag.as_deref());
    body.uint(F + 4, outcome.rows);
    body.uint(F + 5, outcome.bytes);
    body.uint(F + 6, outcome.duration_micros);
    body.uint(F + 7, u64::from(outcome.columns_passed));
    body.uint(F + 8, u64::from(outcome.columns_masked));
    body.uint(F + 9, u64::from(outcome.columns_refused));
    if !outcome.masked_classes.is_empty() {
        body.message(F + 10, |w| w.list(1, outcome.masked_classes.iter().map(String::as_str)));
    }
}

fn approval_step(step: ApprovalStep) -> u64 {
    match step {
        ApprovalStep::Requested => 1,
        ApprovalStep::Approved => 2,
        ApprovalStep::Denied => 3,
        ApprovalStep::Expired => 4,
        ApprovalStep::Withdrawn => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::{Repeated, encode, encode_repeated};
    use bytes::Bytes;
    use proxy_core::record::{RecordedVerdict, RequestRecord};
    use proxy_core::{Entry, Event, Facts, RequestId, RequestKind, SessionId, Timestamp};
    use std::sync::Arc;

    fn request(facts: &Arc<Facts>, policies: &Arc<[Arc<str>]>, version: &Arc<str>) -> Entry {
        let record = RequestRecord {
            request: RequestId(7),
            kind: RequestKind::Query,
            statement: Bytes::from_static(b"SELECT 1"),
            parameters: Vec::new(),
            facts: facts.clone(),
            verdict: RecordedVerdict::Allow,
            policies: policies.clone(),
            policy_version: version.clone(),
            reason: None,
        };
        Entry { time: Timestamp(1), session: Some((SessionId([7; 16]), 3)), event: Event::Request(Box::new(record)) }
    }

    #[test]
    fn what_is_remembered_is_what_would_be_encoded() {
        let mut repeated = Repeated::default();
        let names = |n: usize| -> Arc<[Arc<str>]> { (0..n).map(|at| Arc::from(format!("policy-{at}"))).collect() };
        let facts: Vec<_> = (0..200).map(|n| Arc::new(Facts { kinds: vec![format!("KIND {n}")], ..Facts::default() })).collect();
        let (policies, versions) = ([names(0), names(2), names(90)], [Arc::from("a"), Arc::from("b")]);
        for turn in 0..4 {
            for facts in &facts {
                for (policies, version) in
                    policies.iter().flat_map(|policies| versions.iter().map(move |version| (policies, version)))
                {
                    for inline_max in [16, 1_024] {
                        let entry = request(facts, policies, version);
                        let (mut fresh, mut known, mut beside) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
                        encode(&entry, inline_max, &mut fresh, &mut beside.0).unwrap();
                        // As statements do that run again at once.
                        for _ in 0..2 {
                            (known, beside.1) = (Vec::new(), Vec::new());
                            encode_repeated(&entry, (inline_max, None), &mut known, &mut beside.1, &mut repeated).unwrap();
                        }
                        assert_eq!(beside.0.len(), beside.1.len());
                        // What is kept beside has its salt, which the leaf commits to.
                        if beside.0.is_empty() {
                            assert_eq!(known, fresh, "turn {turn}");
                        }
                    }
                }
            }
        }
        assert!(repeated.places.iter().filter(|place| place.known.is_some()).count() > 32, "places are used evenly");
    }
}
