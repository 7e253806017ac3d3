//! What a session's decisions are remembered by, and where.
//!
//! What depends on nothing that a session did is shared by all sessions of the principal on the target
//! ([`crate::profile`]), and so is what was decided in a session that did nothing yet. The rest is its own.

use super::Decider;
use crate::cache::Cache;
use crate::changes::Boundary;
use crate::limits::{CACHED_KEY_MAX, SESSION_BYTES_MAX, SESSION_DECISIONS_MAX};
use crate::sql::{self, Analysis};
use proxy_core::Decision;
use std::sync::Arc;

/// First byte of a key that stands for all statements of one shape.
const BY_SHAPE: u8 = b'n';
/// First byte of a key that stands for one text.
const BY_TEXT: u8 = b't';

/// What a cache knows of a statement key.
#[derive(Debug, Clone)]
pub(crate) enum Remembered {
    /// Statements of this key differ by their literals: look under the exact text.
    ByText,
    /// They do not.
    Decided(Arc<Decided>),
}

/// A statement that was decided.
#[derive(Debug)]
pub(crate) struct Decided {
    /// What it is made of: one, or all that a name may stand for.
    pub(super) analyses: Vec<Arc<Analysis>>,
    /// Without an approval.
    pub(super) plain: Decision,
    /// With the approval that a hold asks for.
    pub(super) approved: Option<Decision>,
    /// Whether it depends on what the session did before, and the state's generation that it was decided in.
    pub(super) state: Option<u64>,
    /// What it does to a transaction.
    pub(super) transaction: Boundary,
    /// Whether the catalogue is old when it has run.
    pub(super) changes_catalog: bool,
}

impl Decider {
    /// Writes the statement's key; `false`: it has none.
    pub(super) fn make_key(&mut self, text: &[u8]) -> bool {
        self.key.clear();
        self.key.push(BY_SHAPE);
        let Ok(lexed) = sql::known_fingerprint(text, &mut self.key) else { return false };
        if lexed.literals_matter || self.active.reads_statement {
            self.key_by_text(text);
        }
        true
    }

    /// Writes the key of exactly this text.
    fn key_by_text(&mut self, text: &[u8]) {
        self.key.clear();
        self.key.push(BY_TEXT);
        self.key.extend_from_slice(text);
    }

    /// The decision that was made before on the statement whose key was written.
    pub(super) fn recall(&mut self, text: &[u8]) -> Option<Arc<Decided>> {
        match self.look_up()? {
            Remembered::Decided(decided) => Some(decided),
            Remembered::ByText => {
                self.key_by_text(text);
                match self.look_up()? {
                    Remembered::Decided(decided) => Some(decided),
                    Remembered::ByText => None,
                }
            }
        }
    }

    fn look_up(&mut self) -> Option<Remembered> {
        let generation = self.state.generation();
        if generation != self.pristine
            && let Some(own) = &mut self.own
        {
            if !self.own_stamp.same(&self.stamp) {
                own.clear();
            } else if let Some(found) = own.get(&self.key).filter(|found| found.holds(generation)) {
                return Some(found.clone());
            }
        }
        let mut memory = self.profile.memory.lock();
        memory.renew(&self.stamp);
        // What was decided in a pristine state holds in all of them: they differ by nothing.
        let pristine = generation == self.pristine;
        memory.decisions.get(&self.key).filter(|found| pristine || found.is_stateless()).cloned()
    }

    pub(super) fn remember(&mut self, text: &[u8], decided: &Arc<Decided>) {
        let [analysis] = decided.analyses.as_slice() else { return };
        // A name that is not in the catalogue may be there the next time; without any catalogue, a new stamp tells.
        let unresolved = analysis.unresolved && self.stamp.catalog.is_some();
        // What a name of a statement or cursor stands for changes without a new generation.
        if unresolved || analysis.depends_on_statements || self.key.len() > CACHED_KEY_MAX {
            return;
        }
        if analysis.literals_matter && self.key.first() == Some(&BY_SHAPE) {
            self.put(Remembered::ByText, decided.state.is_some());
            if text.len() >= CACHED_KEY_MAX {
                return;
            }
            self.key_by_text(text);
        }
        self.put(Remembered::Decided(decided.clone()), decided.state.is_some());
    }

    fn put(&mut self, remembered: Remembered, stateful: bool) {
        if stateful && self.state.generation() != self.pristine {
            let own = self.own.get_or_insert_with(|| Box::new(Cache::new(SESSION_DECISIONS_MAX, SESSION_BYTES_MAX)));
            if !self.own_stamp.same(&self.stamp) {
                own.clear();
                self.own_stamp = self.stamp.clone();
            }
            own.insert(&self.key, remembered);
            return;
        }
        let mut memory = self.profile.memory.lock();
        memory.renew(&self.stamp);
        memory.decisions.insert(&self.key, remembered);
    }
}

impl Remembered {
    /// Whether it holds in a session whose state has this generation.
    fn holds(&self, generation: u64) -> bool {
        match self {
            Self::ByText => true,
            Self::Decided(decided) => decided.state.is_none_or(|state| state == generation),
        }
    }

    /// Whether it holds whatever a session did before.
    fn is_stateless(&self) -> bool {
        match self {
            Self::ByText => true,
            Self::Decided(decided) => decided.state.is_none(),
        }
    }
}
