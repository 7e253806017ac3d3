//! Messages to people and machines when a request waits, is decided or expires, or when break-glass is used.
//!
//! ```text
//!  gateway ── notify(Notice) ──▶ Notifier ──bounded queue──▶ one task for each channel ──▶ webhook │ slack │ teams │ email
//!             never waits                                       │        │
//!                                                            spool    dead letters
//!                                                       (restart)    (given up; can be sent again)
//! ```
//!
//! A message tells; it decides nothing. Its link leads to a page where a reviewer logs in, and whoever presses a button of a
//! message is told to do the same. The text of a statement is in a message only where its channel is configured for it.
//!
//! Nothing here is asked before a request runs or waits: a channel that is down, slow or hostile costs its own messages and
//! nothing else. Where messages go is checked after the name was resolved, and the address that was checked is the one that is
//! connected to ([`guard`]).
//!
//! Start reading at [`Notifier`], then [`Notice`], then the channels: [`webhook`], [`slack`], [`teams`], [`email`].

mod channel;
pub mod config;
mod connect;
mod dead;
pub mod email;
mod error;
pub mod guard;
mod http;
pub mod limits;
mod notice;
mod notifier;
mod secret;
mod signing;
pub mod slack;
mod spool;
pub mod teams;
mod text;
pub mod webhook;
mod worker;

pub use config::{ChannelConfig, Delivery, Destination, Filter, Reach};
pub use connect::{Addresses, Resolve, SystemResolver};
pub use dead::{DeadLetter, DeadLetterError, DeadLetters, FileDeadLetters};
pub use error::{ConfigError, SendError, StartError};
pub use hyper::HeaderMap;
pub use notice::{Group, Kind, Notice};
pub use notifier::{Notifier, RedeliverError, Redelivered, Setup};
pub use secret::Secret;
pub use signing::VerifyError;
pub use worker::{Event, Events, What};
