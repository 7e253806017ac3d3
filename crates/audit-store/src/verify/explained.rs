//! Whether what is missing was destroyed by the rules: each content that is not there must be covered by an entry that says so.
//!
//! Such entries come later than what they destroyed, so a log with anything missing is read twice.

use crate::decode::{self, Header};
use crate::kind::EventKind;
use hashbrown::HashMap;
use proxy_core::record::Destroyed;
use proxy_core::{Entry, Event, SessionId};

/// Sessions whose connections are remembered.
const SESSIONS_MAX: usize = 1 << 20;

/// What the log says of destruction.
#[derive(Debug, Default)]
pub(super) struct Explained {
    said: Vec<Destroyed>,
    /// Connections of sessions, while the log is read the second time.
    connections: HashMap<SessionId, String>,
}

impl Explained {
    /// Takes what an entry says.
    pub(super) fn add(&mut self, destroyed: &Destroyed) {
        self.said.push(destroyed.clone());
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

    /// Whether a whole entry may be missing.
    pub(super) fn entry(&self, index: u64) -> bool {
        self.said.iter().any(|said| said.fields.is_empty() && (said.first..said.next).contains(&index))
    }

    /// Whether the content of a field may be missing.
    pub(super) fn field(&self, index: u64, leaf: &[u8], field: u32) -> bool {
        let Ok(header) = decode::header(leaf) else { return false };
        self.said.iter().any(|said| {
            (said.first..said.next).contains(&index)
                && of_kind(said, header.kind)
                && said.fields.iter().any(|name| name == header.kind.field_name(field))
                && self.on_connection(said, &header)
        })
    }

    /// Whether a rule for one connection was applied to an entry of another.
    fn on_connection(&self, said: &Destroyed, header: &Header) -> bool {
        let Some(wanted) = &said.connection else { return true };
        match header.session.and_then(|(session, _)| self.connections.get(&session)) {
            Some(connection) => connection == wanted,
            // Its session's start is gone as well.
            None => true,
        }
    }
}

fn of_kind(said: &Destroyed, kind: EventKind) -> bool {
    said.kinds.is_empty() || said.kinds.iter().any(|name| name == kind.as_str())
}
