//! What a request would do, in words that are the same for every protocol.
//!
//! A SQL statement, a Kubernetes request and an SSH command all become a set of [`Operation`]s on
//! [`Object`]s. Policy decides on these alone.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kinds of objects that policies speak of: Cedar's resource entity types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// The target as a whole; path is empty.
    Connection,
    /// A database; path is empty: the session's own.
    Database,
    /// A schema: `[schema]`.
    Schema,
    /// A table, view or sequence: `[schema, table]`.
    Table,
    /// A function or procedure: `[schema, function]`.
    Function,
    /// A Kubernetes namespace: `[namespace]`.
    Namespace,
    /// A Kubernetes resource: `[namespace, group/resource]` or `[namespace, group/resource, name]`.
    KubeResource,
    /// An SSH host: path is empty; or a path on it: `[path]`.
    Host,
}

impl ObjectKind {
    /// The Cedar entity type's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "Connection",
            Self::Database => "Database",
            Self::Schema => "Schema",
            Self::Table => "Table",
            Self::Function => "Function",
            Self::Namespace => "Namespace",
            Self::KubeResource => "KubeResource",
            Self::Host => "Host",
        }
    }
}

/// An object within the session's target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Which kind.
    pub kind: ObjectKind,
    /// Its name, outermost part first; see [`ObjectKind`].
    pub path: Vec<String>,
}

impl Object {
    /// An object of `kind` named by `path`.
    pub fn new<P: Into<String>>(kind: ObjectKind, path: impl IntoIterator<Item = P>) -> Self {
        Self { kind, path: path.into_iter().map(Into::into).collect() }
    }
}

impl std::fmt::Display for Object {
    /// `table public.customers`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            ObjectKind::Connection => "connection",
            ObjectKind::Database => "database",
            ObjectKind::Schema => "schema",
            ObjectKind::Table => "table",
            ObjectKind::Function => "function",
            ObjectKind::Namespace => "namespace",
            ObjectKind::KubeResource => "resource",
            ObjectKind::Host => "host",
        };
        if self.path.is_empty() { f.write_str(kind) } else { write!(f, "{kind} {}", self.path.join(".")) }
    }
}

/// One action on one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// The action's name: `select`, `delete`, `exec` … (the policy schema lists them).
    pub action: String,
    /// On what.
    pub object: Object,
    /// Whether the operation is limited by a condition (`WHERE`): `None` where the question makes no sense.
    pub has_where: Option<bool>,
}

/// Why something about a request is not known. An unknown part is the action `unknown`, denied unless permitted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unknown {
    /// What could not be told, in words for the caller: "function public.f is not declared safe".
    pub what: String,
}

/// What one request would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Every action on every object, sorted, without duplicates.
    pub operations: Vec<Operation>,
    /// What could not be told. Not empty: the request is `unknown`.
    pub unknown: Vec<Unknown>,
    /// Kinds of the request's parts, in order: `SELECT`, `UPDATE` …
    pub kinds: Vec<String>,
    /// Further attributes for policies, by name.
    pub attributes: BTreeMap<String, String>,
}

impl Facts {
    /// Adds an operation unless it is there already.
    pub fn add(&mut self, operation: Operation) {
        if let Err(at) = self.operations.binary_search(&operation) {
            self.operations.insert(at, operation);
        }
    }

    /// Adds a reason why the request is unknown.
    pub fn add_unknown(&mut self, what: impl Into<String>) {
        let unknown = Unknown { what: what.into() };
        if !self.unknown.contains(&unknown) {
            self.unknown.push(unknown);
        }
    }
}
