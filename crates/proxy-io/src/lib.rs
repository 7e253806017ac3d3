//! The driver: it owns the sockets, TLS, timers and back-pressure, and runs sessions that know none of these.
//!
//! ```text
//!  listener ──▶ connection ──▶ driver (one task per session)
//!                               │  read → Session::handle → next_action …
//!                               ├─ commit    the log write before a request is answered; where it waits for the disk, one for many
//!                               ├─ services  login, decisions, approvals, upstream credentials (traits)
//!                               └─ registry  live sessions: kill, cancel, policy changes
//! ```
//!
//! Each worker thread has an event loop of its own (a current-thread runtime, and sockets bound with
//! `SO_REUSEPORT`): nothing is handed to another thread per statement.
//!
//! Start reading at [`worker`], then [`driver`].

mod cancel;
pub mod clock;
pub mod commit;
pub mod driver;
pub mod limits;
pub mod output;
pub mod registry;
pub mod services;
pub mod socket;
pub mod tls;
pub mod worker;

pub use commit::Committer;
pub use registry::{Control, LiveSession, Registry};
pub use services::{
    Approvals, Authenticate, HeldRequest, HoldOutcome, LoginConversation, LoginStep, Metrics, Opened, PeerInfo, Services,
    UpstreamAnswers, UpstreamCredential, UpstreamEndpoint,
};
pub use tls::{ServerTls, UpstreamTls};
pub use worker::{ListenerSpec, SessionSeed, Workers};
