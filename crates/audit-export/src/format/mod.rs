//! The formats, one file each.

mod cef;
mod columns;
mod csv;
mod ecs;
mod jsonl;
mod ocsf;
mod parquet;
#[cfg(test)]
mod tests;

use crate::context::{LogInfo, SessionContext};
use crate::text::Texts;
use audit_store::StoredEntry;
use serde::{Serialize, Serializer};
use std::str::FromStr;
use std::{fmt, io};

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON Lines: the log's own JSON form, one entry in each line.
    Jsonl,
    /// OCSF 1.8 events, one in each line.
    Ocsf,
    /// CEF version 0, one event in each line.
    Cef,
    /// Elastic Common Schema documents, one in each line.
    Ecs,
    /// RFC 4180 with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// Not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a format; formats are jsonl, ocsf, cef, ecs, csv, parquet")]
pub struct UnknownFormat(String);

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Jsonl, Self::Ocsf, Self::Cef, Self::Ecs, Self::Csv, Self::Parquet];

    /// Its name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Ocsf => "ocsf",
            Self::Cef => "cef",
            Self::Ecs => "ecs",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// The version of what it follows, for the manifest.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::Jsonl => "1",
            Self::Ocsf => ocsf::VERSION,
            Self::Cef => "0",
            Self::Ecs => ecs::VERSION,
            Self::Csv => "RFC 4180",
            Self::Parquet => "2",
        }
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl | Self::Ocsf | Self::Ecs => "application/x-ndjson",
            Self::Cef => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Whether each entry is one line of its own, so that entries can be sent one by one.
    #[must_use]
    pub fn is_lines(self) -> bool {
        match self {
            Self::Jsonl | Self::Ocsf | Self::Cef | Self::Ecs => true,
            Self::Csv | Self::Parquet => false,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == name).ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An entry that has no form in a format: a defect, as every entry has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} cannot be written as {format}: {why}")]
pub struct EncodeError {
    /// Which entry; for what stands around entries, the last one.
    pub index: u64,
    /// The format.
    pub format: Format,
    /// The library's words.
    pub why: String,
}

/// Turns entries into bytes. What it holds between calls is bounded: nothing, or one row group.
pub trait Encoder: Send {
    /// What stands before the first entry.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// One entry. `session`: whose it is, where the log knows.
    ///
    /// # Errors
    /// [`EncodeError`]: a defect.
    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// What stands after the last entry.
    ///
    /// # Errors
    /// [`EncodeError`]: a defect.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let _ = out;
        Ok(())
    }
}

/// An encoder of that format, for entries of that log.
#[must_use]
pub fn encoder(format: Format, log: &LogInfo, texts: Texts) -> Box<dyn Encoder> {
    let log = log.clone();
    match format {
        Format::Jsonl => Box::new(jsonl::JsonLines { texts }),
        Format::Ocsf => Box::new(ocsf::Ocsf { log, texts }),
        Format::Cef => Box::new(cef::Cef { log, texts }),
        Format::Ecs => Box::new(ecs::Ecs { log, texts }),
        Format::Csv => Box::new(csv::Csv { texts }),
        Format::Parquet => Box::new(parquet::Parquet::new(log, texts)),
    }
}

/// JSON without spaces, and without what some readers take for the end of a line: JSON escapes control characters up to
/// U+001F alone, and the others are escaped here as well.
struct OneLine;

/// Characters that JSON may have as they are, and that end a line for Unicode (UAX 14) or move a terminal.
const BREAKS: [char; 4] = ['\u{7f}', '\u{85}', '\u{2028}', '\u{2029}'];

impl serde_json::ser::Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(BREAKS) {
            let (before, from) = rest.split_at(at);
            let mut characters = from.chars();
            let code = characters.next().map_or(0, u32::from);
            write!(writer, "{before}\\u{code:04x}")?;
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// The same within another text.
fn json_text(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    match value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, OneLine)) {
        Ok(()) => String::from_utf8(out).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// One JSON document and a line break.
fn json_line(index: u64, format: Format, value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let begin = out.len();
    if let Err(error) = value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, OneLine)) {
        out.truncate(begin);
        return Err(EncodeError { index, format, why: error.to_string() });
    }
    out.push(b'\n');
    Ok(())
}

/// Leaves out what says nothing: nulls, empty texts, empty lists and tables. Values of `false` and 0 stay.
fn without_empty(value: serde_json::Value) -> Option<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(list) => {
            let list: Vec<Value> = list.into_iter().filter_map(without_empty).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(map) => {
            let map: serde_json::Map<String, Value> =
                map.into_iter().filter_map(|(name, value)| without_empty(value).map(|value| (name, value))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other),
    }
}
