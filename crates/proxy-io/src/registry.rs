//! Live sessions: who is here, how to reach them, and which cancel key belongs to whom.

use parking_lot::Mutex;
use proxy_core::session::{CancelKey, EndReason};
use proxy_core::{Principal, SessionId, Target, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// A message to a live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// End it.
    End(EndReason),
    /// End it as soon as nothing of it runs: the gateway stops.
    Drain,
    /// Its cancel key was presented.
    Cancel,
    /// The policy set or the principal's standing changed: check again whether it may be open.
    Recheck,
}

/// A live session as listings show it.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// Its id.
    pub id: SessionId,
    /// Who.
    pub principal: Arc<Principal>,
    /// On what.
    pub target: Arc<Target>,
    /// The peer.
    pub source: String,
    /// What the caller called itself.
    pub label: String,
    /// Application name.
    pub application: String,
    /// TLS version and cipher towards the client.
    pub tls: Option<String>,
    /// Since when.
    pub started: Timestamp,
    /// Requests so far.
    pub requests: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Member {
    control: mpsc::Sender<Control>,
    live: Option<LiveSession>,
}

/// All live sessions of the gateway.
#[derive(Debug, Default)]
pub struct Registry {
    members: Mutex<HashMap<SessionId, Member>>,
    cancel: Mutex<HashMap<u32, (CancelKey, SessionId)>>,
    changes: AtomicU64,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connection that has not logged in yet.
    pub fn enter(&self, id: SessionId, control: mpsc::Sender<Control>) {
        self.members.lock().insert(id, Member { control, live: None });
    }

    /// Says that a connection has logged in.
    pub fn opened(&self, live: LiveSession) {
        if let Some(member) = self.members.lock().get_mut(&live.id) {
            member.live = Some(live);
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a session has opened or ended.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Gives the session a cancel key; `false` if its number is taken.
    pub fn offer_cancel_key(&self, id: SessionId, key: &CancelKey) -> bool {
        match self.cancel.lock().entry(key.process) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert((key.clone(), id));
                true
            }
        }
    }

    /// Removes a session.
    pub fn leave(&self, id: SessionId, key: &CancelKey) {
        if self.members.lock().remove(&id).is_some_and(|member| member.live.is_some()) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        let mut cancel = self.cancel.lock();
        if cancel.get(&key.process).is_some_and(|(_, owner)| *owner == id) {
            cancel.remove(&key.process);
        }
    }

    /// Passes a cancel request on to the session whose key it is; unknown keys do nothing, as with the real server.
    pub fn cancel(&self, presented: &CancelKey) {
        let owner = {
            let cancel = self.cancel.lock();
            let Some((key, id)) = cancel.get(&presented.process) else { return };
            // A protocol 3.0 client knows the first four bytes of the secret alone.
            let known = match presented.secret.len() {
                4 => key.secret.get(..4),
                n if n == key.secret.len() => Some(key.secret.as_slice()),
                _ => None,
            };
            let Some(known) = known else { return };
            if aws_lc_rs::constant_time::verify_slices_are_equal(known, &presented.secret).is_err() {
                return;
            }
            *id
        };
        self.send(owner, Control::Cancel);
    }

    /// Sends a message to one session; `false` if it is not here.
    pub fn send(&self, id: SessionId, control: Control) -> bool {
        let members = self.members.lock();
        let Some(member) = members.get(&id) else { return false };
        // A full queue holds messages of the same sort already; ending is retried by whoever asked.
        member.control.try_send(control).is_ok()
    }

    /// Sends a message to every session.
    pub fn broadcast(&self, control: &Control) {
        for member in self.members.lock().values() {
            let _ = member.control.try_send(control.clone());
        }
    }

    /// The sessions that have logged in, in no order.
    #[must_use]
    pub fn live(&self) -> Vec<LiveSession> {
        self.members.lock().values().filter_map(|member| member.live.clone()).collect()
    }

    /// How many connections are open, logged in or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.lock().len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
