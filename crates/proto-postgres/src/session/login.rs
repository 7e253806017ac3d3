//! Asking the caller for its token or key, and hearing what the identity layer says of it.

use super::opening::Opening;
use super::{Core, State};
use crate::error::{Error, Malformed};
use crate::frame::{HEADER, make_room, peek};
use crate::limits::PASSWORD_MAX;
use crate::message::{Authentication, SaslInitialResponse, only_cstr};
use crate::reply;
use crate::types::{ClientTag, ProtocolVersion, SqlState};
use bytes::BytesMut;
use proxy_core::session::{Evidence, LoginAttempt, LoginReply};
use proxy_core::{Action, CloseReason, Input, Peer, SecretBytes};

/// SCRAM bound to the TLS channel, offered first.
const SCRAM_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
/// SCRAM.
const SCRAM: &[u8] = b"SCRAM-SHA-256";

/// Who connects, as its StartupMessage says.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) application: String,
    pub(super) settings: Vec<(String, String)>,
    pub(super) replication: bool,
    pub(super) version: ProtocolVersion,
    /// Whether our certificate has a channel binding: without one, SCRAM-SHA-256-PLUS is not offered.
    pub(super) binding: bool,
}

impl Caller {
    /// A label with a `+` names a machine key, whose secret is proved by SCRAM and never sent.
    fn has_key(&self) -> bool {
        // As the gateway makes them: `k` and ten characters of base 32 behind the last `+`. An OIDC subject may
        // have a `+` of its own.
        let Some((_, key)) = self.user.rsplit_once('+') else { return false };
        key.len() == 11 && key.strip_prefix('k').is_some_and(|rest| rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')))
    }

    fn attempt(&self, evidence: Evidence) -> Action {
        Action::Authenticate(Box::new(LoginAttempt {
            label: self.user.clone(),
            database: self.database.clone(),
            application: self.application.clone(),
            settings: self.settings.clone(),
            evidence,
        }))
    }
}

/// Which message of the login comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    Password,
    SaslInitial,
    SaslResponse,
    Reply,
}

/// The login of a caller.
#[derive(Debug)]
pub(super) struct Login {
    caller: Caller,
    phase: Awaiting,
}

impl Login {
    /// Asks for the credential.
    pub(super) fn begin(core: &mut Core, caller: Caller) -> State {
        let phase = if caller.has_key() {
            let mechanisms = if caller.binding { vec![SCRAM_PLUS, SCRAM] } else { vec![SCRAM] };
            core.send(|out| Authentication::Sasl(mechanisms).encode(out));
            Awaiting::SaslInitial
        } else {
            core.send(|out| Authentication::CleartextPassword.encode(out));
            Awaiting::Password
        };
        State::Login(Box::new(Self { caller, phase }))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "`otherwise` lists every input")]
    pub(super) fn handle(mut self: Box<Self>, core: &mut Core, input: Input<'_>) -> State {
        match input {
            Input::Bytes { from: Peer::Client, buffer } if self.phase != Awaiting::Reply => match self.credential(core, buffer) {
                Ok(true) => {
                    self.phase = Awaiting::Reply;
                    State::Login(self)
                }
                Ok(false) => State::Login(self),
                Err(error) => core.client_error(&error),
            },
            Input::Login(reply) if self.phase == Awaiting::Reply => self.reply(core, reply),
            input => core.otherwise(input, State::Login(self)),
        }
    }

    /// Reads the credential; `false`: it is not whole yet.
    fn credential(&self, core: &mut Core, buffer: &mut BytesMut) -> Result<bool, Error> {
        let Some(header) = peek(buffer).map_err(Error::ClientMalformed)? else { return Ok(false) };
        if ClientTag(header.tag) != ClientTag::PASSWORD {
            return Err(Error::ClientViolation { state: "login", got: header.tag });
        }
        // Before anything is buffered for a caller that is not known.
        if header.total > PASSWORD_MAX.saturating_add(HEADER) {
            return Err(Error::ClientMalformed(Malformed::Length));
        }
        if buffer.len() < header.total {
            make_room(buffer, header.total);
            return Ok(false);
        }
        let mut frame = buffer.split_to(header.total);
        let evidence = self.evidence(frame.get(HEADER..).unwrap_or_default());
        // The read buffer lives on: no copy of the credential stays in it.
        frame.fill(0);
        core.push(self.caller.attempt(evidence.map_err(Error::ClientMalformed)?));
        Ok(true)
    }

    fn evidence(&self, body: &[u8]) -> Result<Evidence, Malformed> {
        match self.phase {
            Awaiting::Password => only_cstr(body).map(|text| Evidence::Password(SecretBytes::new(text.to_vec()))),
            Awaiting::SaslInitial => {
                let initial = SaslInitialResponse::parse(body)?;
                if initial.mechanism != SCRAM && !(self.caller.binding && initial.mechanism == SCRAM_PLUS) {
                    return Err(Malformed::Value);
                }
                let mechanism = String::from_utf8_lossy(initial.mechanism).into_owned();
                Ok(Evidence::SaslInitial { mechanism, data: initial.data.unwrap_or_default().to_vec() })
            }
            Awaiting::SaslResponse | Awaiting::Reply => Ok(Evidence::SaslResponse(body.to_vec())),
        }
    }

    fn reply(mut self: Box<Self>, core: &mut Core, reply: LoginReply) -> State {
        match reply {
            LoginReply::Challenge(data) if self.caller.has_key() => {
                core.send(|out| Authentication::SaslContinue(&data).encode(out));
                self.phase = Awaiting::SaslResponse;
                State::Login(self)
            }
            // Nothing in a password login can be challenged: fail closed.
            LoginReply::Challenge(_) => {
                core.fatal(SqlState::SYSTEM_ERROR, "the gateway cannot check this login", "", CloseReason::LoginRefused)
            }
            LoginReply::Accepted { last, upstream } => {
                if let Some(data) = last {
                    core.send(|out| Authentication::SaslFinal(&data).encode(out));
                }
                Opening::begin(core, self.caller, upstream)
            }
            LoginReply::Refused { kind, message, hint } => {
                core.send_client(reply::login_refused(kind, &message, &hint, core.config.id));
                core.close(CloseReason::LoginRefused)
            }
        }
    }
}
