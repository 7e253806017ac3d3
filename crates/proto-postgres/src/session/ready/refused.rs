//! Requests that the session refuses by itself: over a limit, or not readable as the server would read them.
//! They ask for a verdict like any other, so they are recorded as denied, in order.

use super::Ready;
use super::client::Span;
use super::queue::{End, Gate, Step};
use crate::dialect::Dialect;
use crate::error::{Error, Malformed};
use crate::facts;
use crate::frame::HEADER;
use crate::session::Core;
use crate::types::ClientTag;
use bytes::{Buf, Bytes, BytesMut};
use proxy_core::limits::SessionLimits;
use proxy_core::session::DenialKind;
use proxy_core::{Excerpt, Excerpting, Refusal, RequestKind, Statement};

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Why {
    kind: DenialKind,
    message: String,
    hint: &'static str,
}

impl Why {
    fn limit(message: String, hint: &'static str) -> Self {
        Self { kind: DenialKind::Limit, message, hint }
    }

    /// A statement of `length` bytes cannot be read, or is too long.
    pub(super) fn unread(dialect: &Dialect, limits: &SessionLimits, length: usize) -> Option<Self> {
        if let Some((message, hint)) = dialect.unreadable() {
            return Some(Self { kind: DenialKind::Unreadable, message: message.to_owned(), hint });
        }
        let message = || format!("the statement is longer than the gateway's limit of {} bytes", limits.statement_max);
        (length > limits.statement_max).then(|| Self::limit(message(), "Pass long values as parameters, or use COPY."))
    }

    /// The session has no more memory for `what`.
    pub(super) fn memory(what: &str) -> Self {
        Self::limit(format!("the session has no more memory for {what}"), "Close statements and portals that are not used.")
    }

    fn message(limits: &SessionLimits) -> Self {
        let message = format!("the message is longer than the gateway's limit of {} bytes", limits.message_max);
        Self::limit(message, "Split the value, or use COPY.")
    }

    fn refuse(self, excerpt: Excerpt) -> Statement {
        let Self { kind, message, hint } = self;
        Statement::Refused(Box::new(Refusal { kind, message, hint: hint.to_owned(), excerpt }))
    }

    /// The refusal of a statement with this text.
    pub(super) fn of(self, text: &Bytes) -> Statement {
        self.refuse(Excerpt::of(text))
    }
}

/// A message over the limit, while its bytes go by.
#[derive(Debug)]
pub(super) struct Oversized {
    tag: ClientTag,
    left: usize,
    /// Whether the excerpt has begun: a Parse's name comes before its text.
    begun: bool,
    taking: Excerpting,
}

impl Oversized {
    fn take(&mut self, mut bytes: &[u8]) {
        self.left = self.left.saturating_sub(bytes.len());
        if !self.begun {
            let name = bytes.iter().position(|byte| *byte == 0);
            self.begun = name.is_some();
            bytes = name.and_then(|at| bytes.get(at.saturating_add(1)..)).unwrap_or_default();
        }
        self.taking.take(bytes);
    }
}

impl Ready {
    /// Adds a message of the extended protocol that is refused.
    pub(super) fn refuse_message(&mut self, core: &mut Core, span: Span, kind: RequestKind, refused: Statement) {
        let (step, ends) = match kind {
            RequestKind::Query => (Some(Step::Query), End::Query),
            RequestKind::Command => (Some(Step::FunctionCall), End::FunctionCall),
            RequestKind::Connect | RequestKind::Prepare | RequestKind::Execute => (None, End::Middle),
        };
        let id = self.next_request();
        self.push(span, step, Gate::Awaiting(id), ends);
        core.decide(facts::request(id, kind, refused));
    }

    /// A message that is longer than may be held: its bytes are dropped as they come, then it is refused.
    pub(super) fn oversized(&mut self, buffer: &mut BytesMut, tag: ClientTag, total: usize) -> Result<(), Error> {
        if self.skip {
            self.discard_left = total;
            return Ok(());
        }
        if !matches!(tag, ClientTag::QUERY | ClientTag::FUNCTION_CALL | ClientTag::PARSE | ClientTag::BIND) {
            return Err(Error::ClientMalformed(Malformed::Length));
        }
        buffer.advance(HEADER.min(buffer.len()));
        let left = total.saturating_sub(HEADER);
        self.oversized = Some(Box::new(Oversized { tag, left, begun: tag != ClientTag::PARSE, taking: Excerpting::default() }));
        Ok(())
    }

    /// Takes what is there of a message over the limit. `false`: more must come.
    pub(super) fn take_oversized(&mut self, core: &mut Core, buffer: &mut BytesMut) -> bool {
        let Some(mut oversized) = self.oversized.take() else { return true };
        let n = oversized.left.min(buffer.len());
        oversized.take(buffer.get(..n).unwrap_or_default());
        buffer.advance(n);
        if oversized.left > 0 {
            self.oversized = Some(oversized);
            return false;
        }
        if self.skip {
            return true;
        }
        self.settle_parsed(core);
        let kind = match oversized.tag {
            ClientTag::QUERY => RequestKind::Query,
            ClientTag::PARSE => RequestKind::Prepare,
            ClientTag::BIND => RequestKind::Execute,
            _ => RequestKind::Command,
        };
        let refused = Why::message(&core.config.limits).refuse(oversized.taking.finish());
        self.refuse_message(core, Span { start: 0, end: 0 }, kind, refused);
        true
    }
}
