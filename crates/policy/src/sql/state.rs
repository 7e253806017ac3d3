//! What one session did that changes what later statements mean.
//!
//! The server may undo any of it (a rollback, a failed statement), and does not say so. So nothing is ever
//! forgotten here: what a name *may* mean is the union of all that it meant, and a search path that was touched
//! once is uncertain for good. A statement is judged by everything that it may be.

use super::{Analysis, RelationUse};
use proxy_core::Catalog;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most names of each sort (temporary tables, prepared statements, cursors …) that a session is remembered by.
/// What is beyond is not known, and so refused by name.
pub const NAMES_MAX: usize = 10_000;

/// Most different statements that are remembered under one name. A client that reuses one name for ever more
/// statements can run them by the protocol, which shows their text, but not by `EXECUTE`.
pub const SAME_NAME_MAX: usize = 16;

/// Which schemas unqualified names are looked up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// What the login's new sessions have: the catalogue knows.
    Default,
    /// What the client asked for when it connected. Those that the login may not use are skipped by the
    /// server, so each of these may be the one.
    Startup(Vec<String>),
    /// Anything.
    Uncertain,
}

/// What a statement changes for later ones, if the server carries it out.
#[derive(Debug, Clone)]
pub enum Effect {
    /// The search path, or the role that `"$user"` stands for, may be different.
    UncertainPath,
    /// There may be a temporary relation of this name.
    MakesTemp(String),
    /// A function of this name (whatever its schema) may be called in the place of a built-in one.
    MakesFunction {
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
    },
    /// What was `uses` may have this name now.
    Renames {
        /// The new name.
        name: String,
        /// What it was.
        uses: Vec<RelationUse>,
    },
    /// What was in the schema `from` may be in `to`.
    RenamesSchema {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// A statement has been prepared under this name.
    Prepares(String, Arc<Analysis>),
    /// A cursor of this name has been declared.
    DeclaresCursor(String, Arc<Analysis>),
}

/// What a name stands for. `None`: too many things.
type Meanings = Option<Vec<Arc<Analysis>>>;

/// One session's memory.
#[derive(Debug, Clone)]
pub struct SqlState {
    generation: u64,
    pub(super) path: Path,
    pub(super) temps: BTreeSet<String>,
    pub(super) made_functions: BTreeMap<String, BTreeSet<String>>,
    pub(super) renamed: BTreeMap<String, BTreeSet<RelationUse>>,
    pub(super) renamed_schemas: BTreeMap<String, BTreeSet<String>>,
    /// More was made than is remembered: nothing that depends on names is certain any more.
    pub(super) overflowed: bool,
    prepared: BTreeMap<String, Meanings>,
    cursors: BTreeMap<String, Meanings>,
}

impl SqlState {
    /// The memory of a session that begins with these settings.
    #[must_use]
    pub fn new(settings: &[(String, String)], catalog: Option<&Catalog>) -> Self {
        // The catalogue may come or change later: the default path is looked up when it is needed.
        let _ = catalog;
        let path = settings.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("search_path"));
        Self {
            generation: 0,
            path: path.map_or(Path::Default, |(_, value)| startup_path(value)),
            temps: BTreeSet::new(),
            made_functions: BTreeMap::new(),
            renamed: BTreeMap::new(),
            renamed_schemas: BTreeMap::new(),
            overflowed: false,
            prepared: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// Changes whenever an analysis of the same text could come out differently, save for those that depend on
    /// names of prepared statements and cursors ([`Analysis::depends_on_statements`]): these are not to be
    /// remembered.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes up what a statement does, when it is forwarded.
    pub fn apply(&mut self, analysis: &Analysis) {
        for effect in &analysis.effects {
            self.take_up(effect);
        }
    }

    pub(super) fn take_up(&mut self, effect: &Effect) {
        let changed = match effect {
            Effect::UncertainPath => std::mem::replace(&mut self.path, Path::Uncertain) != Path::Uncertain,
            Effect::MakesTemp(name) => bounded(&mut self.overflowed, self.temps.len()) && self.temps.insert(name.clone()),
            Effect::MakesFunction { schema, name } => {
                bounded(&mut self.overflowed, self.made_functions.len())
                    && self.made_functions.entry(name.clone()).or_default().insert(schema.clone())
            }
            Effect::Renames { name, uses } => {
                let room = bounded(&mut self.overflowed, self.renamed.values().map(BTreeSet::len).sum());
                let known = room.then(|| self.renamed.entry(name.clone()).or_default());
                known.is_some_and(|known| {
                    let before = known.len();
                    known.extend(uses.iter().cloned());
                    known.len() != before
                })
            }
            Effect::RenamesSchema { from, to } => {
                bounded(&mut self.overflowed, self.renamed_schemas.len())
                    && self.renamed_schemas.entry(to.clone()).or_default().insert(from.clone())
            }
            Effect::Prepares(name, analysis) => {
                remember(&mut self.prepared, name, analysis);
                false
            }
            Effect::DeclaresCursor(name, analysis) => {
                remember(&mut self.cursors, name, analysis);
                false
            }
        };
        self.generation += u64::from(changed || self.overflowed);
    }

    /// A statement has been prepared by the protocol.
    pub fn register_prepared(&mut self, name: &str, analysis: Arc<Analysis>) {
        // SQL has no way to name the unnamed one.
        if !name.is_empty() {
            remember(&mut self.prepared, name, &analysis);
        }
    }

    /// All that was ever prepared under `name`; `None`: nothing, or too much.
    #[must_use]
    pub fn prepared(&self, name: &str) -> Option<Vec<Arc<Analysis>>> {
        self.prepared.get(name).cloned().flatten()
    }

    /// All that was ever declared as the cursor `name`; `None`: nothing, or too much.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<Vec<Arc<Analysis>>> {
        self.cursors.get(name).cloned().flatten()
    }
}

/// Whether there is room for one more; if not, that is remembered.
fn bounded(overflowed: &mut bool, count: usize) -> bool {
    *overflowed |= count >= NAMES_MAX;
    count < NAMES_MAX
}

fn remember(names: &mut BTreeMap<String, Meanings>, name: &str, analysis: &Arc<Analysis>) {
    if names.len() >= NAMES_MAX && !names.contains_key(name) {
        return;
    }
    let meanings = names.entry(name.to_owned()).or_insert_with(|| Some(Vec::new()));
    let Some(known) = meanings else { return };
    let same = |other: &Arc<Analysis>| Arc::ptr_eq(other, analysis) || other.tree == analysis.tree;
    if known.iter().any(same) {
        return;
    }
    if known.len() >= SAME_NAME_MAX {
        *meanings = None;
    } else {
        known.push(analysis.clone());
    }
}

/// The path that a client asked for in so many words.
fn startup_path(value: &str) -> Path {
    let mut schemas = Vec::new();
    for part in value.split(',') {
        let part = part.trim();
        let name = match part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => quoted.to_owned(),
            None => part.to_ascii_lowercase(),
        };
        // `"$user"` depends on the role; where pg_catalog and pg_temp are named, they are not searched first.
        let plain = !name.is_empty() && !name.contains(['"', '$', '\'', '\\']) && !name.starts_with("pg_");
        if !plain {
            return Path::Uncertain;
        }
        schemas.push(name);
    }
    Path::Startup(schemas)
}

#[cfg(test)]
mod tests {
    use super::{Path, startup_path};

    #[test]
    fn a_path_at_the_start_is_known_if_it_is_plain() {
        assert_eq!(startup_path("app, \"Other\""), Path::Startup(vec!["app".to_owned(), "Other".to_owned()]));
        for value in ["\"$user\", public", "$user", "public, pg_catalog", "pg_temp", "", "a,,b", "'x'"] {
            assert_eq!(startup_path(value), Path::Uncertain, "{value}");
        }
    }
}
