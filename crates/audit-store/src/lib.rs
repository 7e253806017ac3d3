//! The audit log: append-only, accepted before a request is forwarded, readable while it grows.
//!
//! ```text
//!  Ledger ──append──▶ AuditStore ──one write──▶ journal ──move thread──▶ RocksDB: entries, payload
//!                        │                         │                       ▲         │
//!                        └── index thread ─────────│───────────────────────┘         │ sessions, by_session, find (derived; `find/mod.rs`)
//!  command line ──open_read_only──▶ Reader ◀───────┴─────────────────────────────────┘
//! ```
//!
//! - An entry becomes a *leaf*: canonical bytes of at most 65,535, described byte by byte in `FORMAT.md`.
//!   Fields too long for it are kept beside and can be removed later: the leaf commits to them. With
//!   [`Options::payload_keys`] they are ciphertext before anything of them gets to a disk (`seal.rs`).
//! - Indices have no gaps. A batch is appended whole or not at all.
//! - [`Durability`] says when an entry counts as accepted. Under both, what was accepted survives a killed
//!   process.
//! - When the store cannot accept (a full disk, an I/O error, damage) it refuses, says why in
//!   [`AuditStore::health`], and recovers by itself when it can.
//!
//! Start reading at [`store`](AuditStore), then `encode.rs`, then [`Reader`].

mod batch;
mod db;
pub mod decode;
mod destroy;
mod dump;
pub mod encode;
mod entry;
mod export;
mod find;
mod group;
mod index;
mod journal;
mod kind;
pub mod limits;
mod log;
pub mod notary;
mod options;
pub mod prove;
mod published;
mod query;
mod reader;
mod repair;
mod seal;
mod session;
mod standing;
mod store;
mod tree;
mod verify;
mod wire;

pub use destroy::{Progress, Selection};
pub use dump::{LeafField, leaf_fields};
pub use entry::{StoredEntry, Withheld};
pub use export::{Export, Folder};
pub use kind::{EventKind, UnknownKind, VERSION};
pub use notary::{Notary, NotaryError, Opening, Signed};
pub use options::{Durability, Options, Recovery};
pub use published::{Bundle, payload_path};
pub use query::{EntryFilter, Page, RequestView, SessionFilter, SessionView};
pub use reader::{Entries, Reader, open_read_only, open_read_only_with};
pub use repair::{Damage, damage, repair};
pub use seal::{BadKey, KEY_LENGTH, KeyId, PayloadKeys};
pub use session::SessionSummary;
pub use standing::{FamilySize, IndexStanding, JournalStanding, Standing};
pub use store::{AuditStore, Health, TreeHead};
pub use verify::{Blobs, Borne, Expected, Finding, Verification, published as verify_published};
pub use wire::DecodeError;
