//! Sallyport: a gateway for machine identities. This crate is the binary's content: configuration, command
//! line, administration, and the wiring of the gateway.
//!
//! Start reading at [`config`] (what can be said), [`cli`] (what can be asked).

pub mod cli;
pub mod config;
pub mod evidence;
pub mod metrics;
pub mod secrets;
pub mod serve;
pub mod shipping;
pub(crate) mod streams;
pub mod target;
pub mod telemetry;
pub mod traces;
pub mod witness;
