//! A filter at work: which entries pass, and the page that they go on.

use super::grams::Needle;
use super::segment::RequestFields;
use super::terms::{has_object, has_policy, has_text, has_texts};
use crate::decode::{self, Header};
use crate::entry::StoredEntry;
use crate::kind::EventKind;
use crate::limits::{OWNERS_KEPT_MAX, PAGE_BYTES_MAX, PAGE_MAX};
use crate::log;
use crate::query::EntryFilter;
use crate::reader::View;
use hashbrown::HashMap;
use proxy_core::{Event, SessionId, StoreError};
use std::collections::BTreeSet;

/// Collects a page, by number and by size.
pub(crate) struct Paper {
    pub(crate) items: Vec<StoredEntry>,
    limit: usize,
    bytes: usize,
    /// Sessions of entries that passed and are not kept.
    pub(crate) sessions: BTreeSet<SessionId>,
    passed: usize,
}

impl Paper {
    pub(crate) fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit: limit.min(PAGE_MAX), bytes: 0, sessions: BTreeSet::new(), passed: 0 }
    }

    pub(crate) fn full(&self) -> bool {
        self.items.len() + self.passed >= self.limit || self.bytes >= PAGE_BYTES_MAX
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes as many further ones.
    pub(crate) fn start_anew(&mut self) {
        self.passed = 0;
    }

    fn add_session(&mut self, session: SessionId) {
        self.passed += 1;
        self.sessions.insert(session);
    }

    pub(crate) fn add(&mut self, leaf_length: usize, stored: StoredEntry) {
        let beside = match &stored.entry.event {
            Event::Request(record) => {
                let values = record.parameters.iter().filter_map(|parameter| parameter.value.as_ref());
                record.statement.len() + values.map(bytes::Bytes::len).sum::<usize>()
            }
            _ => 0,
        };
        self.bytes += leaf_length + beside;
        self.items.push(stored);
    }
}

/// Decides which entries pass; remembers which sessions do.
pub(crate) struct Passes<'v> {
    view: &'v View<'v>,
    pub(crate) filter: &'v EntryFilter,
    pub(crate) needle: Option<Needle>,
    known: HashMap<SessionId, bool>,
    /// Only the sessions of entries with the text are asked for: most of them need not be decoded.
    pub(crate) only_sessions: bool,
}

impl<'v> Passes<'v> {
    pub(crate) fn new(view: &'v View<'v>, filter: &'v EntryFilter) -> Self {
        Self { view, filter, needle: filter.text.as_deref().map(Needle::new), known: HashMap::new(), only_sessions: false }
    }

    /// Puts the entry on the page if it passes.
    pub(crate) fn take(&mut self, index: u64, leaf: &[u8], paper: &mut Paper) -> Result<(), StoreError> {
        // It was destroyed.
        if leaf.is_empty() {
            return Ok(());
        }
        if self.only_sessions {
            let header = decode::header(leaf).map_err(|e| log::damaged(index, &e))?;
            if let Some((session, _)) = header.session
                && (paper.sessions.contains(&session)
                    || self.front_passes(&header, index, leaf)?
                        && (header.kind == EventKind::Request || self.check(index, leaf)?.is_some()))
            {
                paper.add_session(session);
            }
            return Ok(());
        }
        if let Some(stored) = self.check(index, leaf)? {
            paper.add(leaf.len(), stored);
        }
        Ok(())
    }

    /// The entry, if it passes.
    pub(crate) fn check(&mut self, index: u64, leaf: &[u8]) -> Result<Option<StoredEntry>, StoreError> {
        let header = decode::header(leaf).map_err(|e| log::damaged(index, &e))?;
        if !self.filter.header_holds(&header) {
            return Ok(None);
        }
        if let Some((id, _)) = header.session
            && self.filter.asks_for_session()
            && !self.session_passes(id)?
        {
            return Ok(None);
        }
        if !self.front_passes(&header, index, leaf)? {
            return Ok(None);
        }
        let stored = StoredEntry::new(index, log::decode(self.view.db, index, leaf)?);
        let event = &stored.entry.event;
        let passes = (header.session.is_some() || self.filter.sessionless_holds(event)) && self.event_passes(event);
        Ok(passes.then_some(stored))
    }

    /// Whether it is worth decoding: of what the index leaves for a text, most has not got it.
    fn front_passes(&self, header: &Header, index: u64, leaf: &[u8]) -> Result<bool, StoreError> {
        let request = header.kind == EventKind::Request;
        if self.filter.object.is_some() && !request || self.needle.is_some() && !has_texts(header.kind) {
            return Ok(false);
        }
        match &self.needle {
            Some(needle) if request => {
                RequestFields::read(self.view.db, index, leaf)?.has_text(needle).map_err(|e| log::damaged(index, &e))
            }
            _ => Ok(true),
        }
    }

    fn event_passes(&self, event: &Event) -> bool {
        let object = self.filter.object.as_ref().is_none_or(|name| match event {
            Event::Request(record) => has_object(&record.facts, name),
            _ => false,
        });
        object
            && self.filter.policy.as_ref().is_none_or(|id| has_policy(event, id))
            && self.needle.as_ref().is_none_or(|needle| matches!(event, Event::Request(_)) || has_text(event, needle))
    }

    fn session_passes(&mut self, id: SessionId) -> Result<bool, StoreError> {
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let passes = self.view.summary(id)?.is_some_and(|summary| self.filter.session_holds(&summary));
        if self.known.len() >= OWNERS_KEPT_MAX {
            self.known.clear();
        }
        self.known.insert(id, passes);
        Ok(passes)
    }
}
