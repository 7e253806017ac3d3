//! Scripted peers, simulated clock and capture reader for the protocol crates' tests. Development only.
//!
//! [`Script`] drives a [`proxy_core::Session`] as the real driver would: it keeps a read buffer for each
//! peer, offers it after every input, answers what the test tells it to answer, and checks at every upstream
//! send that its permit is this session's and was given.

mod capture;
mod script;
mod store;

pub use capture::{Capture, CaptureError, Read};
pub use script::{Script, Seen};
pub use store::{MemoryStore, permit_for, principal, target};
