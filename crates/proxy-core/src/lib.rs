//! The vocabulary of the gateway. No sockets, no clock, no randomness, no logging.
//!
//! Everything that a protocol crate (`proto-*`), the policy engine, the audit store and the driver
//! (`proxy-io`) say to each other is defined here, so that none of them depends on another.
//!
//! ```text
//!  client ──bytes──▶ Session ──Decide(Request)──▶ Pipeline ──▶ Authorizer   (policy, masking)
//!                      ▲                             │
//!                      │                             ├──────▶ Store         (audit-store)
//!                      │                             ▼
//!                      └──────Verdict(Permit)────── Accepted + Decision
//!  upstream ◀─SendUpstream(bytes, Permit)── Session
//! ```
//!
//! Start reading at [`session`], then [`pipeline`], then [`facts`].
//!
//! `docs/adr/0002-session-and-frame.md` walks PostgreSQL, TDS, MySQL, Kubernetes and SSH through
//! these types.

pub mod catalog;
pub mod facts;
pub mod limits;
pub mod pipeline;
pub mod principal;
pub mod record;
pub mod refusal;
pub mod request;
pub mod results;
pub mod secret;
pub mod session;
pub mod target;
pub mod time;

pub use catalog::Catalog;
pub use facts::{Facts, Object, ObjectKind, Operation};
pub use pipeline::{Accepted, Authorizer, Decision, DenyReason, Ledger, Permit, SessionAuthorizer, Store, StoreError, Verdict};
pub use principal::{Principal, PrincipalKind, SessionId};
pub use record::{Entry, Event};
pub use refusal::{Excerpt, Excerpting, Refusal};
pub use request::{Parameter, Request, RequestId, RequestKind, Statement, ValueFormat};
pub use results::{Applied, ColumnRule, CopyShape, Disclosure, Mask, Origin, ResultRules, ValueType};
pub use secret::SecretBytes;
pub use session::{Action, CloseReason, Input, Peer, Session};
pub use target::Target;
pub use time::Timestamp;
