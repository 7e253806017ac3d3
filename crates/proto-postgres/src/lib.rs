//! The PostgreSQL frontend/backend protocol, versions 3.0 and 3.2, as a state machine without I/O.
//!
//! What it is: the gateway's side of both conversations, with the client and with the server, from the first
//! byte to the last. What it is not: it opens no sockets, does no TLS, reads no clock, knows no principal, no
//! policy and no data class, and does not read SQL. It hands [`proxy_core::Request`]s out and gets verdicts
//! back; what verdicts allow leaves as it came.
//!
//! ```text
//!            ┌──────────────────────── PostgresSession ────────────────────────┐
//!  client ──▶│ frame ─▶ message ─▶ session ─▶ Decide(Request) ─▶ (driver) ─┐    │──▶ upstream
//!            │                        ▲──────── Verdict(Permit) ◀──────────┘    │
//!         ◀──│ pass │ rewrite │ swallow ◀── matched against what was asked     │◀──
//!            └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # The driver's part
//!
//! - After *every* input, offer each read buffer that is not empty again, until an offer changes nothing: a
//!   session leaves bytes while it waits for an answer, a verdict or room in its pipeline, and the client's
//!   bytes may become takeable by the upstream's.
//! - A session that needs a longer frame whole calls `reserve` on the read buffer it was given, in steps
//!   that double with what has arrived. A driver that reads into the buffer's spare capacity needs no more.
//! - Between [`proxy_core::Action::StartTls`] and [`proxy_core::Input::Tls`] nothing of that peer is offered.
//!   With direct TLS the handshake's first bytes are left in the buffer: they belong to TLS.
//!
//! Start reading at [`session`], then `session/ready/mod.rs`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm
    )
)]

pub mod copy;
pub mod dialect;
pub mod dump;
pub mod error;
pub mod facts;
pub mod frame;
pub mod limits;
pub mod message;
pub mod reply;
pub mod session;
pub mod types;

pub use dump::dump;
pub use error::{Error, Malformed};
pub use session::{ClientTls, PostgresSession, SessionConfig};
