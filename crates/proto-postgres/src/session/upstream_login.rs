//! The gateway's own login at the target, with the target's credential, which never comes here.

use super::login::Caller;
use super::ready::Ready;
use super::{Core, State};
use crate::dialect::Dialect;
use crate::error::Error;
use crate::frame::{Frame, Reader, make_room, peek, write};
use crate::limits::{UPSTREAM_GREETING_MAX, UPSTREAM_LOGIN_MESSAGE_MAX};
use crate::message::{
    Authentication, BackendKeyData, ErrorFields, ParameterStatus, SaslInitialResponse, StartupPacket, TransactionStatus,
};
use crate::types::{ClientTag, ProtocolVersion, SqlState, UpstreamTag};
use bytes::{Bytes, BytesMut};
use proxy_core::pipeline::Permit;
use proxy_core::session::{UpstreamChallenge, UpstreamFailure, UpstreamLogin as Target};
use proxy_core::{Action, CloseReason, Input, Peer, SecretBytes};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitingConnected,
    AwaitingTlsAnswer,
    AwaitingTls,
    AwaitingAuthentication,
    AwaitingAnswer(Asked),
    Settling,
}

/// What the upstream asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Password,
    SaslStart,
    SaslContinue,
    SaslFinal,
}

/// What the upstream says between its AuthenticationOk and its first ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// ParameterStatus and NoticeResponse, as they came.
    pub(super) messages: BytesMut,
    /// The key that cancels at the upstream.
    pub(super) key: Option<(u32, Bytes)>,
    /// How the upstream reads text.
    pub(super) dialect: Dialect,
}

/// Logging in upstream.
#[derive(Debug)]
pub(super) struct UpstreamLogin {
    caller: Caller,
    target: Target,
    permit: Permit,
    phase: Phase,
    greeting: Greeting,
    /// SASL has begun, and the server's closing message, which proves that it knows the credential, was not
    /// checked yet: an AuthenticationOk now would be a server that skips its own proof.
    unproven: bool,
}

/// How a frame of the upstream ends the phase.
enum Step {
    Next,
    Wait,
    End(State),
}

impl UpstreamLogin {
    /// Connects.
    pub(super) fn begin(core: &mut Core, caller: Caller, target: Target, permit: Permit) -> State {
        core.push(Action::Connect(permit));
        let greeting = Greeting::default();
        State::UpstreamLogin(Box::new(Self {
            caller,
            target,
            permit,
            phase: Phase::AwaitingConnected,
            greeting,
            unproven: false,
        }))
    }

    pub(super) fn handle(mut self: Box<Self>, core: &mut Core, input: Input<'_>) -> State {
        match (self.phase, input) {
            (Phase::AwaitingConnected, Input::Connected(Ok(()))) => {
                if self.target.tls {
                    self.send(core, |out| StartupPacket::SslRequest.encode(out));
                    self.phase = Phase::AwaitingTlsAnswer;
                } else {
                    self.start(core);
                }
                State::UpstreamLogin(self)
            }
            (Phase::AwaitingTls, Input::Tls { peer: Peer::Upstream, .. }) => {
                self.start(core);
                State::UpstreamLogin(self)
            }
            (_, Input::Connected(Err(failure))) => core.upstream_failed(failure),
            (Phase::AwaitingTlsAnswer, Input::Bytes { from: Peer::Upstream, buffer }) => self.tls_answer(core, buffer),
            (Phase::AwaitingAuthentication | Phase::Settling, Input::Bytes { from: Peer::Upstream, buffer }) => {
                self.frames(core, buffer)
            }
            (Phase::AwaitingAnswer(asked), Input::UpstreamAnswer(Ok(answer))) => self.answer(core, asked, &answer),
            (Phase::AwaitingAnswer(_), Input::UpstreamAnswer(Err(failure))) => core.upstream_failed(failure),
            (_, input) => core.otherwise(input, State::UpstreamLogin(self)),
        }
    }

    fn send(&self, core: &mut Core, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        core.push(Action::SendUpstream { bytes: out.freeze(), permit: self.permit });
    }

    /// Exactly one byte: what follows it in the clear could be taken for what TLS protects (CVE-2021-3935).
    fn tls_answer(mut self: Box<Self>, core: &mut Core, buffer: &mut BytesMut) -> State {
        match &buffer[..] {
            [] => State::UpstreamLogin(self),
            b"S" => {
                buffer.clear();
                core.push(Action::StartTls(Peer::Upstream));
                self.phase = Phase::AwaitingTls;
                State::UpstreamLogin(self)
            }
            [b'N'] => core.upstream_failed(UpstreamFailure::Tls),
            _ => {
                buffer.clear();
                core.upstream_failed(UpstreamFailure::Protocol)
            }
        }
    }

    /// The StartupMessage. Version 3.0 serves: what 3.2 adds is the length of cancel keys, and the client's
    /// key is the gateway's own.
    fn start(&mut self, core: &mut Core) {
        let login = [("user", self.target.user.as_str()), ("database", self.target.database.as_str())];
        let settings = self.caller.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all = login.into_iter().chain(settings).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.send(core, |out| StartupPacket::encode_startup(ProtocolVersion::V3_0, all, out));
        self.phase = Phase::AwaitingAuthentication;
    }

    fn frames(mut self: Box<Self>, core: &mut Core, buffer: &mut BytesMut) -> State {
        loop {
            match peek(buffer) {
                Ok(Some(header)) if header.total > UPSTREAM_LOGIN_MESSAGE_MAX => {
                    return core.upstream_error(&Error::UpstreamLimit {
                        got: header.tag,
                        length: header.total,
                        limit: UPSTREAM_LOGIN_MESSAGE_MAX,
                    });
                }
                Ok(Some(header)) if buffer.len() < header.total => {
                    make_room(buffer, header.total);
                    return State::UpstreamLogin(self);
                }
                Ok(Some(_)) => {}
                Ok(None) => return State::UpstreamLogin(self),
                Err(malformed) => return core.upstream_error(&Error::UpstreamMalformed(malformed)),
            }
            let frame = match Frame::decode(buffer, UPSTREAM_LOGIN_MESSAGE_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => return State::UpstreamLogin(self),
                Err(malformed) => return core.upstream_error(&Error::UpstreamMalformed(malformed)),
            };
            match self.frame(core, &frame) {
                Ok(Step::Next) => {}
                Ok(Step::Wait) => return State::UpstreamLogin(self),
                Ok(Step::End(state)) => return state,
                Err(error) => return core.upstream_error(&error),
            }
        }
    }

    fn frame(&mut self, core: &mut Core, frame: &Frame) -> Result<Step, Error> {
        let body = frame.body();
        let violation = Error::UpstreamViolation { state: "login", got: frame.tag() };
        let malformed = Error::UpstreamMalformed;
        match (UpstreamTag(frame.tag()), self.phase) {
            (UpstreamTag::AUTHENTICATION, Phase::AwaitingAuthentication) => {
                Ok(self.authentication(core, Authentication::parse(&body).map_err(malformed)?))
            }
            (UpstreamTag::ERROR_RESPONSE, _) => Ok(Step::End(refused(core, &ErrorFields::parse(&body).map_err(malformed)?))),
            (UpstreamTag::NOTICE_RESPONSE, _) => self.collect(frame),
            (UpstreamTag::PARAMETER_STATUS, Phase::Settling) => {
                let status = ParameterStatus::parse(&body).map_err(malformed)?;
                self.greeting.dialect.hear(&status);
                self.collect(frame)
            }
            (UpstreamTag::BACKEND_KEY_DATA, Phase::Settling) => {
                let key = BackendKeyData::parse(&body).map_err(malformed)?;
                self.greeting.key = Some((key.process, Bytes::copy_from_slice(key.secret)));
                Ok(Step::Next)
            }
            (UpstreamTag::READY_FOR_QUERY, Phase::Settling) => {
                let status = TransactionStatus::parse(&body).map_err(malformed)?;
                Ok(Step::End(self.ready(core, status)))
            }
            _ => Err(violation),
        }
    }

    fn collect(&mut self, frame: &Frame) -> Result<Step, Error> {
        self.greeting.messages.extend_from_slice(frame.bytes());
        let length = self.greeting.messages.len();
        if length > UPSTREAM_GREETING_MAX {
            return Err(Error::UpstreamLimit { got: frame.tag(), length, limit: UPSTREAM_GREETING_MAX });
        }
        Ok(Step::Next)
    }

    fn authentication(&mut self, core: &mut Core, asked: Authentication<'_>) -> Step {
        let (challenge, asked) = match asked {
            Authentication::Ok if self.unproven => return Step::End(core.upstream_failed(UpstreamFailure::Credential)),
            Authentication::Ok => {
                self.phase = Phase::Settling;
                return Step::Next;
            }
            Authentication::CleartextPassword => (UpstreamChallenge::Cleartext, Asked::Password),
            Authentication::Md5Password(salt) => (UpstreamChallenge::Md5(salt), Asked::Password),
            Authentication::Sasl(mechanisms) => {
                let names = mechanisms.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                self.unproven = true;
                (UpstreamChallenge::SaslStart(names), Asked::SaslStart)
            }
            Authentication::SaslContinue(data) => (UpstreamChallenge::SaslContinue(data.to_vec()), Asked::SaslContinue),
            Authentication::SaslFinal(data) => (UpstreamChallenge::SaslFinal(data.to_vec()), Asked::SaslFinal),
            // GSSAPI, SSPI and whatever comes.
            Authentication::Other(..) => return Step::End(core.upstream_failed(UpstreamFailure::Credential)),
        };
        core.push(Action::AnswerUpstream(challenge));
        self.phase = Phase::AwaitingAnswer(asked);
        Step::Wait
    }

    fn answer(mut self: Box<Self>, core: &mut Core, asked: Asked, answer: &SecretBytes) -> State {
        let bytes = answer.expose();
        match asked {
            Asked::Password => self.send(core, |out| {
                write(out, ClientTag::PASSWORD.0, |out| {
                    out.extend_from_slice(bytes);
                    out.extend_from_slice(b"\0");
                });
            }),
            Asked::SaslStart => {
                let mut reader = Reader::new(bytes);
                let Ok(mechanism) = reader.cstr() else { return core.upstream_failed(UpstreamFailure::Credential) };
                let initial = SaslInitialResponse { mechanism, data: Some(reader.rest()) };
                self.send(core, |out| initial.encode(out));
            }
            Asked::SaslContinue => self.send(core, |out| write(out, ClientTag::PASSWORD.0, |out| out.extend_from_slice(bytes))),
            Asked::SaslFinal => self.unproven = false,
        }
        self.phase = Phase::AwaitingAuthentication;
        State::UpstreamLogin(self)
    }

    /// The client hears that it is in: what the upstream said of itself, and a key of the gateway's own.
    fn ready(&mut self, core: &mut Core, status: TransactionStatus) -> State {
        let greeting = std::mem::take(&mut self.greeting);
        if let Some((message, hint)) = greeting.dialect.unreadable() {
            return core.fatal(SqlState::NOT_SUPPORTED, message, hint, CloseReason::LoginRefused);
        }
        let key = core.config.cancel_key.clone();
        let length = if self.caller.version >= ProtocolVersion::V3_2 { key.secret.len() } else { 4 };
        let mut out = BytesMut::with_capacity(greeting.messages.len().saturating_add(64));
        Authentication::Ok.encode(&mut out);
        out.extend_from_slice(&greeting.messages);
        BackendKeyData { process: key.process, secret: key.secret.get(..length).unwrap_or(&key.secret) }.encode(&mut out);
        status.encode(&mut out);
        core.send_client(out.freeze());
        core.push(Action::Established);
        State::Ready(Box::new(Ready::new(core, self.permit, greeting.key, greeting.dialect)))
    }
}

/// The upstream refuses. Its own words could name the credential: the client gets ours.
fn refused(core: &mut Core, fields: &ErrorFields<'_>) -> State {
    let upstream = String::from_utf8_lossy(fields.code()).into_owned();
    let unreachable = CloseReason::UpstreamFailed(UpstreamFailure::Unreachable);
    match fields.code() {
        b"53300" => core.fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "the target has no free connection (SQLSTATE 53300)",
            "Try again later.",
            unreachable,
        ),
        b"57P03" => core.fatal(
            SqlState::CANNOT_CONNECT_NOW,
            "the target does not take connections now (SQLSTATE 57P03)",
            "Try again later.",
            unreachable,
        ),
        b"3D000" => core.fatal(
            SqlState::INVALID_DATABASE,
            "the database does not exist on the target (SQLSTATE 3D000)",
            "Name the database as CONNECTION/DATABASE, or CONNECTION for its default.",
            unreachable,
        ),
        // A setting of the client's own start: these texts quote its name and value, nothing else.
        code @ (b"22023" | b"42704") => {
            let text = String::from_utf8_lossy(fields.get(b'M').unwrap_or_default()).into_owned();
            let code = if code == b"22023" { SqlState::INVALID_PARAMETER } else { SqlState::UNDEFINED_OBJECT };
            core.fatal(code, &format!("the target refused a startup setting: {text}"), "", unreachable)
        }
        _ => core.fatal(
            SqlState::CANNOT_CONNECT,
            &format!("the gateway could not log in to the target (SQLSTATE {upstream})"),
            "Tell the gateway's operator: the target refused the gateway's own login.",
            CloseReason::UpstreamFailed(UpstreamFailure::Credential),
        ),
    }
}
