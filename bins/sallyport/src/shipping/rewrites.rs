//! Entries of which something was destroyed, and whose objects are therefore to be written again: for destinations that are
//! not locked, each with its list on the disk.

use crate::config::Config;
use parking_lot::Mutex;
use proxy_core::StoreError;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Ranges that are kept apart; more become one that has them all (1,000).
const RANGES_MAX: usize = 1_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The log's id.
    log: String,
    /// First entry, and the one after the last.
    ranges: Vec<(u64, u64)>,
}

/// What is to be written again, everywhere.
#[derive(Debug)]
pub struct Rewrites {
    lists: Vec<(String, PathBuf, Mutex<State>)>,
}

impl Rewrites {
    /// Reads the lists of the destinations that are not locked, for the log with that id (hexadecimal).
    ///
    /// # Errors
    /// One of them cannot be read: something that was destroyed would stay where it was shipped to.
    pub fn open(config: &Config, log: &str) -> Result<Self, StoreError> {
        let mut lists = Vec::new();
        for shipping in config.shipping.iter().filter(|shipping| !shipping.locked) {
            let file = config.shipping_file(&shipping.name, "rewrites");
            let failed = |why: String| StoreError::Io(format!("{}: {why}", file.display()));
            let state = match std::fs::read(&file) {
                Ok(content) => serde_json::from_slice::<State>(&content).map_err(|error| failed(error.to_string()))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
                Err(error) => return Err(failed(error.to_string())),
            };
            // Of a log that was set aside, nothing is destroyed any more.
            let state = if state.log == log { state } else { State { log: log.to_owned(), ranges: Vec::new() } };
            lists.push((shipping.name.clone(), file, Mutex::new(state)));
        }
        Ok(Self { lists })
    }

    /// Adds entries of which something was destroyed. The disk has it when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn add(&self, range: &Range<u64>) -> Result<(), StoreError> {
        for (_, file, state) in &self.lists {
            change(file, state, |ranges| {
                ranges.push((range.start, range.end));
                if ranges.len() > RANGES_MAX {
                    let first = ranges.iter().map(|range| range.0).min().unwrap_or(0);
                    let next = ranges.iter().map(|range| range.1).max().unwrap_or(0);
                    *ranges = vec![(first, next)];
                }
            })?;
        }
        Ok(())
    }

    /// What is to be written again at a destination.
    pub(super) fn pending(&self, name: &str) -> Vec<Range<u64>> {
        let list = self.lists.iter().find(|(known, ..)| known == name);
        list.map(|(.., state)| state.lock().ranges.iter().map(|(first, next)| *first..*next).collect()).unwrap_or_default()
    }

    /// A range was written again, once.
    pub(super) fn done(&self, name: &str, range: &Range<u64>) -> Result<(), StoreError> {
        let Some((_, file, state)) = self.lists.iter().find(|(known, ..)| known == name) else { return Ok(()) };
        change(file, state, |ranges| {
            if let Some(at) = ranges.iter().position(|known| *known == (range.start, range.end)) {
                ranges.remove(at);
            }
        })
    }
}

fn change(file: &Path, state: &Mutex<State>, change: impl FnOnce(&mut Vec<(u64, u64)>)) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::Io(format!("{}: {error}", file.display()));
    let mut state = state.lock();
    let mut next = state.clone();
    change(&mut next.ranges);
    if let Some(folder) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let content = serde_json::to_vec_pretty(&next).map_err(|error| failed(error.into()))?;
    audit_store::notary::replace_file(file, &content, 0o600).map_err(failed)?;
    *state = next;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_was_destroyed_is_remembered_for_what_is_not_locked() {
        let scratch = tempfile::tempdir().unwrap();
        let text = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n\
            [[shipping]]\nname = \"open\"\nurl = \"folder:open\"\nlocked = false\n[[shipping]]\nname = \"shut\"\nurl = \"folder:shut\"\n";
        let config = parse(text, &scratch.path().join("sallyport.toml")).unwrap();
        let rewrites = Rewrites::open(&config, "a").unwrap();
        rewrites.add(&(3..9)).unwrap();
        rewrites.add(&(20..21)).unwrap();
        assert!(rewrites.pending("shut").is_empty());
        let again = Rewrites::open(&config, "a").unwrap();
        assert_eq!(again.pending("open"), [3..9, 20..21]);
        again.add(&(3..9)).unwrap();
        again.done("open", &(3..9)).unwrap();
        assert_eq!(again.pending("open"), [20..21, 3..9], "what came meanwhile is done once more");
        assert!(Rewrites::open(&config, "b").unwrap().pending("open").is_empty());
        (0..1_200).for_each(|at| again.add(&(at..at + 1)).unwrap());
        let pending = again.pending("open");
        assert!(pending.len() <= RANGES_MAX && pending.iter().any(|range| range.contains(&20)), "{}", pending.len());
        std::fs::write(config.shipping_file("open", "rewrites"), "{").unwrap();
        assert!(Rewrites::open(&config, "a").is_err());
    }
}
