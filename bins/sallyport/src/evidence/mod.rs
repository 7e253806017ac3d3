//! The audit log as evidence: opened and signed, published, proven, and read where it was published.
//!
//! ```text
//!  store ──▶ open: notary ──▶ publisher ──every few seconds──▶ export/, `/log/` of the admin listener
//! ```

mod files;
mod open;
mod payload_keys;
mod publisher;

pub use files::{read_proof, write_proof};
pub use open::open;
pub use payload_keys::{PayloadKeyError, PayloadKeyFile, change_payload_keys, payload_key_file, read_payload_keys, try_source};
pub use publisher::Publisher;
