//! A transparency log in published formats, without I/O: what the gateway signs, what a witness checks, and what an auditor
//! verifies are computed here and nowhere else.
//!
//! ```text
//!  leaf ─▶ merkle: hashes, audit paths, consistency (RFC 6962)
//!            │
//!            ├─▶ tile: which file has which hashes and entries (C2SP tlog-tiles)
//!            ├─▶ proof: one entry with its path and a checkpoint, for somebody without a network (C2SP tlog-proof)
//!            └─▶ note: checkpoints, signatures, cosignatures (C2SP signed-note, tlog-checkpoint, tlog-cosignature)
//!                  │
//!                  └─▶ witness: what is asked of one, and what it answers (C2SP tlog-witness)
//! ```
//!
//! Nothing here reads a clock, a file or a socket. Start reading at [`merkle`].

pub mod merkle;
pub mod note;
pub mod proof;
pub mod tile;
pub mod witness;

pub use merkle::{Frontier, Hash, Node};
pub use note::{Checkpoint, KeyKind, Note, NoteError, Signer, Verifier};
pub use proof::Proof;
pub use tile::Tile;
