//! An export at work: reads a page, hands over its bytes, counts.

use crate::context::{Contexts, LogInfo};
use crate::format::{EncodeError, Encoder, Format, encoder};
use crate::limits::{PAGE, PART_BYTES};
use crate::text::{Texts, hex};
use audit_store::{EntryFilter, Reader, StoredEntry};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use proxy_core::StoreError;

/// Why an export ends before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry has no form in the format: a defect.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Some of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The next bytes; there may be none although entries were looked at.
    pub data: Vec<u8>,
    /// Entries that were looked at so far.
    pub looked_at: u64,
}

/// What an export came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// The log's id, 32 hexadecimal digits.
    pub log_id: String,
    /// Entries in the log when the export began; every one of them was looked at.
    pub entries: u64,
    /// Entries that were exported.
    pub rows: u64,
    /// Index of the first of them.
    pub first: Option<u64>,
    /// Index of the last of them.
    pub last: Option<u64>,
    /// Bytes of data.
    pub bytes: u64,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
}

/// An export. Call [`Export::next_part`] until there is none, then [`Export::totals`]. All calls may wait for the disk.
pub struct Export {
    reader: Reader,
    filter: EntryFilter,
    encoder: Box<dyn Encoder>,
    contexts: Contexts,
    log_id: String,
    /// Entries in the log when it began: those that come later are not in it.
    end: u64,
    /// What was read and not yet written.
    page: std::vec::IntoIter<StoredEntry>,
    /// Where the next page begins.
    next: u64,
    looked_at: u64,
    began: bool,
    finished: bool,
    rows: u64,
    first: Option<u64>,
    last: Option<u64>,
    bytes: u64,
    digest: Digest,
}

impl Export {
    /// Of all entries that the log has now and that pass `filter`, in order.
    ///
    /// # Errors
    /// [`StoreError`]: the log cannot be read.
    pub fn new(reader: Reader, filter: EntryFilter, format: Format, version: &str, host: &str) -> Result<Self, StoreError> {
        let (end, log_id) = (reader.len()?, hex(&reader.log_id()?));
        let log = LogInfo { id: log_id.clone(), version: version.to_owned(), host: host.to_owned() };
        Ok(Self {
            reader,
            filter,
            encoder: encoder(format, &log, Texts::Whole),
            contexts: Contexts::default(),
            log_id,
            end,
            page: Vec::new().into_iter(),
            next: 0,
            looked_at: 0,
            began: false,
            finished: false,
            rows: 0,
            first: None,
            last: None,
            bytes: 0,
            digest: Digest::new(&SHA256),
        })
    }

    /// Entries in the log when it began.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.end
    }

    /// The next bytes; `None`: that was all.
    ///
    /// # Errors
    /// [`ExportError`]: what was handed over so far is not a whole export, and must not be taken for one.
    pub fn next_part(&mut self) -> Result<Option<Part>, ExportError> {
        if self.finished {
            return Ok(None);
        }
        let mut data = Vec::new();
        if !self.began {
            self.began = true;
            self.encoder.begin(&mut data);
        }
        if self.page.as_slice().is_empty() && self.next < self.end {
            self.read()?;
        }
        if self.looked_at < self.end {
            self.write(&mut data)?;
        } else {
            self.finished = true;
            self.encoder.finish(&mut data)?;
        }
        self.digest.update(&data);
        self.bytes += data.len() as u64;
        Ok(Some(Part { data, looked_at: self.looked_at }))
    }

    fn read(&mut self) -> Result<(), ExportError> {
        let page = self.reader.tail(self.next, &self.filter, PAGE)?;
        // `next` is always there; should it not move on, going on would never end.
        let stuck = || StoreError::Corrupt(format!("entries from {} on cannot be read", self.next));
        self.next = page.next.filter(|next| *next > self.next).ok_or_else(stuck)?;
        self.page = page.items.into_iter();
        Ok(())
    }

    fn write(&mut self, data: &mut Vec<u8>) -> Result<(), ExportError> {
        while data.len() < PART_BYTES {
            let Some(stored) = self.page.next() else {
                self.looked_at = self.next.min(self.end);
                return Ok(());
            };
            if stored.index >= self.end {
                continue;
            }
            let session = self.contexts.of(&self.reader, &stored)?;
            self.encoder.entry(session.as_deref(), &stored, data)?;
            self.rows += 1;
            self.first = self.first.or(Some(stored.index));
            self.last = Some(stored.index);
            self.looked_at = stored.index;
        }
        Ok(())
    }

    /// What it came to. Only after [`Export::next_part`] has returned `None` is it the whole.
    #[must_use]
    pub fn totals(self) -> Totals {
        Totals {
            log_id: self.log_id,
            entries: self.end,
            rows: self.rows,
            first: self.first,
            last: self.last,
            bytes: self.bytes,
            sha256: hex(self.digest.finish().as_ref()),
        }
    }
}

#[cfg(test)]
mod tests;
