//! From the first byte to the StartupMessage: TLS, cancel requests, versions.
//!
//! `ProcessStartupPacket` in src/backend/tcop/backend_startup.c is the model.

use super::login::{Caller, Login};
use super::{ClientTls, Core, State};
use crate::error::{Error, Malformed};
use crate::message::{NegotiateProtocolVersion, StartupPacket, split_options};
use crate::types::{ProtocolVersion, SqlState};
use bytes::{Bytes, BytesMut};
use proxy_core::session::{CancelKey, TlsInfo};
use proxy_core::{Action, CloseReason, Input, Peer};

/// First byte of a TLS handshake record: direct TLS (PostgreSQL 17).
const TLS_HANDSHAKE: u8 = 0x16;

/// The application protocol that a direct TLS client must name.
const ALPN: &[u8] = b"postgresql";

/// Waiting for a start-up packet.
#[derive(Debug, Default)]
pub(super) struct Startup {
    tls: Option<TlsInfo>,
    ssl_asked: bool,
    gss_asked: bool,
}

/// Waiting for TLS with the client.
#[derive(Debug)]
pub(super) struct AwaitingClientTls {
    direct: bool,
}

impl AwaitingClientTls {
    #[expect(clippy::wildcard_enum_match_arm, reason = "`otherwise` lists every input")]
    pub(super) fn handle(self, core: &mut Core, input: Input<'_>) -> State {
        match input {
            Input::Tls { peer: Peer::Client, info } => {
                if self.direct && info.alpn.as_deref() != Some(ALPN) {
                    return core.fatal(
                        SqlState::PROTOCOL_VIOLATION,
                        "received direct SSL connection request without ALPN protocol negotiation extension",
                        "Use sslnegotiation=postgres, or a client that offers ALPN \"postgresql\".",
                        CloseReason::ClientViolation("direct TLS without ALPN postgresql".into()),
                    );
                }
                State::Startup(Startup { tls: Some(info), ssl_asked: true, gss_asked: true })
            }
            input => core.otherwise(input, State::AwaitingClientTls(self)),
        }
    }
}

impl Startup {
    #[expect(clippy::wildcard_enum_match_arm, reason = "`otherwise` lists every input")]
    pub(super) fn handle(mut self, core: &mut Core, input: Input<'_>) -> State {
        let buffer = match input {
            Input::Bytes { from: Peer::Client, buffer } => buffer,
            input => return core.otherwise(input, State::Startup(self)),
        };
        loop {
            match self.packet(core, buffer) {
                Ok(Some(state)) => return state,
                Ok(None) => return State::Startup(self),
                Err(()) => {}
            }
        }
    }

    /// Handles the packet at the front. `Err(())`: it was answered, go on with the next.
    fn packet(&mut self, core: &mut Core, buffer: &mut BytesMut) -> Result<Option<State>, ()> {
        let Some(first) = buffer.first() else { return Ok(None) };
        if *first == TLS_HANDSHAKE && self.tls.is_none() && !self.ssl_asked && core.config.client_tls != ClientTls::Off {
            // The handshake's bytes stay in the buffer: the driver gives them to TLS.
            core.push(Action::StartTls(Peer::Client));
            return Ok(Some(State::AwaitingClientTls(AwaitingClientTls { direct: true })));
        }
        let total = match StartupPacket::peek(buffer) {
            Ok(Some(total)) => total,
            Ok(None) => return Ok(None),
            // As the server: whoever sends this does not speak the protocol, and gets no answer in it.
            Err(_) => return Ok(Some(core.close(CloseReason::ClientViolation("invalid length of startup packet".into())))),
        };
        if buffer.len() < total {
            return Ok(None);
        }
        let packet = buffer.split_to(total).freeze();
        match StartupPacket::parse(&packet) {
            Ok(StartupPacket::SslRequest) if !self.ssl_asked => self.ssl_request(core, buffer),
            Ok(StartupPacket::GssEncRequest) if !self.gss_asked => {
                self.gss_asked = true;
                core.send_client(Bytes::from_static(b"N"));
                Err(())
            }
            Ok(StartupPacket::SslRequest) => Ok(Some(unsupported(core, ProtocolVersion::SSL))),
            Ok(StartupPacket::GssEncRequest) => Ok(Some(unsupported(core, ProtocolVersion::GSSENC))),
            Ok(StartupPacket::CancelRequest { process, secret }) => {
                core.push(Action::Cancel(CancelKey { process, secret: secret.to_vec() }));
                Ok(Some(core.close(CloseReason::CancelRequest)))
            }
            Ok(StartupPacket::Startup { version, rest }) => Ok(Some(self.start(core, version, rest))),
            Err(malformed) => Ok(Some(core.client_error(&Error::ClientMalformed(malformed)))),
        }
    }

    fn ssl_request(&mut self, core: &mut Core, buffer: &mut BytesMut) -> Result<Option<State>, ()> {
        self.ssl_asked = true;
        if core.config.client_tls == ClientTls::Off {
            core.send_client(Bytes::from_static(b"N"));
            return Err(());
        }
        if !buffer.is_empty() {
            // Plain bytes that TLS would seem to have protected (CVE-2021-3935).
            buffer.clear();
            return Ok(Some(core.fatal(
                SqlState::PROTOCOL_VIOLATION,
                "received unencrypted data after SSL request",
                "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
                CloseReason::ClientViolation("unencrypted data after SSLRequest".into()),
            )));
        }
        core.send_client(Bytes::from_static(b"S"));
        core.push(Action::StartTls(Peer::Client));
        Ok(Some(State::AwaitingClientTls(AwaitingClientTls { direct: false })))
    }

    fn start(&mut self, core: &mut Core, version: ProtocolVersion, rest: &[u8]) -> State {
        if version.major() != 3 {
            return unsupported(core, version);
        }
        if core.config.client_tls == ClientTls::Required && self.tls.is_none() {
            return core.fatal(
                SqlState::INVALID_AUTHORIZATION,
                "this gateway takes a token or key only inside TLS",
                "Connect with TLS: sslmode=require (libpq, psql), ssl=true (JDBC).",
                CloseReason::LoginRefused,
            );
        }
        let parameters = match read_parameters(rest) {
            Ok(parameters) => parameters,
            Err(refusal) => return refusal.end(core),
        };
        negotiate(core, version, &parameters.unrecognized);
        let caller = Caller {
            user: parameters.user,
            database: parameters.database,
            application: parameters.application,
            settings: parameters.settings,
            replication: parameters.replication,
            version: version.min(ProtocolVersion::V3_2),
            binding: self.tls.as_ref().is_some_and(|tls| tls.server_end_point.is_some()),
        };
        Login::begin(core, caller)
    }
}

/// The server's answer to a version that it does not speak.
fn unsupported(core: &mut Core, version: ProtocolVersion) -> State {
    let message = format!("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", version.major(), version.minor());
    core.fatal(SqlState::NOT_SUPPORTED, &message, "", CloseReason::ClientViolation("unsupported protocol version".into()))
}

/// As PostgreSQL 18: a newer minor version or an option that is not known gets told which ones are.
fn negotiate(core: &mut Core, version: ProtocolVersion, unrecognized: &[String]) {
    if version <= ProtocolVersion::V3_2 && unrecognized.is_empty() {
        return;
    }
    let message = NegotiateProtocolVersion {
        version: version.min(ProtocolVersion::V3_2),
        unrecognized: unrecognized.iter().map(String::as_bytes).collect(),
    };
    core.send(|out| message.encode(out));
}

/// The parameters of a StartupMessage, checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    user: String,
    database: String,
    application: String,
    settings: Vec<(String, String)>,
    replication: bool,
    unrecognized: Vec<String>,
}

/// Why a StartupMessage is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Malformed(Malformed),
    NotUtf8,
    NoUser,
    Option(String),
    Unrecognized(String),
    Identity(String),
    Replication(String),
}

impl Refusal {
    fn end(self, core: &mut Core) -> State {
        let violation = CloseReason::ClientViolation("startup parameters".into());
        match self {
            Self::Malformed(malformed) => core.client_error(&Error::ClientMalformed(malformed)),
            Self::NotUtf8 => core.fatal(
                SqlState::INVALID_PARAMETER,
                "a startup parameter is not valid UTF-8",
                "Names and settings of the startup must be UTF-8 or ASCII.",
                violation,
            ),
            Self::NoUser => {
                core.fatal(SqlState::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet", "", violation)
            }
            Self::Option(word) => core.fatal(
                SqlState::NOT_SUPPORTED,
                &format!("the gateway does not accept \"{word}\" in the startup parameter \"options\""),
                "Only -c name=value and --name=value are accepted.",
                CloseReason::LoginRefused,
            ),
            Self::Unrecognized(name) => core.fatal(
                SqlState::UNDEFINED_OBJECT,
                &format!("unrecognized configuration parameter \"{name}\""),
                "",
                CloseReason::LoginRefused,
            ),
            Self::Identity(name) => core.fatal(
                SqlState::INSUFFICIENT_PRIVILEGE,
                &format!("the startup parameter \"{name}\" is not permitted: it would change whose rights the session has"),
                "Remove it from the connection settings.",
                CloseReason::LoginRefused,
            ),
            Self::Replication(value) => core.fatal(
                SqlState::INVALID_PARAMETER,
                &format!("invalid value for parameter \"replication\": \"{value}\""),
                "Valid values are: \"false\", 0, \"true\", 1, \"database\".",
                CloseReason::LoginRefused,
            ),
        }
    }
}

/// Settings that change whose rights a session has, or what code it loads.
const IDENTITY_SETTINGS: [&str; 5] =
    ["role", "session_authorization", "session_preload_libraries", "local_preload_libraries", "shared_preload_libraries"];

/// Parameters that are no settings: as the name of one they would replace what the gateway sends.
const RESERVED: [&str; 4] = ["user", "database", "options", "replication"];

fn read_parameters(rest: &[u8]) -> Result<Parameters, Refusal> {
    let pairs = StartupPacket::parameters(rest).map_err(Refusal::Malformed)?;
    let mut read = Parameters::default();
    let mut options = Vec::new();
    for (name, value) in pairs {
        let name = std::str::from_utf8(name).map_err(|_| Refusal::NotUtf8)?;
        let value = std::str::from_utf8(value).map_err(|_| Refusal::NotUtf8)?;
        match name {
            // The last of a repeated one holds, as in the server.
            "user" => value.clone_into(&mut read.user),
            "database" => value.clone_into(&mut read.database),
            "options" => options = read_options(value)?,
            "replication" => {
                read.replication = replication(value)?;
                read.settings.push((name.to_owned(), value.to_owned()));
            }
            name if name.starts_with("_pq_.") => read.unrecognized.push(name.to_owned()),
            name => {
                if name == "application_name" {
                    value.clone_into(&mut read.application);
                }
                read.settings.push((setting(name)?, value.to_owned()));
            }
        }
    }
    if read.user.is_empty() {
        return Err(Refusal::NoUser);
    }
    // The server applies the options first: a parameter of the same name comes after and holds.
    options.append(&mut read.settings);
    read.settings = options;
    Ok(read)
}

/// Checks the name of a setting.
fn setting(name: &str) -> Result<String, Refusal> {
    if IDENTITY_SETTINGS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(Refusal::Identity(name.to_owned()));
    }
    let reserved = RESERVED.iter().any(|known| known.eq_ignore_ascii_case(name));
    if reserved || name.is_empty() || name.to_ascii_lowercase().starts_with("_pq_.") {
        return Err(Refusal::Unrecognized(name.to_owned()));
    }
    Ok(name.to_owned())
}

/// The settings in the parameter `options`.
fn read_options(options: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut settings = Vec::new();
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if let Some(long) = word.strip_prefix("--") {
            long.to_owned()
        } else if word == "-c" {
            words.next().ok_or_else(|| Refusal::Option(word.clone()))?
        } else if let Some(attached) = word.strip_prefix("-c") {
            attached.to_owned()
        } else {
            return Err(Refusal::Option(word));
        };
        let Some((name, value)) = assignment.split_once('=') else { return Err(Refusal::Option(word)) };
        // `ParseLongOption`: dashes in a name are underscores.
        settings.push((setting(&name.replace('-', "_"))?, value.to_owned()));
    }
    Ok(settings)
}

/// Whether it asks for a replication connection. `parse_bool` accepts every unique prefix.
fn replication(value: &str) -> Result<bool, Refusal> {
    let value_lower = value.to_ascii_lowercase();
    let is = |word: &str, least: usize| value_lower.len() >= least && word.starts_with(&value_lower);
    if value == "database" || is("true", 1) || is("yes", 1) || is("on", 2) || value == "1" {
        Ok(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || value == "0" {
        Ok(false)
    } else {
        Err(Refusal::Replication(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Parameters, Refusal> {
        let mut rest = Vec::new();
        for (name, value) in pairs {
            rest.extend_from_slice(name.as_bytes());
            rest.push(0);
            rest.extend_from_slice(value.as_bytes());
            rest.push(0);
        }
        rest.push(0);
        read_parameters(&rest)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn options_become_settings_before_the_others() {
        let read = read(&[
            ("user", "ci"),
            ("application_name", "psql"),
            ("options", "-c search_path=a\\ b --statement-timeout=5 -cwork_mem=1MB"),
        ])
        .unwrap();
        let expected = [
            pair("search_path", "a b"),
            pair("statement_timeout", "5"),
            pair("work_mem", "1MB"),
            pair("application_name", "psql"),
        ];
        assert_eq!(read.settings, expected);
        assert_eq!(read.application, "psql");
    }

    #[test]
    fn options_cannot_replace_the_login() {
        for name in ["user", "USER", "database", "replication", "options", "_pq_.x"] {
            let options = format!("-c {name}=postgres");
            assert_eq!(read(&[("user", "ci"), ("options", &options)]), Err(Refusal::Unrecognized(name.to_owned())));
        }
        assert_eq!(read(&[("user", "ci"), ("User", "postgres")]), Err(Refusal::Unrecognized("User".into())));
    }

    #[test]
    fn settings_that_change_identity_are_refused_however_they_come() {
        for name in ["role", "ROLE", "session_authorization", "Session_Authorization", "local_preload_libraries"] {
            assert_eq!(read(&[("user", "ci"), (name, "postgres")]), Err(Refusal::Identity(name.into())));
            let options = format!("--{}=postgres", name.replace('_', "-"));
            assert!(matches!(read(&[("user", "ci"), ("options", &options)]), Err(Refusal::Identity(_))), "{options}");
        }
    }

    #[test]
    fn other_switches_are_named_in_the_refusal() {
        assert_eq!(read(&[("user", "ci"), ("options", "-f o")]), Err(Refusal::Option("-f".into())));
        assert_eq!(read(&[("user", "ci"), ("options", "-c")]), Err(Refusal::Option("-c".into())));
        assert_eq!(read(&[("user", "ci"), ("options", "--x")]), Err(Refusal::Option("--x".into())));
    }

    #[test]
    fn replication_is_what_the_server_takes_for_it() {
        for value in ["true", "t", "database", "1", "on", "YES"] {
            assert_eq!(replication(value), Ok(true), "{value}");
        }
        for value in ["false", "f", "0", "of", "no"] {
            assert_eq!(replication(value), Ok(false), "{value}");
        }
        for value in ["", "o", "2", "Database"] {
            assert!(replication(value).is_err(), "{value}");
        }
    }

    #[test]
    fn options_of_the_protocol_are_negotiated_not_passed_on() {
        let read = read(&[("user", "ci"), ("_pq_.command_tag", "1")]).unwrap();
        assert_eq!(read.unrecognized, ["_pq_.command_tag"]);
        assert!(read.settings.is_empty());
    }
}
