//! Who is calling: tokens of OpenID providers and Entra ID, machine keys, and logins to targets.
//!
//! ```text
//!  password ──┬─ token ──▶ Verifier ── Issuer (iss) ── KeyCache (kid) ── signature ── claims ──┐
//!             └─ sp_… ───▶ MachineKeys ────────────────────────────────────────────────────────┼─▶ Principal
//!  SASL ─────────────────▶ MachineKeys ── ScramServer ─────────────────────────────────────────┘
//!
//!  upstream's challenge ─▶ UpstreamAuth ─▶ answer
//! ```
//!
//! Start reading at [`login`], then [`verifier`](Verifier), then [`keys`]. Nothing here decides what a caller may
//! do: that is policy's. No token, secret or password is in any error, log line or debug output of this crate.

mod cache;
mod claims;
mod dev;
mod error;
mod http;
mod issuer;
mod jwks;
mod jwt;
pub mod keys;
pub mod limits;
pub mod login;
mod revocations;
pub mod scram;
mod store;
#[cfg(test)]
mod testing;
mod verifier;

pub use cache::KeyStatus;
pub use dev::{DevIssuer, DevIssuerError, DevToken};
pub use error::{Malformed, TokenError};
pub use http::{Basic, FetchError, HttpClient, HttpSetupError, form_encoded, is_acceptable, is_loopback, with_causes};
pub use issuer::{IssuerConfig, IssuerKind, IssuerProblem, KeySource, Purpose};
pub use jwks::KeySetError;
pub use keys::{CreatedKey, KeyError, KeyInfo, KeyStoreError, MachineKeys, NewKey};
pub use login::{Authenticator, Login, LoginContext, LoginFailure, LoginOutcome};
pub use revocations::{Revocation, RevocationError, Revocations, Revoked};
pub use scram::{SaltedPasswords, UpstreamAuth, UpstreamAuthError};
pub use store::StoreFileError;
pub use verifier::Verifier;
