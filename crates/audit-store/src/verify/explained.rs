//! Whether what is missing was destroyed by the rules: each content that is not there must be covered by an entry that says so,
//! and no more may be missing than these entries say. (They may say too much: a kill came between record and destruction.)
//!
//! Such entries come later than what they destroyed, so a log with anything missing is read twice.

use crate::decode::{self, Header};
use crate::kind::EventKind;
use hashbrown::HashMap;
use proxy_core::record::Destroyed;
use proxy_core::{Entry, Event, SessionId};

/// Sessions whose connections are remembered.
const SESSIONS_MAX: usize = 1 << 20;

/// What an entry of the log says, and what is missing.
#[derive(Debug)]
struct Said {
    /// The entry.
    index: u64,
    destroyed: Destroyed,
    /// Missing contents that no other entry speaks of.
    alone: u64,
}

/// What the log says of destruction.
#[derive(Debug, Default)]
pub(super) struct Explained {
    said: Vec<Said>,
    /// Entries that are missing, and said to be.
    entries: u64,
    /// Fields.
    fields: u64,
    /// Connections of sessions, while the log is read the second time.
    connections: HashMap<SessionId, String>,
}

impl Explained {
    /// Takes what an entry says.
    pub(super) fn add(&mut self, index: u64, destroyed: &Destroyed) {
        self.said.push(Said { index, destroyed: destroyed.clone(), alone: 0 });
    }

    /// Takes an entry into account that is there, when the log is read the second time.
    pub(super) fn see(&mut self, entry: &Entry) {
        let Some((session, _)) = entry.session else { return };
        match &entry.event {
            // Of a target that is kept beside, it is not known.
            Event::SessionStarted(started) if self.connections.len() < SESSIONS_MAX && !started.target.connection.is_empty() => {
                self.connections.insert(session, started.target.connection.clone());
            }
            Event::SessionEnded { .. } => {
                self.connections.remove(&session);
            }
            _ => {}
        }
    }

    /// Takes a whole entry that is missing; whether it may be.
    pub(super) fn entry(&mut self, index: u64) -> bool {
        let speaking = self.said.iter_mut().filter(|said| said.destroyed.fields.is_empty() && said.covers(index));
        let explained = charge(speaking);
        self.entries += u64::from(explained);
        explained
    }

    /// Takes a field whose content is missing; whether it may be.
    pub(super) fn field(&mut self, index: u64, leaf: &[u8], field: u32) -> bool {
        let Ok(header) = decode::header(leaf) else { return false };
        let connections = &self.connections;
        let speaking = self.said.iter_mut().filter(|said| {
            said.covers(index)
                && of_kind(&said.destroyed, header.kind)
                && said.destroyed.fields.iter().any(|name| name == header.kind.field_name(field))
                && on_connection(connections, &said.destroyed, &header)
        });
        let explained = charge(speaking);
        self.fields += u64::from(explained);
        explained
    }

    /// Once all that is missing was taken: where more is than was said, the entry that says it, and how.
    pub(super) fn excess(&self) -> Vec<(u64, String)> {
        let mut excess = Vec::new();
        for said in self.said.iter().filter(|said| said.alone > said.destroyed.contents) {
            let (is, says) = (said.alone, said.destroyed.contents);
            let what = format!("it says that {says} contents were destroyed, and of what it speaks of, {is} are not there");
            excess.push((said.index, what));
        }
        for (missing, whole, what) in [(self.entries, true, "entries"), (self.fields, false, "fields' contents")] {
            let of_this = self.said.iter().filter(|said| said.destroyed.fields.is_empty() == whole);
            let (mut says, mut last) = (0_u64, 0);
            for said in of_this {
                (says, last) = (says.saturating_add(said.destroyed.contents), said.index);
            }
            if missing > says && excess.is_empty() {
                let what = format!("up to here, {says} {what} are said to have been destroyed, and {missing} are not there");
                excess.push((last, what));
            }
        }
        excess
    }
}

impl Said {
    fn covers(&self, index: u64) -> bool {
        (self.destroyed.first..self.destroyed.next).contains(&index)
    }
}

/// Counts one missing content, of which these speak; whether any does.
fn charge<'s>(mut speaking: impl Iterator<Item = &'s mut Said>) -> bool {
    let Some(first) = speaking.next() else { return false };
    if speaking.next().is_none() {
        first.alone += 1;
    }
    true
}

/// Whether a rule for one connection was applied to an entry of another.
fn on_connection(connections: &HashMap<SessionId, String>, said: &Destroyed, header: &Header) -> bool {
    let Some(wanted) = &said.connection else { return true };
    match header.session.and_then(|(session, _)| connections.get(&session)) {
        Some(connection) => connection == wanted,
        // Its session's start is gone as well.
        None => true,
    }
}

fn of_kind(said: &Destroyed, kind: EventKind) -> bool {
    said.kinds.is_empty() || said.kinds.iter().any(|name| name == kind.as_str())
}
