//! The control plane: where people decide, look and administer, and what machines ask over HTTP.
//!
//! ```text
//!  browser, command line, machines ──▶ api: who calls, which role ──▶ approvals   what waits, and who may decide
//!                                                                 ──▶ log, export what was recorded
//!                                                                 ──▶ keeping     how long it is kept
//!                                   pages (HTML over the same)
//! ```
//!
//! It opens no target and reads no configuration: the binary gives it what it works on ([`api::ApiState`]), and tells the
//! data path what was decided.
//!
//! Start reading at [`approvals`] (a request, from the moment in which it waits), then [`api`].

pub mod api;
pub mod approvals;
pub mod client;
pub mod export;
pub mod keeping;
pub mod log;
pub mod login;
pub mod machine;
pub mod notices;
pub mod pages;
pub mod published;
#[cfg(test)]
mod testing;
pub mod units;
pub mod view;
