//! The cases of `sallyport policy test`: a file in TOML, read whole or not at all.

use super::Kind;
use crate::cli::Failure;
use control_plane::units::parse_time;
use proxy_core::catalog::{Catalog, Column, Relation, RelationKind};
use proxy_core::{PrincipalKind, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;

/// Longest file of cases (4 MiB), as for the configuration.
const FILE_MAX: u64 = 4 << 20;

/// The type that columns of a case's table have: text.
const TEXT: u32 = 25;

/// Object ids of a case's tables begin here: the first that a server gives to a user's object.
const FIRST_OID: u32 = 16_384;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// The tables that statements may name, where the target itself is not asked.
    #[serde(default, rename = "table")]
    tables: Vec<Table>,
    /// The cases.
    #[serde(default, rename = "case")]
    pub(super) cases: Vec<Spanned<Case>>,
}

/// One table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// `SCHEMA.NAME`.
    name: String,
    /// Its columns, in order.
    columns: Vec<String>,
    /// On this connection alone; on all if left out.
    connection: Option<String>,
}

/// One case: who asks what, and what is to come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) principal: String,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    #[serde(default = "service")]
    pub(super) kind: PrincipalKind,
    #[serde(default)]
    pub(super) claims: BTreeMap<String, String>,
    pub(super) connection: String,
    pub(super) database: Option<String>,
    #[serde(default = "loopback")]
    pub(super) source: String,
    #[serde(default)]
    pub(super) application: String,
    at: Option<String>,
    pub(super) statement: String,
    pub(super) expect: Expected,
    /// One of the policies that determine the decision.
    pub(super) policy: Option<String>,
    /// The classes whose columns come back masked.
    pub(super) masked: Option<Vec<String>>,
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expected {
    Allow,
    Deny,
    Hold,
}

impl Expected {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
        }
    }
}

fn service() -> PrincipalKind {
    Kind::Service.into()
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

impl Case {
    /// When it is asked; `now` where the case does not say.
    pub(super) fn at(&self, now: Timestamp) -> Result<Timestamp, String> {
        self.at.as_deref().map_or(Ok(now), |text| parse_time(text, now).ok_or_else(|| format!("at = {text:?} is not a time")))
    }
}

/// Reads a file; returns its text as well, for the lines of its cases.
pub(super) fn read(file: &Path) -> Result<(Cases, String), Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if length > FILE_MAX {
        return Err(wrong("is larger than 4 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let cases: Cases = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| line(&text, span.start));
        Failure::usage(format!("{}:{line}: {}", file.display(), error.message().trim()))
    })?;
    if cases.cases.is_empty() {
        // What tests nothing must not pass.
        return Err(wrong("there is no [[case]] in it".to_owned()));
    }
    if let Some(table) = cases.tables.iter().find(|table| !table.name.contains('.')) {
        return Err(wrong(format!("table {:?} is not SCHEMA.NAME", table.name)));
    }
    Ok((cases, text))
}

/// The line of a place in the text, from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

impl Cases {
    /// The catalogue that the file's tables make for a connection.
    pub(super) fn catalog(&self, connection: &str) -> Catalog {
        let mine = self.tables.iter().filter(|table| table.connection.as_ref().is_none_or(|name| name == connection));
        let relations = mine.zip(FIRST_OID..).filter_map(|(table, oid)| relation(table, oid)).collect();
        Catalog::new(1, 150_000, vec!["public".to_owned()], relations, Vec::new())
    }
}

fn relation(table: &Table, oid: u32) -> Option<Relation> {
    let (schema, name) = table.name.split_once('.')?;
    let columns = table.columns.iter().zip(1..);
    let columns = columns.map(|(name, number)| Column { number, name: name.clone(), type_id: TEXT, generated: false });
    Some(Relation {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind: RelationKind::Table,
        columns: columns.collect(),
        definition: None,
        parents: Vec::new(),
    })
}
