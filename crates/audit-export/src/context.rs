//! What an entry does not say itself: whose session it belongs to, on which target, in which log.

use crate::limits::SESSIONS_MAX;
use audit_store::{Reader, SessionSummary, StoredEntry};
use proxy_core::record::SessionStarted;
use proxy_core::{Event, SessionId, StoreError};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Which log, and who writes it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInfo {
    /// The log's id, 32 hexadecimal digits.
    pub id: String,
    /// Version of the program that exports.
    pub version: String,
    /// This machine's name.
    pub host: String,
}

/// Who and where, for the entries of one session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SessionContext {
    /// `ISSUER/SUBJECT`. Empty where it is not known, as all texts here.
    pub principal: String,
    /// `Service`, `Agent` or `Human`.
    pub principal_kind: String,
    /// The connection's name.
    pub connection: String,
    /// `HOST:PORT` of the target.
    pub address: String,
    /// The database.
    pub database: String,
    /// The login that the gateway uses upstream.
    pub upstream_user: String,
    /// The peer's address and port.
    pub source: String,
    /// The listener's protocol.
    pub protocol: String,
    /// What the caller called itself.
    pub label: String,
    /// Application name, as the client says.
    pub application: String,
}

impl From<&SessionStarted> for SessionContext {
    fn from(started: &SessionStarted) -> Self {
        Self {
            principal: started.principal.id(),
            principal_kind: started.principal.kind.as_str().to_owned(),
            connection: started.target.connection.clone(),
            address: started.target.address.clone(),
            database: started.target.database.clone(),
            upstream_user: started.target.upstream_user.clone(),
            source: started.source.clone(),
            protocol: started.protocol.clone(),
            label: started.label.clone(),
            application: started.application.clone(),
        }
    }
}

impl From<SessionSummary> for SessionContext {
    /// The target's address is not in a summary.
    fn from(summary: SessionSummary) -> Self {
        Self {
            principal: summary.principal,
            principal_kind: summary.principal_kind,
            connection: summary.connection,
            address: String::new(),
            database: summary.database,
            upstream_user: summary.upstream_user,
            source: summary.source,
            protocol: summary.protocol,
            label: summary.label,
            application: summary.application,
        }
    }
}

/// The sessions that were met last. At most [`SESSIONS_MAX`]; the oldest goes first.
#[derive(Debug, Default)]
pub struct Contexts {
    known: HashMap<SessionId, Arc<SessionContext>>,
    order: VecDeque<SessionId>,
}

impl Contexts {
    /// The context of the session that `stored` belongs to; `None`: it belongs to none, or the log does not know it.
    ///
    /// It depends on the log alone, not on which entries were asked for before.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be read.
    pub fn of(&mut self, reader: &Reader, stored: &StoredEntry) -> Result<Option<Arc<SessionContext>>, StoreError> {
        let Some((id, _)) = stored.entry.session else { return Ok(None) };
        if let Some(known) = self.known.get(&id) {
            return Ok(Some(Arc::clone(known)));
        }
        let context = match &stored.entry.event {
            Event::SessionStarted(started) => SessionContext::from(&**started),
            _ => match find(reader, id)? {
                Some(context) => context,
                None => return Ok(None),
            },
        };
        let context = Arc::new(context);
        self.keep(id, Arc::clone(&context));
        Ok(Some(context))
    }

    fn keep(&mut self, id: SessionId, context: Arc<SessionContext>) {
        if self.order.len() >= SESSIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
        self.known.insert(id, context);
    }
}

/// From the session's first entry, which has more; from its summary, where that entry is not its start.
fn find(reader: &Reader, id: SessionId) -> Result<Option<SessionContext>, StoreError> {
    let Some(summary) = reader.summary(id)? else { return Ok(None) };
    let first = reader.entry(summary.first_index)?;
    Ok(Some(match first.as_ref().map(|first| &first.entry.event) {
        // A start whose parts were removed says less than the summary.
        Some(Event::SessionStarted(started)) if first.as_ref().is_some_and(|first| first.withheld.is_empty()) => {
            SessionContext::from(&**started)
        }
        _ => SessionContext::from(summary),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_is_forgotten_first() {
        let mut contexts = Contexts::default();
        let id = |number: usize| SessionId((number as u128).to_be_bytes());
        for number in 0..=SESSIONS_MAX {
            contexts.keep(id(number), Arc::default());
        }
        assert_eq!((contexts.known.len(), contexts.order.len()), (SESSIONS_MAX, SESSIONS_MAX));
        assert!(!contexts.known.contains_key(&id(0)));
        assert!(contexts.known.contains_key(&id(SESSIONS_MAX)));
    }
}
