//! Witnesses of transparency logs (C2SP tlog-witness), both sides. What is asked and answered is in [`tlog::witness`].
//!
//! ```text
//!  the gateway                                      a second machine: `sallyport witness`
//!  quorum: asks all, counts ─▶ client ── HTTPS ──▶ server ─▶ memory: decides, remembers, then answers
//!                                                              │
//!                                                              └─▶ folder: key, what was cosigned last
//! ```
//!
//! [`Witnesses`] is what the gateway calls; [`Witness`] and [`server::serve`] are the other side.

mod client;
mod folder;
mod memory;
mod quorum;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::{WitnessClient, WitnessError, WitnessSetupError};
pub use folder::FolderError;
pub use memory::{Answer, Witness};
pub use quorum::{Cosigned, Witnesses};

/// Now, in seconds since 1970, as cosignatures say it.
pub(crate) fn seconds() -> u64 {
    u64::try_from(proxy_io::clock::now().0 / 1_000_000).unwrap_or(0)
}
