//! Masking a `COPY … TO STDOUT` stream: splits it into rows, in text, CSV and binary format, and rewrites
//! the columns that are masked.
//!
//! The upstream may cut the stream into CopyData messages anywhere; a row is collected up to a limit. The
//! output has one row for each CopyData. Rows are read as the server writes them (src/backend/commands/copyto.c);
//! what it would not write is an error.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9>

use crate::frame::{Reader, write};
use crate::types::UpstreamTag;
use bytes::{BufMut, Bytes, BytesMut};
use proxy_core::results::CopyFormat;
use proxy_core::{Applied, ColumnRule, Mask, ValueFormat, ValueType};
use std::sync::Arc;

/// First bytes of the binary format.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

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

/// Rewrites one stream.
#[derive(Debug)]
pub struct Rewriter {
    columns: Vec<Option<(Arc<dyn Mask>, ValueType)>>,
    format: CopyFormat,
    limit: usize,
    /// The beginning of a row whose end has not come.
    pending: Vec<u8>,
    scan: Scan,
    /// What comes before the first row is still to come.
    preamble: bool,
    /// The binary format's trailer has come.
    ended: bool,
    clear: Vec<u8>,
    masked: BytesMut,
}

/// How far the search for a row's end has come.
#[derive(Debug, Default, Clone, Copy)]
struct Scan {
    at: usize,
    quoted: bool,
    /// The byte before was an escape, or a quote that may be the first half of one.
    half: bool,
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
        let preamble = match &format {
            CopyFormat::Text { header, .. } | CopyFormat::Csv { header, .. } => *header,
            CopyFormat::Binary => true,
        };
        Self {
            columns: columns.collect(),
            format,
            limit,
            pending: Vec::new(),
            scan: Scan::default(),
            preamble,
            ended: false,
            clear: Vec::new(),
            masked: BytesMut::new(),
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
        let pending = std::mem::take(&mut self.pending);
        let taken = self.rows(&pending, out)?;
        if taken == 0 {
            self.pending = pending;
            Ok(())
        } else {
            self.keep(pending.get(taken..).unwrap_or_default())
        }
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
        match self.format {
            CopyFormat::Text { .. } => {
                let unseen = rest.get(self.scan.at..).unwrap_or_default();
                let Some(at) = unseen.iter().position(|b| *b == b'\n') else {
                    self.scan.at = rest.len();
                    return Ok(Row::Partial);
                };
                Ok(Row::Ends { end: self.scan.at.saturating_add(at).saturating_add(1), terminator: 1 })
            }
            CopyFormat::Csv { quote, escape, .. } => Ok(self.find_csv_row(rest, quote, escape)),
            CopyFormat::Binary if self.preamble => binary_header(rest),
            CopyFormat::Binary if self.ended => Err(CopyError::Malformed),
            CopyFormat::Binary => binary_row(rest, self.columns.len()),
        }
    }

    fn find_csv_row(&mut self, rest: &[u8], quote: u8, escape: u8) -> Row {
        let scan = &mut self.scan;
        for byte in rest.get(scan.at..).unwrap_or_default() {
            scan.at = scan.at.saturating_add(1);
            if !scan.quoted {
                match *byte {
                    b'\n' => return Row::Ends { end: scan.at, terminator: 1 },
                    byte if byte == quote => scan.quoted = true,
                    _ => {}
                }
            } else if scan.half {
                scan.half = false;
            } else if escape != quote && *byte == escape {
                scan.half = true;
            } else if *byte == quote {
                // A doubled quote opens again at once.
                scan.quoted = false;
            }
        }
        Row::Partial
    }

    fn row(&mut self, row: &[u8], terminator: usize, out: &mut BytesMut) -> Result<(), CopyError> {
        if self.preamble || row == b"\xff\xff" && is_binary(&self.format) {
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
        match self.format.clone() {
            CopyFormat::Text { delimiter, null, .. } => self.text_fields(line, delimiter, &null, out)?,
            CopyFormat::Csv { delimiter, quote, escape, null, .. } => {
                let dialect = Csv { delimiter, quote, escape, null };
                self.csv_fields(line, &dialect, out)?;
            }
            CopyFormat::Binary => self.binary_fields(line, out)?,
        }
        out.extend_from_slice(end);
        Ok(())
    }

    fn text_fields(&mut self, line: &[u8], delimiter: u8, null: &[u8], out: &mut BytesMut) -> Result<(), CopyError> {
        let mut rest = Some(line);
        for (at, column) in self.columns.iter().enumerate() {
            let Some(remaining) = rest else { return Err(CopyError::Malformed) };
            let (field, after) = split_text(remaining, delimiter);
            rest = after;
            if at > 0 {
                out.put_u8(delimiter);
            }
            let Some((mask, value_type)) = column.as_ref().filter(|_| field != null) else {
                out.extend_from_slice(field);
                continue;
            };
            self.clear.clear();
            unescape(field, &mut self.clear)?;
            self.masked.clear();
            match mask.apply(&self.clear, *value_type, &mut self.masked) {
                Applied::Written => escape_text(&self.masked, delimiter, out),
                Applied::Null => out.extend_from_slice(null),
            }
        }
        if rest.is_some() { Err(CopyError::Malformed) } else { Ok(()) }
    }

    fn csv_fields(&mut self, line: &[u8], csv: &Csv, out: &mut BytesMut) -> Result<(), CopyError> {
        let mut rest = Some(line);
        let single = self.columns.len() == 1;
        for (at, column) in self.columns.iter().enumerate() {
            let Some(remaining) = rest else { return Err(CopyError::Malformed) };
            let (field, after) = csv.split(remaining)?;
            rest = after;
            if at > 0 {
                out.put_u8(csv.delimiter);
            }
            let Some((mask, value_type)) = column.as_ref().filter(|_| field != csv.null) else {
                out.extend_from_slice(field);
                continue;
            };
            self.clear.clear();
            let quoted = csv.unquote(field, &mut self.clear)?;
            self.masked.clear();
            match mask.apply(&self.clear, *value_type, &mut self.masked) {
                Applied::Written => csv.put(&self.masked, quoted, single, out),
                Applied::Null => out.extend_from_slice(&csv.null),
            }
        }
        if rest.is_some() { Err(CopyError::Malformed) } else { Ok(()) }
    }

    fn binary_fields(&mut self, row: &[u8], out: &mut BytesMut) -> Result<(), CopyError> {
        let malformed = |_| CopyError::Malformed;
        let mut reader = Reader::new(row);
        let count = reader.i16().map_err(malformed)?;
        out.put_i16(count);
        for column in &self.columns {
            let value = reader.value().map_err(malformed)?;
            let Some(value) = value else {
                out.put_i32(-1);
                continue;
            };
            let Some((mask, value_type)) = column else {
                out.put_u32(u32::try_from(value.len()).map_err(|_| CopyError::Malformed)?);
                out.extend_from_slice(value);
                continue;
            };
            self.masked.clear();
            match mask.apply(value, *value_type, &mut self.masked) {
                Applied::Written => {
                    out.put_u32(u32::try_from(self.masked.len()).map_err(|_| CopyError::Malformed)?);
                    out.extend_from_slice(&self.masked);
                }
                Applied::Null => out.put_i32(-1),
            }
        }
        reader.end().map_err(malformed)
    }
}

/// The header of the binary format: signature, flags, extension.
fn binary_header(rest: &[u8]) -> Result<Row, CopyError> {
    let Some((signature, after)) = rest.split_at_checked(SIGNATURE.len()) else {
        return if SIGNATURE.starts_with(rest) { Ok(Row::Partial) } else { Err(CopyError::Malformed) };
    };
    if signature != SIGNATURE {
        return Err(CopyError::Malformed);
    }
    let mut reader = Reader::new(after);
    let (Ok(flags), Ok(extension)) = (reader.u32(), reader.i32()) else { return Ok(Row::Partial) };
    let extension = usize::try_from(extension).map_err(|_| CopyError::Malformed)?;
    // The upper half are flags that a reader must know; bit 16 says that rows carry object ids.
    if flags >> 16 != 0 {
        return Err(CopyError::Malformed);
    }
    if reader.take(extension).is_err() {
        return Ok(Row::Partial);
    }
    Ok(Row::Ends { end: rest.len().saturating_sub(reader.rest().len()), terminator: 0 })
}

/// A row of the binary format, or its trailer.
fn binary_row(rest: &[u8], columns: usize) -> Result<Row, CopyError> {
    let mut reader = Reader::new(rest);
    let Ok(count) = reader.i16() else { return Ok(Row::Partial) };
    if count == -1 {
        return Ok(Row::Ends { end: 2, terminator: 0 });
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(CopyError::Malformed);
    }
    for _ in 0..columns {
        match reader.value() {
            Ok(_) => {}
            Err(crate::error::Malformed::Negative) => return Err(CopyError::Malformed),
            Err(_) => return Ok(Row::Partial),
        }
    }
    Ok(Row::Ends { end: rest.len().saturating_sub(reader.rest().len()), terminator: 0 })
}

/// The field at the front and what follows its delimiter. A backslash takes the next byte along.
fn split_text(line: &[u8], delimiter: u8) -> (&[u8], Option<&[u8]>) {
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if *byte == b'\\' {
            escaped = true;
        } else if *byte == delimiter {
            let (field, rest) = line.split_at_checked(at).unwrap_or((line, &[]));
            return (field, Some(rest.get(1..).unwrap_or_default()));
        }
    }
    (line, None)
}

/// Undoes the text format's escapes.
fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), CopyError> {
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let escaped = bytes.next().ok_or(CopyError::Malformed)?;
        out.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => {
                let mut value = u32::from(escaped.wrapping_sub(b'0'));
                for _ in 0..2 {
                    let Some(digit) = bytes.next_if(|b| (b'0'..=b'7').contains(b)) else { break };
                    value = value.wrapping_mul(8).wrapping_add(u32::from(digit.wrapping_sub(b'0')));
                }
                value.to_le_bytes().first().copied().unwrap_or_default()
            }
            other => other,
        });
    }
    Ok(())
}

/// Writes a value in the text format: `CopyAttributeOutText`.
fn escape_text(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        let letter = match *byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            byte if byte == delimiter => byte,
            byte => {
                out.put_u8(byte);
                continue;
            }
        };
        out.put_u8(b'\\');
        out.put_u8(letter);
    }
}

/// How a CSV stream is written.
struct Csv {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Bytes,
}

impl Csv {
    /// The field at the front, quotes included, and what follows its delimiter.
    fn split<'a>(&self, line: &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), CopyError> {
        let (mut quoted, mut half) = (false, false);
        for (at, byte) in line.iter().enumerate() {
            if !quoted {
                if *byte == self.delimiter {
                    let (field, rest) = line.split_at_checked(at).ok_or(CopyError::Malformed)?;
                    return Ok((field, Some(rest.get(1..).unwrap_or_default())));
                }
                quoted = *byte == self.quote;
            } else if half {
                half = false;
            } else if self.escape != self.quote && *byte == self.escape {
                half = true;
            } else if *byte == self.quote {
                quoted = false;
            }
        }
        if quoted { Err(CopyError::Malformed) } else { Ok((line, None)) }
    }

    /// Undoes quotes; tells whether there were any.
    fn unquote(&self, field: &[u8], out: &mut Vec<u8>) -> Result<bool, CopyError> {
        let Some(inner) = field.strip_prefix(&[self.quote]) else {
            out.extend_from_slice(field);
            return Ok(false);
        };
        let inner = inner.strip_suffix(&[self.quote]).ok_or(CopyError::Malformed)?;
        let mut bytes = inner.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if byte == self.escape
                && let Some(escaped) = bytes.next_if(|next| *next == self.quote || *next == self.escape)
            {
                out.push(escaped);
            } else if byte == self.quote {
                return Err(CopyError::Malformed);
            } else {
                out.push(byte);
            }
        }
        Ok(true)
    }

    /// Writes a value: `CopyAttributeOutCSV`. What was quoted stays quoted.
    fn put(&self, value: &[u8], quoted: bool, single: bool, out: &mut BytesMut) {
        let special = |b: &u8| *b == self.delimiter || *b == self.quote || *b == b'\n' || *b == b'\r';
        let ends_data = single && value == b"\\.";
        if !(quoted || ends_data || value == self.null || value.iter().any(special)) {
            out.extend_from_slice(value);
            return;
        }
        out.put_u8(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.put_u8(self.escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(self.quote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubles the value's bytes; `null` becomes NULL.
    #[derive(Debug)]
    struct Twice;

    impl Mask for Twice {
        fn class(&self) -> &str {
            "twice"
        }

        fn apply(&self, value: &[u8], _: ValueType, out: &mut BytesMut) -> Applied {
            if value == b"null" {
                return Applied::Null;
            }
            out.extend_from_slice(value);
            out.extend_from_slice(value);
            Applied::Written
        }
    }

    fn text() -> CopyFormat {
        CopyFormat::Text { delimiter: b'\t', null: Bytes::from_static(b"\\N"), header: false }
    }

    fn csv() -> CopyFormat {
        CopyFormat::Csv { delimiter: b',', quote: b'"', escape: b'"', null: Bytes::new(), header: true }
    }

    /// The second column is masked.
    fn rewriter(format: CopyFormat) -> Rewriter {
        Rewriter::new(vec![ColumnRule::Pass, ColumnRule::Mask(Arc::new(Twice))], &[23, 25], format, 1 << 16)
    }

    fn payload(mut frames: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        while let Some(header) = crate::frame::peek(frames).unwrap() {
            data.extend_from_slice(&frames[5..header.total]);
            frames = &frames[header.total..];
        }
        data
    }

    /// Feeds in pieces of every size: the output must not depend on how the stream is cut.
    fn check(format: &CopyFormat, input: &[u8], expected: &[u8]) {
        for size in 1..=input.len() {
            let (mut rewriter, mut out) = (rewriter(format.clone()), BytesMut::new());
            for piece in input.chunks(size) {
                rewriter.feed(piece, &mut out).unwrap();
            }
            rewriter.finish().unwrap();
            assert_eq!(payload(&out), expected, "pieces of {size}: {}", String::from_utf8_lossy(&payload(&out)));
        }
    }

    #[test]
    fn text_rows_are_rewritten() {
        check(&text(), b"1\ta\n\\N\t\\N\n2\tnull\n3\t\n", b"1\taa\n\\N\t\\N\n2\t\\N\n3\t\n");
    }

    #[test]
    fn text_escapes_hide_no_delimiter_and_no_row_end() {
        check(&text(), b"1\ta\\tb\\\\\n", b"1\ta\\tb\\\\a\\tb\\\\\n");
        let format = CopyFormat::Text { delimiter: b'|', null: Bytes::from_static(b"\\N"), header: true };
        check(&format, b"id|name\n1|a\\|b\n", b"id|name\n1|a\\|ba\\|b\n");
        check(&text(), b"1\t\\x41\\101\n", b"1\tx41Ax41A\n");
    }

    #[test]
    fn csv_rows_are_rewritten() {
        check(&csv(), b"id,\"na\nme\"\n1,a\n2,\n3,\"\"\n", b"id,\"na\nme\"\n1,aa\n2,\n3,\"\"\n");
        check(&csv(), b"h,h\n1,\"a,\n\"\"b\"\n", b"h,h\n1,\"a,\n\"\"ba,\n\"\"b\"\n");
        check(&csv(), b"h,h\n1,null\n", b"h,h\n1,\n");
        let format =
            CopyFormat::Csv { delimiter: b';', quote: b'\'', escape: b'\\', null: Bytes::from_static(b"-"), header: false };
        check(&format, b"1;'a\\';\\\\'\n2;-\n3;'-'\n", b"1;'a\\';\\\\a\\';\\\\'\n2;-\n3;'--'\n");
    }

    #[test]
    fn binary_rows_are_rewritten() {
        let header = [SIGNATURE, &[0, 0, 0, 0, 0, 0, 0, 1, 9]].concat();
        let row = b"\0\x02\0\0\0\x01x\0\0\0\x02ab\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        let masked = b"\0\x02\0\0\0\x01x\0\0\0\x04abab\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        check(&CopyFormat::Binary, &[&header[..], row].concat(), &[&header[..], masked].concat());
    }

    #[test]
    fn rows_with_other_columns_are_malformed_and_leave_nothing() {
        for (format, input) in [
            (text(), &b"1\n"[..]),
            (text(), b"1\t2\t3\n"),
            (csv(), b"h\n1\n"),
            (csv(), b"h\n1,2,3\n"),
            (csv(), b"h\n1,\"a\"b\"\n\"\n"),
            (CopyFormat::Binary, b"PGCOPX"),
            (CopyFormat::Binary, b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0"),
            (CopyFormat::Binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\xff\xff\xff\xff"),
        ] {
            let (mut rewriter, mut out) = (rewriter(format), BytesMut::new());
            assert_eq!(rewriter.feed(input, &mut out), Err(CopyError::Malformed), "{input:?}");
            assert!(!payload(&out).windows(2).any(|w| w == b"11"));
        }
        let mut rewriter = rewriter(CopyFormat::Binary);
        let mut out = BytesMut::new();
        rewriter.feed(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff", &mut out).unwrap();
        assert_eq!(rewriter.feed(b"\0\x02", &mut out), Err(CopyError::Malformed), "nothing comes after the trailer");
    }

    #[test]
    fn a_row_without_an_end_is_bounded() {
        let mut rewriter = Rewriter::new(vec![ColumnRule::Pass], &[25], text(), 100);
        let mut out = BytesMut::new();
        assert_eq!(rewriter.feed(&[b'a'; 101], &mut out), Err(CopyError::RowTooLong));
        let mut rewriter = Rewriter::new(vec![ColumnRule::Pass], &[25], text(), 100);
        rewriter.feed(&[b'a'; 60], &mut out).unwrap();
        assert_eq!(rewriter.finish(), Err(CopyError::Malformed));
        assert_eq!(rewriter.feed(&[b'a'; 60], &mut out), Err(CopyError::RowTooLong));
    }
}
