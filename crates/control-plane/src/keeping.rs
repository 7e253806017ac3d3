//! How long contents of the log are kept: retention by rule, legal holds, and redaction.
//!
//! Holds and how far each rule has come are in `control/retention.json`. A hold is in force before the log says so, and a
//! redaction is in the log before anything is destroyed.

use crate::published::PublishedLog;
use crate::units::{show_duration, show_time};
use audit_store::{AuditStore, EventKind, Selection};
use parking_lot::Mutex;
use proxy_core::record::{Entry, Event};
use proxy_core::{SessionId, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most holds at once: each is looked at for every entry.
const HOLDS_MAX: usize = 1_000;

/// A rule: for how long contents are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// For how long.
    pub keep: Duration,
    /// Of sessions on this connection; `None`: all.
    pub connection: Option<String>,
    /// Entries of these kinds; empty: all.
    pub kinds: Vec<EventKind>,
    /// These fields; empty: whole entries.
    pub fields: Vec<String>,
}

/// Nothing of this is destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Its name: 8 hexadecimal digits.
    pub id: String,
    /// Who has placed it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub since: String,
    /// Of this session; with neither this nor a connection: of the whole log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Of every session on this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
}

/// What is to be redacted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// Of one entry …
    pub entry: Option<u64>,
    /// … or of every entry of a session.
    pub session: Option<SessionId>,
    /// These fields, which must be kept beside the entries; empty: the whole entries.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Why.
    pub reason: String,
}

/// Why something is kept, or not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error("{file}: {why}", file = .0.display(), why = .1)]
    File(PathBuf, String),
    /// A legal hold is on it.
    #[error("the hold {0} is on it: release that first (`sallyport audit hold release`)")]
    Held(String),
    /// No such hold.
    #[error("no hold is called {0:?}; `sallyport audit hold list` shows them")]
    NoHold(String),
    /// Too many.
    #[error("there are {HOLDS_MAX} holds already")]
    TooMany,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// Nothing was found that could be redacted.
    #[error(
        "nothing of it is kept beside the log: a short field is within its entry, and goes with the whole of it alone (--whole)"
    )]
    Nothing,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    holds: Vec<Hold>,
    /// For each rule, the first entry that it was not applied to yet.
    done: BTreeMap<String, u64>,
}

/// Keeps, and destroys, by the rules.
pub struct Keeper {
    store: Arc<AuditStore>,
    publisher: Arc<dyn PublishedLog>,
    path: PathBuf,
    /// Held while something is destroyed: a hold that was placed is on what comes next.
    state: Mutex<State>,
}

impl Keeper {
    /// For the log of `store`, with its state in `folder`.
    ///
    /// # Errors
    /// The file cannot be read: nothing must be destroyed that is perhaps held.
    pub fn open(folder: &Path, store: Arc<AuditStore>, publisher: Arc<dyn PublishedLog>) -> Result<Self, KeepError> {
        let path = folder.join("retention.json");
        let failed = |why: String| KeepError::File(path.clone(), why);
        let state = match std::fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(failed(error.to_string())),
        };
        Ok(Self { store, publisher, path, state: Mutex::new(state) })
    }

    fn save(&self, state: &State) -> Result<(), KeepError> {
        let failed = |why: String| KeepError::File(self.path.clone(), why);
        let content = serde_json::to_vec_pretty(state).map_err(|error| failed(error.to_string()))?;
        audit_store::notary::replace_file(&self.path, &content, 0o600).map_err(|error| failed(error.to_string()))
    }

    fn record(
        &self,
        by: &str,
        action: &str,
        object: String,
        details: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let event = Event::Administration { by: by.to_owned(), action: action.to_owned(), object, details };
        self.store.append(&[Entry { time: now, session: None, event }])?;
        self.store.sync()
    }

    /// The holds that are in force.
    #[must_use]
    pub fn holds(&self) -> Vec<Hold> {
        self.state.lock().holds.clone()
    }

    /// Places a hold.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn hold(
        &self,
        by: &str,
        reason: String,
        session: Option<SessionId>,
        connection: Option<String>,
        now: Timestamp,
    ) -> Result<Hold, KeepError> {
        let mut state = self.state.lock();
        if state.holds.len() >= HOLDS_MAX {
            return Err(KeepError::TooMany);
        }
        let mut id = [0; 4];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| KeepError::Invalid("the system has no randomness"))?;
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let hold = Hold { id, by: by.to_owned(), reason, since: show_time(now), session, connection };
        let mut next = state.clone();
        next.holds.push(hold.clone());
        self.save(&next)?;
        *state = next;
        self.record(by, "legal hold placed", format!("hold {}", hold.id), details(&hold), now)?;
        Ok(hold)
    }

    /// Takes a hold back. What the rules had passed over is looked at again.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn release(&self, by: &str, id: &str, reason: String, now: Timestamp) -> Result<Hold, KeepError> {
        let mut state = self.state.lock();
        let mut next = state.clone();
        let at = next.holds.iter().position(|hold| hold.id == id).ok_or_else(|| KeepError::NoHold(id.to_owned()))?;
        let hold = next.holds.remove(at);
        next.done.clear();
        let mut said = details(&hold);
        said.insert("released because".to_owned(), reason);
        self.record(by, "legal hold released", format!("hold {id}"), said, now)?;
        self.save(&next)?;
        *state = next;
        Ok(hold)
    }

    /// Destroys fields, or whole entries, of an entry or a session. Returns how many contents that were.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn redact(&self, by: &str, redaction: &Redaction, now: Timestamp) -> Result<u64, KeepError> {
        let state = self.state.lock();
        let reader = self.store.reader();
        let indices = match (redaction.entry, redaction.session) {
            (Some(entry), None) => vec![entry],
            (None, Some(session)) => reader.session_indices(session)?,
            _ => return Err(KeepError::Invalid("name either an entry or a session")),
        };
        for index in &indices {
            let session = reader.entry(*index)?.and_then(|stored| stored.entry.session);
            if let Some(hold) = self.held(&state, session.map(|(session, _)| session))? {
                return Err(KeepError::Held(hold));
            }
        }
        let mut contents = 0;
        for range in runs(&indices) {
            let selection = Selection {
                rule: "redaction".to_owned(),
                by: by.to_owned(),
                reason: Some(redaction.reason.clone()),
                session: redaction.session,
                fields: redaction.fields.clone(),
                ..self.selection(&state, range)
            };
            contents += self.destroy(selection, now)?.1;
        }
        if contents == 0 {
            return Err(KeepError::Nothing);
        }
        let (first, last) = (indices.first().copied().unwrap_or(0), indices.last().copied().unwrap_or(0));
        self.sweep(first..last.saturating_add(1))?;
        Ok(contents)
    }

    /// The hold that is on a session, or on everything.
    fn held(&self, state: &State, session: Option<SessionId>) -> Result<Option<String>, StoreError> {
        let connection = match session {
            Some(session) => self.store.reader().summary(session)?.map(|summary| summary.connection),
            None => None,
        };
        let on = |hold: &&Hold| match (&hold.session, &hold.connection) {
            (Some(held), _) => session == Some(*held),
            (None, Some(held)) => connection.as_ref() == Some(held),
            (None, None) => true,
        };
        Ok(state.holds.iter().find(on).map(|hold| hold.id.clone()))
    }

    fn selection(&self, state: &State, range: Range<u64>) -> Selection {
        Selection {
            range,
            held_sessions: state.holds.iter().filter_map(|hold| hold.session).collect(),
            held_connections: state.holds.iter().filter_map(|hold| hold.connection.clone()).collect(),
            ..Selection::default()
        }
    }

    /// Destroys what is selected. Returns where to go on, and how many contents.
    fn destroy(&self, mut selection: Selection, now: Timestamp) -> Result<(u64, u64), StoreError> {
        let mut contents = 0;
        loop {
            let progress = self.store.destroy(&selection, now)?;
            contents += progress.contents;
            selection.range.start = progress.next;
            if progress.done {
                return Ok((progress.next, contents));
            }
        }
    }

    /// Once all is destroyed that was to be: nothing of it is left in the store, or where it is published.
    fn sweep(&self, range: Range<u64>) -> Result<(), StoreError> {
        self.publisher.rewrite(range.clone())?;
        self.store.sweep(range)
    }

    /// Applies the rules. Returns how many contents each has destroyed.
    ///
    /// # Errors
    /// [`KeepError`]: what is left is done the next time.
    pub fn retain(&self, rules: &[Retention], now: Timestamp) -> Result<Vec<(String, u64)>, KeepError> {
        let mut state = self.state.lock();
        // A hold on everything.
        if state.holds.iter().any(|hold| hold.session.is_none() && hold.connection.is_none()) {
            return Ok(Vec::new());
        }
        let (mut done, mut next_state, mut touched) = (Vec::new(), state.clone(), None::<Range<u64>>);
        for rule in rules {
            let name = in_words(rule);
            let from = state.done.get(&name).copied().unwrap_or(0);
            let keep = i64::try_from(rule.keep.as_micros()).unwrap_or(i64::MAX);
            let selection = Selection {
                rule: name.clone(),
                by: "gateway".to_owned(),
                before: Some(Timestamp(now.0.saturating_sub(keep))),
                connection: rule.connection.clone(),
                kinds: rule.kinds.clone(),
                fields: rule.fields.clone(),
                ..self.selection(&state, from..u64::MAX)
            };
            let (next, contents) = self.destroy(selection, now)?;
            // Whatever was passed over: a kill may have come after the destruction, and before the rest.
            if next > from {
                let known = touched.unwrap_or(from..next);
                touched = Some(known.start.min(from)..known.end.max(next));
            }
            next_state.done.insert(name.clone(), next);
            done.push((name, contents));
        }
        if let Some(range) = touched {
            self.sweep(range)?;
        }
        // Not before: what a kill leaves half done is done again.
        if next_state.done != state.done {
            self.save(&next_state)?;
            *state = next_state;
        }
        Ok(done)
    }
}

/// A rule as its records say it.
fn in_words(rule: &Retention) -> String {
    let mut words = format!("retention of {}", show_duration(rule.keep));
    if let Some(connection) = &rule.connection {
        words.push_str(&format!(", connection {connection}"));
    }
    if !rule.kinds.is_empty() {
        words.push_str(&format!(
            ", kinds {}",
            rule.kinds.iter().map(|kind| EventKind::as_str(*kind)).collect::<Vec<_>>().join(" ")
        ));
    }
    if !rule.fields.is_empty() {
        words.push_str(&format!(", fields {}", rule.fields.join(" ")));
    }
    words
}

/// A hold, for its records.
fn details(hold: &Hold) -> BTreeMap<String, String> {
    let mut details = BTreeMap::from([("reason".to_owned(), hold.reason.clone())]);
    details.extend(hold.session.map(|session| ("session".to_owned(), session.to_string())));
    details.extend(hold.connection.clone().map(|connection| ("connection".to_owned(), connection)));
    details
}

/// Numbers in ascending order as ranges without gaps.
fn runs(indices: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some(run) if run.end == *index => run.end += 1,
            _ => runs.push(*index..index.saturating_add(1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gathered_into_ranges() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
    }

    #[test]
    fn a_rule_says_all_that_it_is() {
        let rule = Retention {
            keep: std::time::Duration::from_secs(86_400),
            connection: Some("orders".to_owned()),
            kinds: vec![EventKind::Request, EventKind::Outcome],
            fields: vec!["statement".to_owned()],
        };
        assert_eq!(in_words(&rule), "retention of 1d, connection orders, kinds request outcome, fields statement");
    }
}
