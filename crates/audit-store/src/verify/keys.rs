//! The chain of the log's keys: the first names itself, each later one is endorsed by the one before.

use crate::notary::check_endorsement;
use proxy_core::record::LogKey;
use tlog::Verifier;

/// The keys of a log, as its entries name them.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    origin: String,
    /// Where each was named.
    keys: Vec<(u64, Verifier)>,
}

impl Chain {
    /// Takes the key that the entry at `index` names, or says what is wrong with it.
    pub(crate) fn add(&mut self, index: u64, key: &LogKey) -> Result<(), String> {
        let verifier = Verifier::parse(&key.key).map_err(|error| format!("the log's key cannot be read: {error}"))?;
        if verifier.name() != key.origin {
            return Err(format!("the key {verifier} does not bear the log's name, {}", key.origin));
        }
        let Some((_, last)) = self.keys.last() else {
            if key.previous.is_some() || key.endorsement.is_some() {
                return Err("the log's first key says that there was one before".to_owned());
            }
            self.origin.clone_from(&key.origin);
            self.keys.push((index, verifier));
            return Ok(());
        };
        // A kill between the entry and the file that remembers it leaves the entry twice.
        if *last == verifier {
            return Ok(());
        }
        if key.origin != self.origin {
            return Err(format!("a key of another log, {}", key.origin));
        }
        if key.previous.as_deref() != Some(&*last.to_string()) {
            return Err(format!("the key {} does not follow the one before, {last}", key.key));
        }
        let endorsed = key.endorsement.as_deref().ok_or_else(|| format!("no key has endorsed {}", key.key))?;
        check_endorsement(endorsed, &self.origin, last, &verifier)
            .map_err(|error| format!("the key before has not endorsed {}: {error}", key.key))?;
        self.keys.push((index, verifier));
        Ok(())
    }

    /// The log's name, as its first key says it.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The key that signs a checkpoint of `size` entries: the last that these name.
    pub(crate) fn at(&self, size: u64) -> Option<Verifier> {
        self.keys.iter().rev().find(|(index, _)| *index < size).map(|(_, key)| key.clone())
    }

    /// Whether `key` is one of them.
    pub(crate) fn has(&self, key: &Verifier) -> bool {
        self.keys.iter().any(|(_, known)| known == key)
    }
}
