//! Logins that have begun: what the provider's answer must fit to.

use super::hash;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a login may take (10 minutes).
pub(super) const LASTS: Duration = Duration::from_secs(600);
/// Logins that have begun and not ended (10,000). Anybody can begin one: the oldest give way.
const ATTEMPTS_MAX: usize = 10_000;

/// One.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// SHA-256 of the secret in the browser's cookie.
    pub(super) browser: [u8; 32],
    /// What the ID token must repeat.
    pub(super) nonce: String,
    /// What the code was asked for with (RFC 7636, `code_verifier`).
    pub(super) verifier: String,
    /// The page afterwards.
    pub(super) next: String,
    since: Instant,
}

impl Attempt {
    pub(super) fn new(browser: &str, nonce: String, verifier: String, next: String) -> Self {
        Self { browser: hash(browser), nonce, verifier, next, since: Instant::now() }
    }
}

/// All of them, by `state`.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    by_state: HashMap<String, Attempt>,
    order: VecDeque<String>,
}

impl Attempts {
    pub(super) fn add(&mut self, state: String, attempt: Attempt) {
        while self.order.len() >= ATTEMPTS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_state.remove(&oldest);
            }
        }
        self.order.push_back(state.clone());
        self.by_state.insert(state, attempt);
    }

    /// The login of this state, if it is this browser's: once.
    pub(super) fn take(&mut self, state: &str, browser: &str) -> Option<Attempt> {
        let known = self.by_state.get(state)?;
        // Whoever has the state alone does not end somebody else's login.
        aws_lc_rs::constant_time::verify_slices_are_equal(&known.browser, &hash(browser)).ok()?;
        let attempt = self.by_state.remove(state)?;
        (attempt.since.elapsed() < LASTS).then_some(attempt)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_state.len()
    }
}
