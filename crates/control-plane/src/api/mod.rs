//! Administration of the running gateway: a REST API on a Unix socket for the command line, and on the `admin`
//! listener for everybody else.
//!
//! - On the socket (`data_dir/admin.sock`, mode 0600) the caller is the operating system's user, an
//!   administrator. On the listener `/healthz`, `/readyz` and `/metrics` are open; everything else needs a token
//!   or a machine key with one of the roles [`Role`].
//! - Every action and every reading of the log is an entry of the log. It is recorded before it takes effect: if
//!   the store cannot accept, nothing happens.
//!
//! The gateway supplies [`ApiState`] and calls [`server::serve_socket`] and [`server::serve_listener`].

mod auth;
pub(crate) mod decisions;
mod error;
#[cfg(test)]
mod every_route;
mod routes;
pub mod server;
mod state;
#[cfg(test)]
mod tests;

pub use auth::{Caller, Role, local_caller};
pub use error::ApiError;
pub use routes::audit::Holding;
pub use routes::keeping::{HoldRequest, RedactionRequest};
pub use routes::keys::{KeyRequest, creation_details, key_value};
pub use routes::log::{Readings, prove_all, proven_of};
pub use routes::revocations::{RevocationRequest, RevokedName, revocation_details, revocation_value, revoked_name};
pub(crate) use routes::sessions::end_one as end_session;
pub use state::{ApiState, Health, LiveSession, LiveSessions, PayloadKeyChange, Verify};
