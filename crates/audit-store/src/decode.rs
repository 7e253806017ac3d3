//! Leaf → entry: strict. Whatever [`crate::encode`] would not have written is refused.

use crate::encode::SALT_LENGTH;
use crate::kind::{
    BESIDE, EventKind, FIRST_FIELD, NUMBER, OUTCOME_ROWS, OUTCOME_STATUS, REQUEST_VERDICT, SESSION, TIME, VERSION,
};
use crate::wire::{DecodeError, Reader, text, unzigzag};
use aws_lc_rs::digest;
use bytes::Bytes;
use proxy_core::facts::Unknown;
use proxy_core::record::{
    ApprovalStep, Destroyed, LogKey, Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted,
};
use proxy_core::{
    Entry, Event, Facts, Object, ObjectKind, Operation, Parameter, Principal, PrincipalKind, RequestId, RequestKind, SessionId,
    Target, Timestamp, ValueFormat,
};
use std::sync::Arc;

/// What stands in a leaf for a field that is kept beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commitment {
    /// The field's number.
    pub field: u32,
    /// Length of its content, in bytes.
    pub length: u64,
    /// SHA-256 over salt and content.
    pub sha256: [u8; 32],
}

impl Commitment {
    /// Reads an element of field 15.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut inner = Reader::new(bytes);
        let (field, length) = (inner.uint32(1)?, inner.uint(2)?);
        let sha256 = inner.bytes(3)?.try_into().map_err(|_| DecodeError::OutOfRange(BESIDE))?;
        inner.finish()?;
        if length == 0 { Err(DecodeError::NotCanonical) } else { Ok(Self { field, length, sha256 }) }
    }
}

/// The front of a leaf: enough for indices and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: EventKind,
    /// When.
    pub time: Timestamp,
    /// Session and number in it.
    pub session: Option<(SessionId, u64)>,
    /// A request's verdict.
    pub verdict: Option<RecordedVerdict>,
    /// How a request went.
    pub outcome: Option<Counts>,
}

/// An outcome in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// How it went.
    pub status: OutcomeStatus,
    /// Rows returned or touched.
    pub rows: u64,
    /// Bytes returned to the client.
    pub bytes: u64,
}

/// An entry as far as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The entry; a field whose payload is not kept any more is empty.
    pub entry: Entry,
    /// Fields whose payload is not kept any more, or cannot be opened.
    pub withheld: Vec<Commitment>,
    /// Of these, the fields that are there, sealed with a key that the reader has not.
    pub sealed: Vec<u32>,
}

/// Reads the front of a leaf.
///
/// # Errors
/// [`DecodeError`]: not a leaf of this version.
pub fn header(leaf: &[u8]) -> Result<Header, DecodeError> {
    let (kind, mut reader) = open(leaf)?;
    let (time, session) = common(&mut reader)?;
    let mut header = Header { kind, time, session, verdict: None, outcome: None };
    if kind == EventKind::Request {
        reader.skip_to(REQUEST_VERDICT)?;
        header.verdict = Some(verdict(reader.uint(REQUEST_VERDICT)?, REQUEST_VERDICT)?);
    }
    if kind == EventKind::Outcome {
        reader.skip_to(OUTCOME_STATUS)?;
        let status = outcome_status(reader.uint(OUTCOME_STATUS)?, OUTCOME_STATUS)?;
        reader.skip_to(OUTCOME_ROWS)?;
        let (rows, bytes) = (reader.uint(OUTCOME_ROWS)?, reader.uint(OUTCOME_ROWS + 1)?);
        header.outcome = Some(Counts { status, rows, bytes });
    }
    Ok(header)
}

/// What the leaf keeps beside it, in ascending order of fields.
///
/// # Errors
/// [`DecodeError`]: not a leaf of this version.
pub fn commitments(leaf: &[u8]) -> Result<Vec<Commitment>, DecodeError> {
    let (_, mut reader) = open(leaf)?;
    reader.skip_to(BESIDE)?;
    read_commitments(&mut reader)
}

/// Checks a stored payload against what the leaf says, and returns its content.
///
/// # Errors
/// [`DecodeError::Commitment`].
pub fn open_payload<'p>(commitment: &Commitment, payload: &'p [u8]) -> Result<&'p [u8], DecodeError> {
    let failed = DecodeError::Commitment(commitment.field);
    let (_salt, content) = payload.split_at_checked(SALT_LENGTH).ok_or(failed)?;
    let holds =
        content.len() as u64 == commitment.length && digest::digest(&digest::SHA256, payload).as_ref() == commitment.sha256;
    if holds { Ok(content) } else { Err(failed) }
}

/// Reads a leaf. `payload` is asked for the payload (salt and content) of each field that is kept
/// beside; `None`: it is not kept any more, or cannot be opened.
///
/// # Errors
/// `payload`'s, or [`DecodeError`]: not a leaf of this version, not canonical, or a payload that is not what
/// the leaf commits to.
pub fn decode<E: From<DecodeError>>(
    leaf: &[u8],
    mut payload: impl FnMut(&Commitment) -> Result<Option<Vec<u8>>, E>,
) -> Result<Decoded, E> {
    let mut kept = Vec::new();
    let mut withheld = Vec::new();
    for commitment in commitments(leaf)? {
        match payload(&commitment)? {
            Some(mut stored) => {
                open_payload(&commitment, &stored)?;
                stored.drain(..SALT_LENGTH);
                kept.push((commitment.field, Some(stored)));
            }
            None => {
                withheld.push(commitment);
                kept.push((commitment.field, None));
            }
        }
    }
    let entry = decode_entry(leaf, &kept)?;
    Ok(Decoded { entry, withheld, sealed: Vec::new() })
}

fn decode_entry(leaf: &[u8], kept: &[(u32, Option<Vec<u8>>)]) -> Result<Entry, DecodeError> {
    let (kind, mut reader) = open(leaf)?;
    let (time, session) = common(&mut reader)?;
    let mut body = Body { reader, kept, used: 0 };
    let event = event(kind, &mut body)?;
    // A commitment to a field that this kind has not, or has as a number.
    if body.used != kept.len() {
        return Err(DecodeError::Unexpected);
    }
    let mut rest = body.reader;
    read_commitments(&mut rest)?;
    rest.finish()?;
    Ok(Entry { time, session, event })
}

fn open(leaf: &[u8]) -> Result<(EventKind, Reader<'_>), DecodeError> {
    let (version, rest) = leaf.split_first().ok_or(DecodeError::Truncated)?;
    if *version != VERSION {
        return Err(DecodeError::UnknownVersion(*version));
    }
    let (kind, rest) = rest.split_first().ok_or(DecodeError::Truncated)?;
    Ok((EventKind::from_byte(*kind).ok_or(DecodeError::UnknownKind(*kind))?, Reader::new(rest)))
}

type Session = Option<(SessionId, u64)>;

fn common(reader: &mut Reader<'_>) -> Result<(Timestamp, Session), DecodeError> {
    let time = Timestamp(reader.fixed(TIME)?);
    let session = match reader.optional(SESSION)? {
        Some(id) => {
            let id = id.try_into().map_err(|_| DecodeError::OutOfRange(SESSION))?;
            Some((SessionId(id), reader.uint(NUMBER)?))
        }
        None => None,
    };
    Ok((time, session))
}

fn read_commitments(reader: &mut Reader<'_>) -> Result<Vec<Commitment>, DecodeError> {
    let mut list: Vec<Commitment> = Vec::new();
    while let Some(bytes) = reader.optional(BESIDE)? {
        let commitment = Commitment::read(bytes)?;
        if list.last().is_some_and(|last| last.field >= commitment.field) {
            return Err(DecodeError::NotCanonical);
        }
        list.push(commitment);
    }
    Ok(list)
}

/// The fields of a kind's own: those in the leaf, and those beside it.
struct Body<'a> {
    reader: Reader<'a>,
    kept: &'a [(u32, Option<Vec<u8>>)],
    used: usize,
}

impl<'a> Body<'a> {
    fn uint(&mut self, field: u32) -> Result<u64, DecodeError> {
        self.reader.uint(field)
    }

    fn uint32(&mut self, field: u32) -> Result<u32, DecodeError> {
        self.reader.uint32(field)
    }

    /// The content of `field` from beside; `Some(None)`: there was one, and it is gone.
    fn beside(&mut self, field: u32) -> Option<Option<&'a [u8]>> {
        let (_, content) = self.kept.iter().find(|(kept, _)| *kept == field)?;
        self.used += 1;
        Some(content.as_deref())
    }

    fn optional(&mut self, field: u32) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.beside(field) {
            Some(content) => Ok(Some(content.unwrap_or_default())),
            None => self.reader.optional(field),
        }
    }

    fn bytes(&mut self, field: u32) -> Result<&'a [u8], DecodeError> {
        match self.beside(field) {
            Some(content) => Ok(content.unwrap_or_default()),
            None => self.reader.bytes(field),
        }
    }

    fn text(&mut self, field: u32) -> Result<String, DecodeError> {
        text(self.bytes(field)?)
    }

    fn optional_text(&mut self, field: u32) -> Result<Option<String>, DecodeError> {
        self.optional(field)?.map(text).transpose()
    }

    /// A message; `T`'s default where it is absent or gone.
    fn message<T: Default>(
        &mut self,
        field: u32,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let bytes = self.bytes(field)?;
        if bytes.is_empty() { Ok(T::default()) } else { message(bytes, read) }
    }
}

fn message<'a, T>(bytes: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn event(kind: EventKind, body: &mut Body<'_>) -> Result<Event, DecodeError> {
    const F: u32 = FIRST_FIELD;
    Ok(match kind {
        EventKind::GatewayStarted => Event::GatewayStarted { version: body.text(F)?, host: body.text(F + 1)? },
        EventKind::GatewayStopped => Event::GatewayStopped { reason: body.text(F)? },
        EventKind::Activated => Event::Activated {
            what: body.text(F)?,
            digest: body.text(F + 1)?,
            previous: body.optional_text(F + 2)?,
            difference: body.message(F + 3, |r| r.list(1))?,
            author: body.optional_text(F + 4)?,
        },
        EventKind::ReloadRefused => Event::ReloadRefused { what: body.text(F)?, error: body.text(F + 1)? },
        EventKind::LoginFailed => Event::LoginFailed {
            source: body.text(F)?,
            protocol: body.text(F + 1)?,
            label: body.text(F + 2)?,
            connection: body.text(F + 3)?,
            reason: body.text(F + 4)?,
        },
        EventKind::SessionStarted => Event::SessionStarted(Box::new(session_started(body)?)),
        EventKind::SessionEnded => Event::SessionEnded {
            reason: body.text(F)?,
            requests: body.uint(F + 1)?,
            bytes_in: body.uint(F + 2)?,
            bytes_out: body.uint(F + 3)?,
        },
        EventKind::Request => Event::Request(Box::new(request(body)?)),
        EventKind::Outcome => Event::Outcome(Box::new(outcome(body)?)),
        EventKind::Approval => Event::Approval {
            request: RequestId(body.uint(F)?),
            step: approval_step(body.uint(F + 1)?, F + 1)?,
            by: body.optional_text(F + 2)?,
            reason: body.optional_text(F + 3)?,
            digest: body.text(F + 4)?,
        },
        EventKind::Administration => Event::Administration {
            by: body.text(F)?,
            action: body.text(F + 1)?,
            object: body.text(F + 2)?,
            details: body.message(F + 3, |r| r.map(1))?,
        },
        EventKind::LogRead => Event::LogRead { by: body.text(F)?, query: body.text(F + 1)? },
        EventKind::ClockJump => Event::ClockJump { micros: unzigzag(body.uint(F)?) },
        EventKind::Heartbeat => Event::Heartbeat,
        EventKind::LogKey => Event::LogKey(Box::new(LogKey {
            origin: body.text(F)?,
            key: body.text(F + 1)?,
            previous: body.optional_text(F + 2)?,
            endorsement: body.optional_text(F + 3)?,
            by: body.text(F + 4)?,
        })),
        EventKind::Destroyed => Event::Destroyed(Box::new(Destroyed {
            rule: body.text(F)?,
            by: body.text(F + 1)?,
            reason: body.optional_text(F + 2)?,
            first: body.uint(F + 3)?,
            next: body.uint(F + 4)?,
            connection: body.optional_text(F + 5)?,
            kinds: body.message(F + 6, |r| r.list(1))?,
            fields: body.message(F + 7, |r| r.list(1))?,
            contents: body.uint(F + 8)?,
        })),
    })
}

fn session_started(body: &mut Body<'_>) -> Result<SessionStarted, DecodeError> {
    const F: u32 = FIRST_FIELD;
    Ok(SessionStarted {
        principal: match body.bytes(F)? {
            // Its kind is always written, so empty means that the payload is gone.
            [] if body.used > 0 => nobody(),
            bytes => message(bytes, principal)?,
        },
        target: match body.bytes(F + 1)? {
            [] => message(&[], target)?,
            bytes => message(bytes, target)?,
        },
        source: body.text(F + 2)?,
        protocol: body.text(F + 3)?,
        label: body.text(F + 4)?,
        application: body.text(F + 5)?,
        tls: body.optional_text(F + 6)?,
        policy_version: body.text(F + 7)?,
        policies: body.message(F + 8, |r| r.list(1))?,
    })
}

/// Stands for a principal that is not kept any more.
fn nobody() -> Principal {
    Principal {
        kind: PrincipalKind::Service,
        issuer: String::new(),
        subject: String::new(),
        tenant: None,
        application: None,
        credential_id: None,
        aliases: Vec::new(),
        roles: Vec::new(),
        claims: Default::default(),
        expires: None,
    }
}

fn principal(r: &mut Reader<'_>) -> Result<Principal, DecodeError> {
    Ok(Principal {
        kind: match r.uint(1)? {
            1 => PrincipalKind::Service,
            2 => PrincipalKind::Agent,
            3 => PrincipalKind::Human,
            _ => return Err(DecodeError::OutOfRange(1)),
        },
        issuer: r.text(2)?,
        subject: r.text(3)?,
        tenant: r.optional_text(4)?,
        application: r.optional_text(5)?,
        credential_id: r.optional_text(6)?,
        aliases: r.list(7)?,
        roles: r.list(8)?,
        claims: r.map(9)?,
        expires: match r.optional(10)? {
            Some(bytes) => Some(Timestamp(message(bytes, |r| r.fixed(1))?)),
            None => None,
        },
    })
}

fn target(r: &mut Reader<'_>) -> Result<Target, DecodeError> {
    Ok(Target {
        connection: r.text(1)?,
        address: r.text(2)?,
        database: r.text(3)?,
        upstream_user: r.text(4)?,
        owner: r.optional_text(5)?,
        tags: r.map(6)?,
    })
}

fn request(body: &mut Body<'_>) -> Result<RequestRecord, DecodeError> {
    const F: u32 = FIRST_FIELD;
    Ok(RequestRecord {
        request: RequestId(body.uint(F)?),
        kind: match body.uint(F + 1)? {
            1 => RequestKind::Connect,
            2 => RequestKind::Query,
            3 => RequestKind::Prepare,
            4 => RequestKind::Execute,
            5 => RequestKind::Command,
            _ => return Err(DecodeError::OutOfRange(F + 1)),
        },
        verdict: verdict(body.uint(F + 2)?, F + 2)?,
        statement: Bytes::copy_from_slice(body.bytes(F + 3)?),
        parameters: body.message(F + 4, parameters)?,
        facts: Arc::new(body.message(F + 5, facts)?),
        policies: body.message(F + 6, |r| r.list(1))?.into_iter().map(Arc::from).collect(),
        policy_version: body.text(F + 7)?.into(),
        reason: body.optional_text(F + 8)?,
    })
}

fn verdict(number: u64, field: u32) -> Result<RecordedVerdict, DecodeError> {
    match number {
        1 => Ok(RecordedVerdict::Allow),
        2 => Ok(RecordedVerdict::Deny),
        3 => Ok(RecordedVerdict::Hold),
        _ => Err(DecodeError::OutOfRange(field)),
    }
}

fn parameters(r: &mut Reader<'_>) -> Result<Vec<Parameter>, DecodeError> {
    let mut list = Vec::new();
    while let Some(bytes) = r.optional(1)? {
        list.push(message(bytes, |r| {
            Ok(Parameter {
                value: r.optional(1)?.map(Bytes::copy_from_slice),
                format: match r.uint(2)? {
                    0 => ValueFormat::Text,
                    1 => ValueFormat::Binary,
                    _ => return Err(DecodeError::OutOfRange(2)),
                },
                type_id: r.uint32(3)?,
            })
        })?);
    }
    Ok(list)
}

fn facts(r: &mut Reader<'_>) -> Result<Facts, DecodeError> {
    let mut operations = Vec::new();
    while let Some(bytes) = r.optional(1)? {
        operations.push(message(bytes, operation)?);
    }
    Ok(Facts {
        operations,
        unknown: r.list(2)?.into_iter().map(|what| Unknown { what }).collect(),
        kinds: r.list(3)?,
        attributes: r.map(4)?,
    })
}

/// The content of a request's facts by itself.
pub(crate) fn facts_alone(bytes: &[u8]) -> Result<Facts, DecodeError> {
    message(bytes, facts)
}

/// The content of a list of texts by itself.
pub(crate) fn list_alone(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    message(bytes, |r| r.list(1))
}

fn operation(r: &mut Reader<'_>) -> Result<Operation, DecodeError> {
    Ok(Operation {
        action: r.text(1)?,
        object: Object {
            kind: match r.uint(2)? {
                1 => ObjectKind::Connection,
                2 => ObjectKind::Database,
                3 => ObjectKind::Schema,
                4 => ObjectKind::Table,
                5 => ObjectKind::Function,
                6 => ObjectKind::Namespace,
                7 => ObjectKind::KubeResource,
                8 => ObjectKind::Host,
                _ => return Err(DecodeError::OutOfRange(2)),
            },
            path: r.list(3)?,
        },
        has_where: match r.uint(4)? {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            _ => return Err(DecodeError::OutOfRange(4)),
        },
    })
}

fn outcome(body: &mut Body<'_>) -> Result<Outcome, DecodeError> {
    const F: u32 = FIRST_FIELD;
    Ok(Outcome {
        request: RequestId(body.uint(F)?),
        status: outcome_status(body.uint(F + 1)?, F + 1)?,
        code: body.optional(F + 2)?.map(Bytes::copy_from_slice),
        tag: body.optional(F + 3)?.map(Bytes::copy_from_slice),
        rows: body.uint(F + 4)?,
        bytes: body.uint(F + 5)?,
        duration_micros: body.uint(F + 6)?,
        columns_passed: body.uint32(F + 7)?,
        columns_masked: body.uint32(F + 8)?,
        columns_refused: body.uint32(F + 9)?,
        masked_classes: body.message(F + 10, |r| r.list(1))?,
    })
}

fn outcome_status(number: u64, field: u32) -> Result<OutcomeStatus, DecodeError> {
    match number {
        1 => Ok(OutcomeStatus::Completed),
        2 => Ok(OutcomeStatus::Failed),
        3 => Ok(OutcomeStatus::Skipped),
        4 => Ok(OutcomeStatus::Refused),
        5 => Ok(OutcomeStatus::Unknown),
        _ => Err(DecodeError::OutOfRange(field)),
    }
}

fn approval_step(number: u64, field: u32) -> Result<ApprovalStep, DecodeError> {
    match number {
        1 => Ok(ApprovalStep::Requested),
        2 => Ok(ApprovalStep::Approved),
        3 => Ok(ApprovalStep::Denied),
        4 => Ok(ApprovalStep::Expired),
        5 => Ok(ApprovalStep::Withdrawn),
        _ => Err(DecodeError::OutOfRange(field)),
    }
}
