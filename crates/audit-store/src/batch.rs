//! Many entries → what is written: chunks of leaves, and payloads.

use crate::encode::{Beside, NoRandomness, Repeated, encode_repeated};
use crate::journal::RECORD_HEAD;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_ENTRIES_MAX, LEAF_MAX};
use crate::options::Options;
use proxy_core::{Entry, StoreError};
use std::ops::Range;

/// Memory that is kept from one batch to the next (1 MiB).
const KEPT_MAX: usize = 1 << 20;

/// Leaves that go under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Which entry of the batch is its first.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
    /// Where its bytes are.
    pub(crate) bytes: Range<usize>,
}

/// One batch, encoded. Used again and again, so that the usual batch allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Room for the head of the journal's record, then the leaves of all chunks.
    bytes: Vec<u8>,
    pub(crate) chunks: Vec<Chunk>,
    /// Entry of the batch, and a field of it.
    pub(crate) beside: Vec<(usize, Beside)>,
    fields: Vec<Beside>,
    repeated: Repeated,
}

impl Batch {
    /// Encodes `entries` in place of what was there.
    pub(crate) fn fill(&mut self, entries: &[Entry], options: &Options) -> Result<(), StoreError> {
        let how = (options.inline_max, options.payload_keys.as_ref());
        self.clear();
        self.bytes.resize(RECORD_HEAD, 0);
        for (at, entry) in entries.iter().enumerate() {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&[0; 2]);
            encode_repeated(entry, how, &mut self.bytes, &mut self.fields, &mut self.repeated)
                .map_err(|e: NoRandomness| StoreError::Io(e.to_string()))?;
            self.beside.extend(self.fields.drain(..).map(|field| (at, field)));
            let length = self.bytes.len() - start - 2;
            debug_assert!(length <= LEAF_MAX, "the limits of fields bound the leaf");
            let prefix = u16::try_from(length)
                .map_err(|_| StoreError::Io(format!("an entry of {length} bytes is longer than a leaf may be")))?;
            self.bytes[start..start + 2].copy_from_slice(&prefix.to_be_bytes());
            let end = self.bytes.len();
            match self.chunks.last_mut() {
                Some(chunk) if at - chunk.first < CHUNK_ENTRIES_MAX && end - chunk.bytes.start <= CHUNK_BYTES_MAX => {
                    chunk.bytes.end = end;
                    chunk.count += 1;
                }
                _ => self.chunks.push(Chunk { first: at, count: 1, bytes: start..end }),
            }
        }
        Ok(())
    }

    pub(crate) fn chunk(&self, chunk: &Chunk) -> &[u8] {
        &self.bytes[chunk.bytes.clone()]
    }

    /// Bytes of the leaves of all chunks.
    pub(crate) fn leaves(&self) -> usize {
        self.bytes.len().saturating_sub(RECORD_HEAD)
    }

    /// Shows the journal's record: its head, which is to be filled, its body, the leaves and what `rest` appends, and
    /// `fill` zeros.
    pub(crate) fn with_record<R>(&mut self, rest: &[u8], fill: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let length = self.bytes.len();
        self.bytes.extend_from_slice(rest);
        self.bytes.resize(length + rest.len() + fill, 0);
        let written = write(&mut self.bytes);
        self.bytes.truncate(length);
        written
    }

    /// Bytes that will be written, about.
    pub(crate) fn size(&self) -> u64 {
        let beside: usize = self.beside.iter().map(|(_, field)| field.payload.len() + 32).sum();
        (self.bytes.len() + beside + 64) as u64
    }

    /// Forgets the content; a long batch's memory is given back.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
        self.chunks.clear();
        self.beside.clear();
        self.fields.clear();
    }
}
