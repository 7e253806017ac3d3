//! The audit log in the formats that auditors and SIEMs read: JSON Lines, OCSF, CEF, ECS, CSV, Parquet.
//!
//! ```text
//!  audit_store::Reader ─▶ StoredEntry ─┐
//!                                      ├─▶ Row ─▶ Encoder ─▶ bytes ─▶ (file, HTTP, SIEM: the caller's)
//!  Contexts: who, on what ─────────────┘
//! ```
//!
//! - [`Export`] reads a part of the log, a page at a time, and hands over bytes; at its end it says what it read
//!   ([`Totals`]), which becomes the [`Manifest`].
//! - [`Row`] is one entry with every value in a place of its own. All formats but JSON Lines are made from it, so
//!   that they say the same.
//! - Memory does not depend on the size of the log: a page, a cache of sessions, and for Parquet one row group.
//!
//! It reads the store and writes to memory: no files, no sockets, no clock. Start at [`Export`], then `row.rs`,
//! then one of `format/`. `docs/export.md` has the mapping tables.

mod context;
mod export;
mod format;
pub mod limits;
mod manifest;
mod row;
#[cfg(test)]
mod samples;
mod text;

pub use context::{Contexts, LogInfo, SessionContext};
pub use export::{Export, ExportError, Part, Totals};
pub use format::{EncodeError, Encoder, Format, UnknownFormat, encoder};
pub use manifest::{Looked, Manifest, Query};
pub use row::{Row, session_of};
pub use text::{Texts, rfc3339};
