//! `sallyport.toml`: read, checked, typed.
//!
//! [`keys`] is the one table of every key: the reader accepts nothing else, and the reference is printed
//! from it. [`parse`](fn@parse) reports everything that is wrong at once, each with its line and a remedy.
//! The model is [`Config`].

mod canonical;
pub mod keys;
mod login;
mod model;
mod notify;
mod parse;
mod problem;
mod reader;
mod reference;
mod rules;
mod secret;
mod shipping;
mod streams;
#[cfg(test)]
mod tests;
mod vaults;
mod witness;

pub use canonical::difference;
pub use control_plane::keeping::Retention;
pub use model::{
    Address, Audit, Classify, Config, Connection, Databases, Durability, Issuer, IssuerKind, KeySource, Limits, Listener,
    ListenerProtocol, LogFormat, Login, MaskConfig, MaskWith, Notify, NotifyTo, TargetAddress, TargetProtocol, Telemetry,
    TlsFiles, UpstreamTls, WitnessConfig,
};
pub use parse::{default_file, load, parse};
pub use problem::{Problem, Problems};
pub use reference::reference;
pub use secret::{InvalidRef, Secret, SecretError, SecretRef};
pub use shipping::{ObjectCredential, ObjectUrl, Reach, Shipping};
pub use streams::{Destination, Stream};
pub use vaults::{Fetching, KeyVaultConfig, KeyVaultLogin, VaultConfig, VaultLogin, WrapSource};
