//! What the driver needs of others: narrow traits, so that it depends on none of them.

use crate::tls::UpstreamTls;
use proxy_core::pipeline::ApprovalRule;
use proxy_core::record::ApprovalStep;
use proxy_core::session::{CloseReason, LoginAttempt, LoginRefusal, TlsInfo, UpstreamChallenge, UpstreamFailure};
use proxy_core::{Authorizer, Ledger, Principal, RequestId, SecretBytes, SessionId, Target, Timestamp};
use std::any::Any;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future: for what happens once or twice in a session, never per statement.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything a session needs.
pub struct Services {
    /// Who is calling.
    pub authenticate: Arc<dyn Authenticate>,
    /// What they may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// The log.
    pub ledger: Ledger,
    /// Who approves.
    pub approvals: Arc<dyn Approvals>,
    /// Who is here.
    pub registry: Arc<crate::Registry>,
    /// Counters.
    pub metrics: Arc<dyn Metrics>,
}

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The session's id.
    pub session: SessionId,
    /// `ADDRESS:PORT`.
    pub source: String,
    /// The address alone; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// The listener's protocol.
    pub protocol: &'static str,
    /// The connection that the listener is tied to.
    pub listener_connection: Option<String>,
}

/// Checks who is calling.
pub trait Authenticate: Send + Sync {
    /// Whether another login from this address may begin now; the guard is held until the login has ended.
    fn admit(&self, address: Option<IpAddr>) -> Option<Box<dyn Any + Send>>;

    /// Begins one login.
    fn begin(&self, peer: PeerInfo) -> Box<dyn LoginConversation>;

    /// Whether a principal's credential still stands: not expired, not revoked.
    ///
    /// # Errors
    /// Why not.
    fn still_valid(&self, principal: &Principal, now: Timestamp) -> Result<(), proxy_core::session::EndReason>;
}

/// One login, step by step.
pub trait LoginConversation: Send {
    /// Takes what the client showed.
    fn step<'a>(&'a mut self, now: Timestamp, attempt: LoginAttempt, tls: Option<&'a TlsInfo>) -> BoxFuture<'a, LoginStep>;
}

/// A login's next step.
pub enum LoginStep {
    /// Send this and ask again.
    Challenge(Vec<u8>),
    /// The caller is known.
    Accepted(Box<Opened>),
    /// The caller is refused.
    Refused {
        /// Which sort.
        kind: LoginRefusal,
        /// What the client may see.
        message: String,
        /// What to do.
        hint: String,
        /// The whole reason, for the record.
        reason: String,
    },
}

/// An accepted login.
pub struct Opened {
    /// Who.
    pub principal: Arc<Principal>,
    /// On what.
    pub target: Arc<Target>,
    /// Where it is, and as whom.
    pub upstream: UpstreamEndpoint,
    /// A SASL outcome to send.
    pub last: Option<Vec<u8>>,
    /// When the session must end; `None`: with the client.
    pub expires: Option<Timestamp>,
    /// Released when the session ends: its place among the connections.
    pub slot: Box<dyn Any + Send>,
}

/// How to reach a target.
pub struct UpstreamEndpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, or not.
    pub tls: Option<UpstreamTls>,
    /// The credential.
    pub credential: Arc<dyn UpstreamCredential>,
}

/// A target's credential. It answers challenges; it is never handed out.
pub trait UpstreamCredential: Send + Sync {
    /// Begins one login. `server_end_point`: the upstream certificate's channel binding.
    ///
    /// # Errors
    /// The secret cannot be read.
    fn begin(&self, server_end_point: Option<Vec<u8>>) -> Result<Box<dyn UpstreamAnswers>, UpstreamFailure>;
}

/// One upstream login.
pub trait UpstreamAnswers: Send {
    /// Answers one challenge.
    ///
    /// # Errors
    /// The method is not supported, or the server does not prove that it knows the credential.
    fn answer(&mut self, challenge: UpstreamChallenge) -> Result<SecretBytes, UpstreamFailure>;
}

/// A request that waits.
#[derive(Debug, Clone)]
pub struct HeldRequest {
    /// Its session.
    pub session: SessionId,
    /// Its number.
    pub request: RequestId,
    /// Who asks.
    pub principal: Arc<Principal>,
    /// On what.
    pub target: Arc<Target>,
    /// The exact statement.
    pub statement: bytes::Bytes,
    /// The bound parameters.
    pub parameters: Vec<proxy_core::Parameter>,
    /// SHA-256 over statement and parameters, hexadecimal: what is approved is what runs.
    pub digest: String,
    /// What it would do.
    pub facts: Arc<proxy_core::Facts>,
    /// Who must approve, and why.
    pub rule: ApprovalRule,
    /// The policy set that asks: the approval is void under another.
    pub policy_version: Arc<str>,
    /// When it began to wait.
    pub submitted: Timestamp,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOutcome {
    /// Approved, denied, expired.
    pub step: ApprovalStep,
    /// Who decided.
    pub by: Option<String>,
    /// Their reason.
    pub reason: Option<String>,
}

/// A request that has been put before the reviewers.
pub struct Held {
    /// What a reviewer types to name it; `None`: an approval that was given before covers it, and nobody is asked.
    pub id: Option<String>,
    /// Resolves when it is decided. Dropping it withdraws the request.
    pub outcome: BoxFuture<'static, HoldOutcome>,
}

/// Where held requests wait.
pub trait Approvals: Send + Sync {
    /// Puts a request before the reviewers.
    ///
    /// # Errors
    /// Too many wait: the text says so.
    fn hold(&self, request: HeldRequest) -> Result<Held, String>;

    /// A session has ended: approvals that were for the rest of it are over.
    fn session_ended(&self, session: SessionId);
}

/// What the driver counts. Implementations must be cheap: no locks that sessions share.
pub trait Metrics: Send + Sync {
    /// A connection was accepted.
    fn connected(&self, protocol: &'static str);
    /// A login ended.
    fn login(&self, protocol: &'static str, accepted: bool);
    /// A connection closed.
    fn closed(&self, protocol: &'static str, reason: &CloseReason);
    /// A request was decided: `allow`, `deny`, `hold`.
    fn decided(&self, verdict: &'static str);
    /// Bytes moved.
    fn moved(&self, from_client: u64, from_upstream: u64);
    /// A log write: how many entries, and whether the store accepted.
    fn committed(&self, entries: usize, accepted: bool);
}

/// Nothing is counted.
impl Metrics for () {
    fn connected(&self, _: &'static str) {}
    fn login(&self, _: &'static str, _: bool) {}
    fn closed(&self, _: &'static str, _: &CloseReason) {}
    fn decided(&self, _: &'static str) {}
    fn moved(&self, _: u64, _: u64) {}
    fn committed(&self, _: usize, _: bool) {}
}
