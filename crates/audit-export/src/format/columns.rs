//! The columns of the two tables, CSV and Parquet: one list for both.

use crate::row::Row;
use crate::text::rfc3339;
use proxy_core::record::{OutcomeStatus, RecordedVerdict};
use serde_json::json;
use std::borrow::Cow;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number, 64 bits.
    Number,
    /// Microseconds since 1970, UTC.
    Time,
    /// Text; a list is a JSON array of texts, a table a JSON object.
    Text,
    /// Yes or no.
    Truth,
}

/// A value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell<'r> {
    Number(Option<u64>),
    Time(i64),
    Text(Option<Cow<'r, str>>),
    Truth(Option<bool>),
}

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether every row has a value.
    pub(super) required: bool,
    pub(super) value: fn(&Row) -> Cell<'_>,
}

const fn column(name: &'static str, kind: Kind, value: fn(&Row) -> Cell<'_>) -> Column {
    Column { name, kind, required: false, value }
}

const fn required(name: &'static str, kind: Kind, value: fn(&Row) -> Cell<'_>) -> Column {
    Column { name, kind, required: true, value }
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text((!text.is_empty()).then_some(Cow::Borrowed(text)))
}

fn optional(text: &Option<String>) -> Cell<'_> {
    Cell::Text(text.as_deref().map(Cow::Borrowed))
}

fn word(word: Option<&'static str>) -> Cell<'static> {
    Cell::Text(word.map(Cow::Borrowed))
}

fn list(list: &[String]) -> Cell<'static> {
    Cell::Text((!list.is_empty()).then(|| json!(list).to_string().into()))
}

fn share(row: &Row, at: usize) -> Cell<'static> {
    Cell::Number(row.columns.and_then(|columns| columns.get(at).copied()))
}

/// The columns, in order. Names and kinds are part of the interface: new ones go to the end.
pub(super) const COLUMNS: [Column; 39] = [
    required("index", Kind::Number, |row| Cell::Number(Some(row.index))),
    required("time", Kind::Time, |row| Cell::Time(row.time.0)),
    required("event", Kind::Text, |row| word(Some(row.kind.as_str()))),
    column("session", Kind::Text, |row| Cell::Text(row.session.map(|id| id.to_string().into()))),
    column("number", Kind::Number, |row| Cell::Number(row.number)),
    column("principal", Kind::Text, |row| text(&row.who.principal)),
    column("principal_kind", Kind::Text, |row| text(&row.who.principal_kind)),
    column("label", Kind::Text, |row| text(&row.who.label)),
    column("application", Kind::Text, |row| text(&row.who.application)),
    column("source", Kind::Text, |row| text(&row.who.source)),
    column("protocol", Kind::Text, |row| text(&row.who.protocol)),
    column("connection", Kind::Text, |row| text(&row.who.connection)),
    column("target_address", Kind::Text, |row| text(&row.who.address)),
    column("database", Kind::Text, |row| text(&row.who.database)),
    column("upstream_user", Kind::Text, |row| text(&row.who.upstream_user)),
    column("request", Kind::Number, |row| Cell::Number(row.request)),
    column("request_kind", Kind::Text, |row| word(row.request_kind)),
    column("statement", Kind::Text, |row| optional(&row.statement)),
    column("statement_base64", Kind::Truth, |row| Cell::Truth(row.statement.as_ref().map(|_| row.statement_base64))),
    column("actions", Kind::Text, |row| list(&row.actions)),
    column("objects", Kind::Text, |row| list(&row.objects)),
    column("verdict", Kind::Text, |row| word(row.verdict.map(RecordedVerdict::as_str))),
    column("reason", Kind::Text, |row| optional(&row.reason)),
    column("policies", Kind::Text, |row| list(&row.policies)),
    column("policy_version", Kind::Text, |row| optional(&row.policy_version)),
    column("status", Kind::Text, |row| word(row.status.map(OutcomeStatus::as_str))),
    column("code", Kind::Text, |row| optional(&row.code)),
    column("tag", Kind::Text, |row| optional(&row.tag)),
    column("rows", Kind::Number, |row| Cell::Number(row.rows)),
    column("bytes", Kind::Number, |row| Cell::Number(row.bytes)),
    column("duration_micros", Kind::Number, |row| Cell::Number(row.duration_micros)),
    column("columns_passed", Kind::Number, |row| share(row, 0)),
    column("columns_masked", Kind::Number, |row| share(row, 1)),
    column("columns_refused", Kind::Number, |row| share(row, 2)),
    column("masked_classes", Kind::Text, |row| list(&row.masked_classes)),
    column("actor", Kind::Text, |row| optional(&row.actor)),
    column("action", Kind::Text, |row| optional(&row.action)),
    column("object", Kind::Text, |row| optional(&row.object)),
    column("details", Kind::Text, |row| {
        let shown = || serde_json::to_string(&row.details).unwrap_or_default().into();
        Cell::Text((!row.details.is_empty()).then(shown))
    }),
];

impl Cell<'_> {
    /// As text, for CSV; `None`: no value.
    pub(super) fn shown(self) -> Option<String> {
        match self {
            Self::Number(number) => number.map(|number| number.to_string()),
            Self::Time(micros) => Some(rfc3339(proxy_core::Timestamp(micros))),
            Self::Text(text) => text.map(Cow::into_owned),
            Self::Truth(truth) => truth.map(|truth| truth.to_string()),
        }
    }
}
