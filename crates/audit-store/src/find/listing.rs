//! Sessions that pass a filter, the newest first.
//!
//! Each value of the filter is a list of session ids in the family `find`. They are walked down together: what the
//! lists have in common is found by jumping to the lowest of their heads, so that a rare value makes all fast. Ids begin
//! with the time at which they were made: a time range is a range of ids, and sessions that began before it and went
//! on into it are found by the hours in which they have entries.

use super::terms::Term;
use super::walk::{TextSearch, session_has};
use crate::db::{Db, failure};
use crate::index::{self, Change};
use crate::limits::{PAGE_MAX, SCAN_MAX};
use crate::options::Family;
use crate::query::{EntryFilter, Page, SessionFilter};
use crate::reader::View;
use crate::session::SessionSummary;
use proxy_core::{SessionId, StoreError, Timestamp};
use rocksdb::{DBRawIterator, ReadOptions};
use std::collections::{BTreeMap, BTreeSet};

/// Entries up to which it is worth looking through all of them, to know of one session (65,536).
const NEAR_MAX: u64 = 65_536;

const LOWEST: SessionId = SessionId([0; 16]);
const HIGHEST: SessionId = SessionId([0xff; 16]);

impl View<'_> {
    /// See [`crate::Reader::sessions`].
    pub(crate) fn sessions(&self, filter: &SessionFilter, limit: usize) -> Result<Page<SessionSummary, SessionId>, StoreError> {
        let limit = limit.min(PAGE_MAX);
        let text = filter.text.as_ref().map(|text| EntryFilter { text: Some(text.clone()), ..EntryFilter::default() });
        let (mut lists, mut text) = self.lists(filter, text.as_ref())?;
        let mut upper = filter.until.map_or(HIGHEST, |until| made_at(until, 0xff));
        if let Some(before) = filter.before {
            let Some(below) = below(before) else { return Ok(Page { items: Vec::new(), next: None }) };
            upper = upper.min(below);
        }
        let lower = filter.since.map_or(LOWEST, |since| made_at(since, 0));
        let (mut items, mut in_time) = (Vec::new(), true);
        for _ in 0..SCAN_MAX {
            if items.len() >= limit {
                break;
            }
            let mut found = common(&mut lists, upper)?;
            if in_time && found.is_none_or(|id| id < lower) {
                // What began before the time and went on into it.
                let Some(before) = below(lower) else { return Ok(Page { items, next: None }) };
                in_time = false;
                upper = upper.min(before);
                lists.push(List::of(self.going_on(filter.since, upper)?));
                found = common(&mut lists, upper)?;
            }
            let Some(id) = found else { return Ok(Page { items, next: None }) };
            if let Some(summary) = self.summary(id)?.filter(|summary| filter.holds(summary)) {
                let passes = text.as_mut().map_or(Ok(true), |text| text.holds(self, &summary))?;
                items.extend(passes.then_some(summary));
            }
            let Some(next) = below(id) else { return Ok(Page { items, next: None }) };
            upper = next;
        }
        // After the last one that was looked at.
        Ok(Page { items, next: above(upper) })
    }

    /// The lists of which a session that passes is in all; and the text that it must have as well, when that is not one.
    fn lists<'s>(
        &'s self,
        filter: &SessionFilter,
        text: Option<&'s EntryFilter>,
    ) -> Result<(Vec<List<'s>>, Option<TextOf<'s>>), StoreError> {
        let newer = [filter.object.as_deref().map(Term::Object), filter.policy.as_deref().map(Term::Policy)];
        if (newer.iter().any(Option::is_some) || filter.since.is_some()) && !index::is_ours(self.db)? {
            return Err(StoreError::Io(
                "the index is of another version: start the gateway, or run `sallyport audit reindex`".to_owned(),
            ));
        }
        let others = [
            filter.principal.as_deref().map(Term::Principal),
            filter.connection.as_deref().map(Term::Connection),
            filter.verdict.map(Term::Verdict),
        ];
        let places: BTreeMap<SessionId, BTreeSet<Vec<u8>>> =
            self.recent.iter().map(|(id, change): (_, &Change)| (*id, change.places().collect())).collect();
        let mut lists = Vec::new();
        for term in newer.into_iter().chain(others).flatten() {
            let prefix = term.prefix();
            let recent = places.iter().filter(|(_, places)| places.contains(&prefix)).map(|(id, _)| *id).collect();
            lists.push(List::stored(self.db, Family::Find, prefix, recent)?);
        }
        let mut text = text.map(|wanted| TextOf::new(self, wanted)).transpose()?;
        if let Some(whole) = text.take_if(|text| text.search.before == 0) {
            lists.push(List::of(whole.search.known().clone()));
        }
        if lists.is_empty() {
            lists.push(List::stored(self.db, Family::Sessions, Vec::new(), self.recent.keys().copied().collect())?);
        }
        Ok((lists, text))
    }

    /// Sessions up to `upper` that have an entry of the hour of `since`, or of a later one.
    fn going_on(&self, since: Option<Timestamp>, upper: SessionId) -> Result<BTreeSet<SessionId>, StoreError> {
        let Some(since) = since else { return Ok(BTreeSet::new()) };
        let mut found: BTreeSet<SessionId> =
            self.recent.range(..=upper).filter(|(_, change)| change.summary.last >= since).map(|(id, _)| *id).collect();
        let mut cursor = self.db.cursor(Family::Find, ReadOptions::default())?;
        let first = Term::hour(since).prefix();
        let sort = first.get(..5).unwrap_or_default();
        cursor.seek(&first);
        while let Some((hour, id)) = cursor.key().filter(|key| key.starts_with(sort)).and_then(<[u8]>::split_last_chunk::<16>) {
            if SessionId(*id) <= upper {
                found.insert(SessionId(*id));
                cursor.next();
            } else {
                // The rest of the hour began later.
                let past = [hour, &[0xff; 17]].concat();
                cursor.seek(past);
            }
        }
        cursor.status().map_err(|e| failure(&e))?;
        Ok(found)
    }
}

/// A text that many entries have.
struct TextOf<'v> {
    wanted: &'v EntryFilter,
    search: TextSearch<'v>,
}

impl<'v> TextOf<'v> {
    fn new(view: &'v View<'v>, wanted: &'v EntryFilter) -> Result<Self, StoreError> {
        let mut search = TextSearch::new(view, wanted)?;
        search.more()?;
        Ok(Self { wanted, search })
    }

    fn holds(&mut self, view: &View<'_>, session: &SessionSummary) -> Result<bool, StoreError> {
        loop {
            if self.search.known().contains(&session.id) {
                return Ok(true);
            }
            // How much would have to be looked through to know.
            match self.search.before.saturating_sub(session.first_index) {
                0 => return Ok(false),
                // Sessions that ran side by side are looked through together,
                1..=NEAR_MAX => self.search.more()?,
                // others each by itself.
                _ => return session_has(view, session.id, self.wanted, Some(self.search.before)),
            }
        }
    }
}

/// The lowest, or highest (`fill`), id that is made at that time.
fn made_at(time: Timestamp, fill: u8) -> SessionId {
    let millis = time.0.div_euclid(1_000).max(0).to_be_bytes();
    let mut id = [fill; 16];
    if let (Some(front), Some(millis)) = (id.first_chunk_mut::<6>(), millis.last_chunk::<6>()) {
        *front = *millis;
    }
    SessionId(id)
}

fn below(id: SessionId) -> Option<SessionId> {
    u128::from_be_bytes(id.0).checked_sub(1).map(|id| SessionId(id.to_be_bytes()))
}

fn above(id: SessionId) -> Option<SessionId> {
    u128::from_be_bytes(id.0).checked_add(1).map(|id| SessionId(id.to_be_bytes()))
}

/// The highest id up to `upper` that all lists have.
fn common(lists: &mut [List<'_>], upper: SessionId) -> Result<Option<SessionId>, StoreError> {
    let mut id = upper;
    let mut agreed = 0;
    for at in (0..lists.len()).cycle() {
        let Some(list) = lists.get_mut(at) else { break };
        let Some(head) = list.head(id)? else { return Ok(None) };
        agreed = if head == id { agreed + 1 } else { 1 };
        id = head;
        if agreed == lists.len() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Session ids in an index, and those that it has not seen yet.
struct List<'d> {
    stored: Option<(DBRawIterator<'d>, Vec<u8>)>,
    recent: BTreeSet<SessionId>,
    placed: bool,
}

impl<'d> List<'d> {
    fn of(ids: BTreeSet<SessionId>) -> Self {
        Self { stored: None, recent: ids, placed: true }
    }

    fn stored(db: &'d Db, family: Family, prefix: Vec<u8>, recent: BTreeSet<SessionId>) -> Result<Self, StoreError> {
        Ok(Self { stored: Some((db.cursor(family, ReadOptions::default())?, prefix)), recent, placed: false })
    }

    /// The highest up to `upper`, which never grows.
    fn head(&mut self, upper: SessionId) -> Result<Option<SessionId>, StoreError> {
        let recent = self.recent.range(..=upper).next_back().copied();
        let Some((cursor, prefix)) = &mut self.stored else { return Ok(recent) };
        let read = |cursor: &DBRawIterator<'_>| {
            let id = cursor.key().and_then(|key| key.strip_prefix(&prefix[..])).and_then(|id| id.try_into().ok());
            cursor.status().map_err(|e| failure(&e)).map(|()| id.map(SessionId))
        };
        // Mostly it is the next one.
        if self.placed && read(cursor)?.is_some_and(|id| id > upper) {
            cursor.prev();
        }
        if !self.placed || read(cursor)?.is_some_and(|id| id > upper) {
            cursor.seek_for_prev([&prefix[..], &upper.0].concat());
            self.placed = true;
        }
        Ok(read(cursor)?.max(recent))
    }
}
