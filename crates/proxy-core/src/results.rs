//! What may come back: the rules by which a protocol session passes, masks or refuses result columns.
//!
//! The `masking` crate implements these; protocol crates call them. A session never knows a class or a
//! principal: it asks for each column, and applies what it is told.

use crate::ValueFormat;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::sync::Arc;

/// Where a result column comes from, as the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Object id of the table or view; 0 for an expression.
    pub table: u32,
    /// Number of the column in it, from 1; 0 for an expression.
    pub column: i16,
    /// The value's type number.
    pub type_id: u32,
}

/// How a value travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueType {
    /// The protocol's type number.
    pub type_id: u32,
    /// Its encoding.
    pub format: ValueFormat,
}

/// What a mask made of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The masked value was appended to the output; it is a valid value of the type in that format.
    Written,
    /// The masked value is NULL; nothing was appended.
    Null,
}

/// One way of masking, bound to a class.
pub trait Mask: Send + Sync + fmt::Debug {
    /// The data class that it protects.
    fn class(&self) -> &str;

    /// Masks `value` (never NULL), appending to `out`. Must not append anything of the clear value that
    /// the configured transform does not show.
    fn apply(&self, value: &[u8], value_type: ValueType, out: &mut BytesMut) -> Applied;
}

/// What happens to one result column.
#[derive(Debug, Clone)]
pub enum ColumnRule {
    /// Goes through as it is.
    Pass,
    /// Each value that is not NULL goes through the mask.
    Mask(Arc<dyn Mask>),
    /// The result must not reach the client; the text says why and what to do.
    Refuse(Arc<str>),
}

/// Decides column by column.
pub trait ResultRules: Send + Sync + fmt::Debug {
    /// The rule for a column that comes from `origin`.
    fn column(&self, origin: Origin) -> ColumnRule;
}

/// How the columns of a `COPY … TO STDOUT` are known.
#[derive(Debug, Clone, Default)]
pub enum CopyShape {
    /// Nothing in it is masked: bytes pass.
    #[default]
    Pass,
    /// The rule for each column in order, and how the stream is written.
    Columns {
        /// One for each column.
        rules: Vec<ColumnRule>,
        /// The stream's format.
        format: CopyFormat,
        /// Type number of each column, in the same order.
        types: Vec<u32>,
    },
    /// `COPY (query) TO STDOUT`: the session must have the server describe this query first, and apply
    /// [`ResultRules`] to what it says.
    Describe {
        /// The inner query's text.
        query: Bytes,
        /// The stream's format.
        format: CopyFormat,
    },
}

/// How COPY writes rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format.
    Text {
        /// One byte between values.
        delimiter: u8,
        /// What stands for NULL.
        null: Bytes,
        /// Whether the first line is the column names.
        header: bool,
    },
    /// CSV.
    Csv {
        /// One byte between values.
        delimiter: u8,
        /// The quoting byte.
        quote: u8,
        /// The byte that escapes a quote within quotes.
        escape: u8,
        /// What stands, unquoted, for NULL.
        null: Bytes,
        /// Whether the first line is the column names.
        header: bool,
    },
    /// PostgreSQL's binary format.
    Binary,
}

/// What may come back for one permitted request.
#[derive(Debug, Clone, Default)]
pub struct Disclosure {
    /// Rules for its columns. `None`: nothing that this request can return is masked for this principal,
    /// so results pass unread.
    pub rules: Option<Arc<dyn ResultRules>>,
    /// The server's error and notice texts may quote masked values: pass severity, code and position alone.
    pub withhold_messages: bool,
    /// The shape of a COPY TO STDOUT.
    pub copy: CopyShape,
}
