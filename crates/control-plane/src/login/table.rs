//! Who has logged in.

use super::{Person, hash};
use proxy_core::{Principal, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions at once (10,000), and of one person (20). The one that was used the longest ago gives way.
const SESSIONS_MAX: usize = 10_000;
const SESSIONS_EACH_MAX: usize = 20;

struct Session {
    person: Person,
    opened: Instant,
    used: Instant,
    /// The ID token, by which the provider knows whom to log out. Never shown but to the browser that it came from.
    id_token: Option<String>,
    lasts: Duration,
}

/// All sessions, by the hash of their ids: whoever reads this memory cannot use one.
pub(super) struct Table {
    sessions: HashMap<[u8; 32], Session>,
    lasts: Duration,
    idle: Duration,
}

/// What a session is opened with.
pub(super) struct Opening {
    /// Its id, which the browser gets.
    pub(super) id: String,
    /// Its token for forms.
    pub(super) csrf: String,
    pub(super) principal: Arc<Principal>,
    pub(super) logged_in: Timestamp,
    pub(super) id_token: Option<String>,
    /// Not longer than this, where the login was by something that expires.
    pub(super) at_most: Option<Duration>,
}

impl Table {
    pub(super) fn new(lasts: Duration, idle: Duration) -> Self {
        Self { sessions: HashMap::new(), lasts, idle }
    }

    /// Opens one; for how long.
    pub(super) fn open(&mut self, opening: Opening) -> Duration {
        let idle = self.idle;
        self.sessions.retain(|_, session| session.stands(idle));
        let id = opening.principal.id();
        let own = |session: &Session| session.person.principal.id() == id;
        if self.sessions.values().filter(|session| own(session)).count() >= SESSIONS_EACH_MAX {
            self.drop_oldest(own);
        } else if self.sessions.len() >= SESSIONS_MAX {
            self.drop_oldest(|_| true);
        }
        let (now, lasts) = (Instant::now(), opening.at_most.map_or(self.lasts, |most| most.min(self.lasts)));
        let person = Person { principal: opening.principal, csrf: opening.csrf, logged_in: opening.logged_in };
        let session = Session { person, opened: now, used: now, id_token: opening.id_token, lasts };
        self.sessions.insert(hash(&opening.id), session);
        lasts
    }

    fn drop_oldest(&mut self, which: impl Fn(&Session) -> bool) {
        let oldest = self.sessions.iter().filter(|(_, session)| which(session)).min_by_key(|(_, session)| session.used);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.sessions.remove(&id);
        }
    }

    /// Whose session it is. `used`: somebody is there.
    pub(super) fn find(&mut self, id: &str, used: bool) -> Option<Person> {
        let key = hash(id);
        let session = self.sessions.get_mut(&key)?;
        if session.stands(self.idle) {
            if used {
                session.used = Instant::now();
            }
            return Some(session.person.clone());
        }
        self.sessions.remove(&key);
        None
    }

    /// Ends one. Its ID token, if it has one.
    pub(super) fn remove(&mut self, id: &str) -> Option<String> {
        self.sessions.remove(&hash(id))?.id_token
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Lets time pass.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration, used: bool) {
        for session in self.sessions.values_mut() {
            session.opened = session.opened.checked_sub(by).unwrap();
            if !used {
                session.used = session.used.checked_sub(by).unwrap();
            }
        }
    }
}

impl Session {
    fn stands(&self, idle: Duration) -> bool {
        self.opened.elapsed() < self.lasts && self.used.elapsed() < idle
    }
}
