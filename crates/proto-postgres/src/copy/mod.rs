//! Masking a `COPY … TO STDOUT` stream: splits it into rows, in text, CSV and binary format, and rewrites
//! the columns that are masked. What passes is copied in runs, not field by field.
//!
//! The upstream may cut the stream into CopyData messages anywhere; a row is collected up to a limit. The
//! output has one row for each CopyData. Rows are read as the server writes them (src/backend/commands/copyto.c);
//! what it would not write is an error.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9>

mod binary;
mod csv;
mod delimited;
mod text;

pub(crate) use binary::put_values;

use self::csv::Csv;
use self::delimited::Scratch;
use self::text::Text;
use crate::frame::write;
use crate::types::UpstreamTag;
use bytes::BytesMut;
use proxy_core::results::CopyFormat;
use proxy_core::{ColumnRule, Mask, ValueFormat, ValueType};
use std::sync::Arc;

/// Why a stream cannot be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CopyError {
    /// It is not in the format that was announced, or a row does not have the columns that were.
    #[error("the COPY stream is not in its format")]
    Malformed,
    /// A row is longer than the limit.
    #[error("a row of the COPY stream is longer than the limit")]
    RowTooLong,
}

/// Whether it is the binary format.
#[must_use]
pub fn is_binary(format: &CopyFormat) -> bool {
    matches!(format, CopyFormat::Binary)
}

/// How a column is masked; `None`: it passes.
pub(crate) type Column = Option<(Arc<dyn Mask>, ValueType)>;

#[derive(Debug)]
enum Format {
    Text(Text),
    Csv(Csv),
    Binary,
}

/// Rewrites one stream.
#[derive(Debug)]
pub struct Rewriter {
    columns: Vec<Column>,
    format: Format,
    limit: usize,
    /// The beginning of a row whose end has not come.
    pending: Vec<u8>,
    scan: Scan,
    /// What comes before the first row is still to come.
    preamble: bool,
    /// The binary format's trailer has come.
    ended: bool,
    scratch: Scratch,
}

/// How far the search for a row's end has come.
#[derive(Debug, Default, Clone, Copy)]
struct Scan {
    /// What is before it has been looked at; past the end, if the byte to come is escaped.
    at: usize,
    quoted: bool,
}

/// A row in a buffer.
enum Row {
    /// It ends here; its terminator is `terminator` bytes before.
    Ends { end: usize, terminator: usize },
    /// More must come.
    Partial,
}

impl Rewriter {
    /// For a stream whose columns have these rules and types, in order. A `Refuse` must not come here: it is
    /// masked to nothing by refusing the whole result before.
    #[must_use]
    pub fn new(rules: Vec<ColumnRule>, types: &[u32], format: CopyFormat, limit: usize) -> Self {
        let value_format = if is_binary(&format) { ValueFormat::Binary } else { ValueFormat::Text };
        let columns = rules.into_iter().zip(types).map(|(rule, type_id)| match rule {
            ColumnRule::Mask(mask) => Some((mask, ValueType { type_id: *type_id, format: value_format })),
            ColumnRule::Pass | ColumnRule::Refuse(_) => None,
        });
        let columns: Vec<Column> = columns.collect();
        let (format, preamble) = match format {
            CopyFormat::Text { delimiter, null, header } => (Format::Text(Text { delimiter, null }), header),
            CopyFormat::Csv { delimiter, quote, escape, null, header } => {
                (Format::Csv(Csv { delimiter, quote, escape, null, single: columns.len() == 1 }), header)
            }
            CopyFormat::Binary => (Format::Binary, true),
        };
        Self {
            columns,
            format,
            limit,
            pending: Vec::new(),
            scan: Scan::default(),
            preamble,
            ended: false,
            scratch: Scratch::default(),
        }
    }

    /// Takes the data of one CopyData; appends CopyData frames to `out`.
    ///
    /// # Errors
    /// [`CopyError`]. Nothing of the row that failed is in `out`.
    pub fn feed(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), CopyError> {
        if self.pending.is_empty() {
            let taken = self.rows(data, out)?;
            return self.keep(data.get(taken..).unwrap_or_default());
        }
        self.keep(data)?;
        let mut pending = std::mem::take(&mut self.pending);
        let taken = self.rows(&pending, out)?;
        pending.drain(..taken);
        self.pending = pending;
        Ok(())
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`CopyError::Malformed`]: in the middle of a row.
    pub fn finish(&self) -> Result<(), CopyError> {
        if self.pending.is_empty() { Ok(()) } else { Err(CopyError::Malformed) }
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), CopyError> {
        if self.pending.len().saturating_add(rest.len()) > self.limit {
            return Err(CopyError::RowTooLong);
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Rewrites the whole rows at the front; gives how many bytes they are.
    fn rows(&mut self, data: &[u8], out: &mut BytesMut) -> Result<usize, CopyError> {
        let mut taken = 0usize;
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
            let Row::Ends { end, terminator } = self.find_row(rest)? else { break };
            self.scan = Scan::default();
            let row = rest.get(..end).ok_or(CopyError::Malformed)?;
            let start = out.len();
            let result = self.row(row, terminator, out);
            if result.is_err() {
                out.truncate(start);
            }
            result?;
            taken = taken.saturating_add(end);
        }
        Ok(taken)
    }

    fn find_row(&mut self, rest: &[u8]) -> Result<Row, CopyError> {
        match &self.format {
            Format::Text(_) => Ok(text::find_row(&mut self.scan, rest)),
            Format::Csv(csv) => Ok(csv.find_row(&mut self.scan, rest)),
            Format::Binary if self.preamble => binary::find_header(rest),
            Format::Binary if self.ended => Err(CopyError::Malformed),
            Format::Binary => binary::find_row(rest, self.columns.len()),
        }
    }

    fn row(&mut self, row: &[u8], terminator: usize, out: &mut BytesMut) -> Result<(), CopyError> {
        out.reserve(row.len().saturating_add(64));
        if self.preamble || matches!(self.format, Format::Binary) && row == binary::TRAILER {
            self.ended = !self.preamble;
            self.preamble = false;
            write(out, UpstreamTag::COPY_DATA.0, |out| out.extend_from_slice(row));
            return Ok(());
        }
        let mut result = Ok(());
        write(out, UpstreamTag::COPY_DATA.0, |out| result = self.fields(row, terminator, out));
        result
    }

    fn fields(&mut self, row: &[u8], terminator: usize, out: &mut BytesMut) -> Result<(), CopyError> {
        let (line, end) = row.split_at_checked(row.len().saturating_sub(terminator)).ok_or(CopyError::Malformed)?;
        match &self.format {
            Format::Text(text) => delimited::rewrite(text, &self.columns, line, &mut self.scratch, out)?,
            Format::Csv(csv) => delimited::rewrite(csv, &self.columns, line, &mut self.scratch, out)?,
            Format::Binary => return binary::rewrite(&self.columns, row, out),
        }
        out.extend_from_slice(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
