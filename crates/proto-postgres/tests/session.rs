//! Two scripted peers and a simulated clock.

mod common;
#[path = "session/denial.rs"]
mod denial;
#[path = "session/extended.rs"]
mod extended;
#[path = "session/login.rs"]
mod login;
#[path = "session/masking.rs"]
mod masking;
#[path = "session/simple.rs"]
mod simple;
