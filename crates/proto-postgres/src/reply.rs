//! Denials and errors in the protocol's own words: what a client may see is made here and nowhere else.
//!
//! <https://www.postgresql.org/docs/current/protocol-error-fields.html>

use crate::error::Malformed;
use crate::frame::{put_cstr, write};
use crate::message::ErrorFields;
use crate::types::{SqlState, UpstreamTag};
use bytes::{BufMut, Bytes, BytesMut};
use proxy_core::SessionId;
use proxy_core::session::{Denial, DenialKind, EndReason, LoginRefusal, Notice};

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// A remark.
    Notice,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
        }
    }
}

/// An error or a notice of the gateway's own.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Severity.
    pub severity: Severity,
    /// SQLSTATE.
    pub code: SqlState,
    /// Primary message.
    pub message: &'a str,
    /// Detail; empty: none.
    pub detail: &'a str,
    /// Hint; empty: none.
    pub hint: &'a str,
}

impl<'a> Reply<'a> {
    /// A FATAL error.
    #[must_use]
    pub fn fatal(code: SqlState, message: &'a str, detail: &'a str, hint: &'a str) -> Self {
        Self { severity: Severity::Fatal, code, message, detail, hint }
    }

    /// An ERROR.
    #[must_use]
    pub fn error(code: SqlState, message: &'a str, detail: &'a str, hint: &'a str) -> Self {
        Self { severity: Severity::Error, code, message, detail, hint }
    }

    /// Appends the ErrorResponse or NoticeResponse.
    pub fn encode(&self, out: &mut BytesMut) {
        let tag = match self.severity {
            Severity::Error | Severity::Fatal => UpstreamTag::ERROR_RESPONSE,
            Severity::Notice => UpstreamTag::NOTICE_RESPONSE,
        };
        write(out, tag.0, |out| {
            let mut field = |kind: u8, text: &str| {
                if !text.is_empty() {
                    out.put_u8(kind);
                    put_cstr(out, text.as_bytes());
                }
            };
            field(b'S', self.severity.as_str());
            field(b'V', self.severity.as_str());
            field(b'C', self.code.0);
            field(b'M', if self.message.is_empty() { "refused" } else { self.message });
            field(b'D', self.detail);
            field(b'H', self.hint);
            out.put_u8(0);
        });
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        self.encode(&mut out);
        out.freeze()
    }
}

/// The error for a denial.
#[must_use]
pub fn denial(severity: Severity, denial: &Denial) -> Bytes {
    let code = match denial.kind {
        DenialKind::Policy | DenialKind::Approval => SqlState::INSUFFICIENT_PRIVILEGE,
        DenialKind::Cancelled => SqlState::QUERY_CANCELED,
        DenialKind::StoreUnavailable => SqlState::IO_ERROR,
        DenialKind::Limit => SqlState::LIMIT_EXCEEDED,
        DenialKind::Unreadable => SqlState::NOT_SUPPORTED,
    };
    Reply { severity, code, message: &denial.message, detail: &denial.detail, hint: &denial.hint }.frame()
}

/// The notice for a held request.
#[must_use]
pub fn held(notice: &Notice) -> Bytes {
    Reply { severity: Severity::Notice, code: SqlState::SUCCESS, message: &notice.message, detail: "", hint: &notice.hint }
        .frame()
}

/// The error for a refused login.
#[must_use]
pub fn login_refused(kind: LoginRefusal, message: &str, hint: &str, session: SessionId) -> Bytes {
    let code = match kind {
        LoginRefusal::Credential => SqlState::INVALID_PASSWORD,
        LoginRefusal::NotAllowed => SqlState::INVALID_AUTHORIZATION,
        LoginRefusal::TooMany => SqlState::TOO_MANY_CONNECTIONS,
        LoginRefusal::Unavailable => SqlState::SYSTEM_ERROR,
    };
    Reply::fatal(code, message, &detail(session), hint).frame()
}

/// The error for a session that the gateway ends.
#[must_use]
pub fn ended(reason: &EndReason, session: SessionId) -> Bytes {
    let (code, message, hint) = match reason {
        EndReason::Killed => (SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command", ""),
        EndReason::Expired => (
            SqlState::ADMIN_SHUTDOWN,
            "terminating connection: the token or key of this session has expired",
            "Connect again with a fresh token.",
        ),
        EndReason::Revoked => (SqlState::ADMIN_SHUTDOWN, "terminating connection: the key of this session was revoked", ""),
        EndReason::PolicyChanged => {
            (SqlState::ADMIN_SHUTDOWN, "terminating connection: policy no longer permits this session", "")
        }
        EndReason::Shutdown => {
            (SqlState::ADMIN_SHUTDOWN, "terminating connection: the gateway is shutting down", "Connect again.")
        }
        EndReason::LoginTimeout => (SqlState::INVALID_AUTHORIZATION, "canceling authentication due to timeout", ""),
        EndReason::IdleTimeout => (SqlState::IDLE_TIMEOUT, "terminating connection due to idle-session timeout", ""),
        EndReason::PeerFailed(_) => (SqlState::CONNECTION_FAILURE, "the connection to the target failed", "Connect again."),
        EndReason::StoreUnavailable => (SqlState::IO_ERROR, "terminating connection: the gateway cannot record this session", ""),
    };
    Reply::fatal(code, message, &detail(session), hint).frame()
}

/// The detail that names the session: what an administrator finds the record with.
#[must_use]
pub fn detail(session: SessionId) -> String {
    format!("Session {session}.")
}

/// What a client gets in place of a message that may quote masked values.
pub const WITHHELD: &str = "message withheld by the gateway: it may quote masked values";

/// Messages of the server that are always the same: whoever could choose one of them would say no more than which.
const FIXED: [&[u8]; 24] = [
    b"cached plan must not change result type",
    b"canceling statement due to conflict with recovery",
    b"canceling statement due to lock timeout",
    b"canceling statement due to statement timeout",
    b"canceling statement due to user request",
    b"could not serialize access due to concurrent delete",
    b"could not serialize access due to concurrent update",
    b"could not serialize access due to read/write dependencies among transactions",
    b"current transaction is aborted, commands ignored until end of transaction block",
    b"deadlock detected",
    b"out of memory",
    b"out of shared memory",
    b"stack depth limit exceeded",
    b"terminating connection because of crash of another server process",
    b"terminating connection due to administrator command",
    b"terminating connection due to conflict with recovery",
    b"terminating connection due to idle-in-transaction timeout",
    b"terminating connection due to idle-session timeout",
    b"terminating connection due to transaction timeout",
    b"terminating connection due to unexpected postmaster exit",
    b"the database system is in recovery mode",
    b"the database system is not accepting connections",
    b"the database system is shutting down",
    b"the database system is starting up",
];

/// Rebuilds an error or notice of the upstream without what may quote values: severity, code and position pass; the
/// message only where it cannot hold a value.
///
/// A code does not tell: `email::regclass` fails with "relation "…" does not exist", and a function raises what it
/// likes. A position does: the server gives one where it reads the statement's own text, before any row is read, and
/// turns that of an inner statement into another field (`p`). So a syntax error or an unknown column can be read.
///
/// # Errors
/// [`Malformed`]: the upstream's message cannot be read.
pub fn withhold(tag: UpstreamTag, body: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
    let fields = ErrorFields::parse(body)?;
    let speaks_of_names = [&b"0A"[..], b"42"].contains(&fields.code().get(..2).unwrap_or_default());
    let of_the_text = speaks_of_names && fields.get(b'P').is_some_and(|position| !position.is_empty());
    let mut kept: Vec<(u8, &[u8])> = Vec::with_capacity(5);
    for (kind, text) in &fields.fields {
        match *kind {
            b'S' | b'V' | b'C' | b'P' => kept.push((*kind, *text)),
            b'M' if of_the_text || FIXED.contains(text) => kept.push((*kind, *text)),
            b'M' => kept.push((*kind, WITHHELD.as_bytes())),
            _ => {}
        }
    }
    ErrorFields { fields: kept }.encode(tag, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_a_native_error() {
        let bytes = denial(
            Severity::Error,
            &Denial {
                kind: DenialKind::Policy,
                message: "delete on table public.orders is forbidden".into(),
                detail: "Session x.".into(),
                hint: "Ask payments.".into(),
            },
        );
        assert_eq!(
            &bytes[..],
            &b"E\0\0\0\x75SERROR\0VERROR\0C42501\0Mdelete on table public.orders is forbidden\0DSession x.\0HAsk payments.\0\0"
                [..5]
                .iter()
                .copied()
                .enumerate()
                .map(|(i, b)| if i == 4 { u8::try_from(bytes.len() - 1).unwrap() } else { b })
                .chain(
                    b"SERROR\0VERROR\0C42501\0Mdelete on table public.orders is forbidden\0DSession x.\0HAsk payments.\0\0"
                        .iter()
                        .copied()
                )
                .collect::<Vec<u8>>()[..]
        );
    }

    #[test]
    fn error_details_that_quote_a_masked_value_are_withheld() {
        let mut out = BytesMut::new();
        let body = b"SERROR\0VERROR\0C23505\0Mduplicate key a@b.c\0DKey (email)=(a@b.c) already exists.\0P12\0\0";
        withhold(UpstreamTag::ERROR_RESPONSE, body, &mut out).unwrap();
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(!text.contains("a@b.c"), "{text}");
        assert!(text.contains("C23505\0") && text.contains(WITHHELD) && text.contains("P12\0"));
        out.clear();
        let body = b"SERROR\0VERROR\0C42P01\0Mrelation \"x\" does not exist\0Dq\0Wwhere\0P15\0\0";
        withhold(UpstreamTag::ERROR_RESPONSE, body, &mut out).unwrap();
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("does not exist") && !text.contains("where") && !text.contains("Dq"));
    }

    #[test]
    fn a_message_passes_only_where_it_cannot_quote_a_value() {
        for (fields, passes) in [
            // What the statement's own text says, and where.
            ("C42703\0Mcolumn \"nme\" does not exist\0P8", true),
            ("C42601\0Msyntax error at or near \"SELEC\"\0P1", true),
            ("C0A000\0Mcannot insert into a view\0P13", true),
            // The same codes, of values: email::regclass, to_tsquery(email), a large object's number.
            ("C42P01\0Mrelation \"a@b.c\" does not exist", false),
            ("C42P01\0Mrelation \"a@b.c\" does not exist\0P", false),
            ("C42601\0Msyntax error in tsquery: \"a@b.c\"", false),
            ("C42501\0Mpermission denied for large object 4111", false),
            // Within a function: the position is of the inner statement.
            ("C42P01\0Mrelation \"a@b.c\" does not exist\0p15\0qSELECT * FROM \"a@b.c\"", false),
            ("C22P02\0Minvalid input syntax for type integer: \"a@b.c\"\0P8", false),
            ("C54000\0Mword is too long in tsquery: \"a@b.c\"", false),
            // Any code can be raised with any text; these texts are always the same.
            ("C57014\0Ma@b.c", false),
            ("C57014\0Mcanceling statement due to user request", true),
            ("C40001\0Mcould not serialize access due to concurrent update\0Da@b.c", true),
            ("C57P01\0Mterminating connection due to administrator command", true),
        ] {
            let body = format!("SERROR\0VERROR\0{fields}\0\0");
            let mut out = BytesMut::new();
            withhold(UpstreamTag::ERROR_RESPONSE, body.as_bytes(), &mut out).unwrap();
            let text = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(!text.contains(WITHHELD), passes, "{fields}: {text}");
            assert!(!text.contains("a@b.c") && text.contains(&fields[..7]), "{fields}: {text}");
        }
    }
}
