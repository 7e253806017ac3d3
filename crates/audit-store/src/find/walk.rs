//! Entries that pass a filter, a page at a time, in either direction.

use super::bits::Bits;
use super::grams::ROWS_OF_GROUP;
use super::passes::{Paper, Passes};
use super::read::{Heads, LeafReader, Way, union};
use super::segment;
use super::terms::{Term, has_texts};
use super::{BLOCKS, SEGMENT, key};
use crate::db::Db;
use crate::entry::StoredEntry;
use crate::kind::EventKind;
use crate::limits::{PAGE_MAX, SCAN_MAX, SEGMENTS_LOOKED_MAX, TEXT_LOOKED_MAX};
use crate::log::{self, Go};
use crate::options::Family;
use crate::query::{EntryFilter, Page};
use crate::reader::View;
use proxy_core::{SessionId, StoreError};
use std::collections::BTreeSet;
use std::ops::Range;

type Found = Page<StoredEntry, u64>;

impl View<'_> {
    /// See [`crate::Reader::tail`].
    pub(crate) fn tail(&self, from: u64, filter: &EntryFilter, limit: usize) -> Result<Found, StoreError> {
        let mut search = Search::new(self, filter, limit, Way::Up)?;
        let whole = search.covered()?;
        let mut next = from;
        if from < whole {
            match search.segments(from..whole)? {
                Some(stopped) => next = stopped,
                None => next = whole,
            }
        }
        if next >= whole && !search.paper.full() {
            next = search.behind_up(next)?;
        }
        Ok(Page { items: search.paper.items, next: Some(next) })
    }

    /// See [`crate::Reader::latest`].
    pub(crate) fn latest(&self, before: Option<u64>, filter: &EntryFilter, limit: usize) -> Result<Found, StoreError> {
        let mut search = Search::new(self, filter, limit, Way::Down)?;
        let next = search.down(before)?;
        Ok(Page { items: search.paper.items, next })
    }
}

/// Which sessions have an entry with a text, from the newest entry down.
pub(crate) struct TextSearch<'v> {
    search: Search<'v>,
    /// Sessions that began here, or later, are all known; 0: all are.
    pub(crate) before: u64,
}

impl<'v> TextSearch<'v> {
    pub(crate) fn new(view: &'v View<'v>, text: &'v EntryFilter) -> Result<Self, StoreError> {
        let mut search = Search::new(view, text, PAGE_MAX, Way::Down)?;
        search.looked_max = TEXT_LOOKED_MAX;
        search.passes.only_sessions = true;
        Ok(Self { search, before: view.end })
    }

    /// Goes on, for some tens of milliseconds at most.
    pub(crate) fn more(&mut self) -> Result<(), StoreError> {
        self.search.looked = 0;
        self.search.paper.start_anew();
        self.before = self.search.down(Some(self.before))?.unwrap_or(0);
        Ok(())
    }

    /// Those that are known to have it.
    pub(crate) fn known(&self) -> &BTreeSet<SessionId> {
        &self.search.paper.sessions
    }
}

/// One search.
struct Search<'v> {
    view: &'v View<'v>,
    passes: Passes<'v>,
    paper: Paper,
    /// Hashes of terms: of each list, an entry that passes has one.
    terms: Vec<Vec<u64>>,
    /// Rows of the text's pieces, those first of which few bits were set so far: mostly the first few decide.
    rows: Vec<(u64, usize)>,
    heads: Heads<'v>,
    way: Way,
    looked: u64,
    looked_max: u64,
}

impl<'v> Search<'v> {
    fn new(view: &'v View<'v>, filter: &'v EntryFilter, limit: usize, way: Way) -> Result<Self, StoreError> {
        let single = [
            filter.object.as_deref().map(Term::Object),
            filter.policy.as_deref().map(Term::Policy),
            filter.principal.as_deref().map(Term::Principal),
            filter.connection.as_deref().map(Term::Connection),
            filter.verdict.map(Term::Verdict),
        ];
        let mut terms: Vec<Vec<u64>> = single.into_iter().flatten().map(|term| vec![term.hash()]).collect();
        if !filter.kinds.is_empty() {
            terms.push(filter.kinds.iter().map(|kind| Term::Kind(*kind).hash()).collect());
        }
        let passes = Passes::new(view, filter);
        let rows = passes.needle.iter().flat_map(|needle| needle.rows()).map(|row| (0, *row)).collect();
        let heads = Heads::new(view.db, way)?;
        Ok(Self { view, passes, paper: Paper::new(limit), terms, rows, heads, way, looked: 0, looked_max: SCAN_MAX })
    }

    fn db(&self) -> &'v Db {
        self.view.db
    }

    fn filter(&self) -> &'v EntryFilter {
        self.passes.filter
    }

    /// Entries that segments cover, if they are of use to this filter.
    fn covered(&self) -> Result<u64, StoreError> {
        let filter = self.filter();
        let narrows = !self.terms.is_empty()
            || filter.text.is_some()
            || filter.session.is_some()
            || filter.since.is_some()
            || filter.until.is_some();
        if !narrows || !crate::index::is_ours(self.db())? {
            return Ok(0);
        }
        Ok(segment::covered(self.db())?.min(self.view.end))
    }

    /// Looks through everything before `before`, the newest first. Returns before which to go on.
    fn down(&mut self, before: Option<u64>) -> Result<Option<u64>, StoreError> {
        let before = before.unwrap_or(self.view.end).min(self.view.end);
        let whole = self.covered()?;
        let mut next = before;
        if before > whole && !self.paper.full() {
            next = self.behind_down(before, whole)?;
        }
        if next <= whole && next > 0 && !self.paper.full() {
            next = self.segments(0..next)?.unwrap_or(0);
        }
        Ok((next > 0).then_some(next))
    }

    /// Looks through the entries from `from` on, behind the segments. Returns where to go on.
    fn behind_up(&mut self, from: u64) -> Result<u64, StoreError> {
        let end = self.view.end;
        let (passes, paper) = (&mut self.passes, &mut self.paper);
        let mut next = from;
        if let Some(session) = passes.filter.session {
            let mut leaves = LeafReader::new(self.view.db, Way::Up)?;
            for index in self.view.indices(session, from, usize::MAX)? {
                passes.take(index, leaves.leaf(index)?, paper)?;
                next = index + 1;
                if paper.full() {
                    return Ok(next);
                }
            }
            return Ok(end.max(from));
        }
        log::scan(self.view.db, from, end.min(from.saturating_add(SCAN_MAX)), |index, leaf| {
            passes.take(index, leaf, paper)?;
            next = index + 1;
            Ok(if paper.full() { Go::Stop } else { Go::On })
        })?;
        Ok(next)
    }

    /// Looks through the entries from before `before` down to `whole`. Returns before which to go on.
    fn behind_down(&mut self, before: u64, whole: u64) -> Result<u64, StoreError> {
        let (passes, paper) = (&mut self.passes, &mut self.paper);
        let mut next = before;
        if let Some(session) = passes.filter.session {
            let mut indices = self.view.indices(session, whole, usize::MAX)?;
            indices.retain(|index| *index < before);
            let mut leaves = LeafReader::new(self.view.db, Way::Down)?;
            while let Some(index) = indices.pop() {
                passes.take(index, leaves.leaf(index)?, paper)?;
                if paper.full() {
                    return Ok(index);
                }
            }
            return Ok(whole);
        }
        log::scan_back(self.view.db, before, whole.max(before.saturating_sub(SCAN_MAX)), |index, leaf| {
            passes.take(index, leaf, paper)?;
            next = index;
            Ok(if paper.full() { Go::Stop } else { Go::On })
        })?;
        Ok(next)
    }

    /// Looks through `range`, which segments cover. Returns where to go on; `None`: that was all of it.
    fn segments(&mut self, range: Range<u64>) -> Result<Option<u64>, StoreError> {
        let way = self.way;
        let mut leaves = LeafReader::new(self.db(), way)?;
        let mut rest = range;
        for _ in 0..SEGMENTS_LOOKED_MAX {
            let Some(segment) = self.next_segment(&rest)? else { return Ok(None) };
            let (first, end) = (segment * SEGMENT, (segment + 1) * SEGMENT);
            let within = rest.start.max(first)..rest.end.min(end);
            if let Some(bits) = self.candidates(segment, &within)? {
                let mut found: Box<dyn Iterator<Item = usize>> = match way {
                    Way::Up => Box::new(bits.iter()),
                    Way::Down => Box::new(bits.iter().rev()),
                };
                while let Some(index) = found.next().map(|at| first + at as u64) {
                    self.passes.take(index, leaves.leaf(index)?, &mut self.paper)?;
                    self.looked += 1;
                    if self.paper.full() || self.looked >= self.looked_max {
                        return Ok(Some(if way == Way::Up { index + 1 } else { index }));
                    }
                }
            }
            match way {
                Way::Up => rest.start = within.end,
                Way::Down => rest.end = within.start,
            }
            if rest.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(if way == Way::Up { rest.start } else { rest.end }))
    }

    /// The first segment of `range`, in the search's direction, in which there can be something.
    fn next_segment(&mut self, range: &Range<u64>) -> Result<Option<u64>, StoreError> {
        let way = self.way;
        let filter = self.filter();
        if range.is_empty() {
            return Ok(None);
        }
        if let Some(session) = filter.session {
            let index = match way {
                Way::Up => self.view.indices(session, range.start, 1)?.first().copied(),
                Way::Down => self.view.index_before(session, range.end)?,
            };
            return Ok(index.filter(|index| range.contains(index)).map(|index| index / SEGMENT));
        }
        let (first, last) = (range.start / SEGMENT, (range.end - 1) / SEGMENT);
        let start = if way == Way::Up { first } else { last };
        if filter.since.is_none() && filter.until.is_none() {
            return Ok(Some(start));
        }
        let mut segment = start;
        while let Some(head) = self.heads.get(segment)? {
            if self.overlaps(head.earliest, head.latest) {
                return Ok(Some(segment));
            }
            match way {
                Way::Up if segment < last => segment += 1,
                Way::Down if segment > first => segment -= 1,
                Way::Up | Way::Down => return Ok(None),
            }
        }
        Ok(None)
    }

    fn overlaps(&self, earliest: i64, latest: i64) -> bool {
        let filter = self.filter();
        filter.since.is_none_or(|since| latest >= since.0) && filter.until.is_none_or(|until| earliest < until.0)
    }

    /// Entries of the segment that can pass, of those `within`; `None`: there are none.
    fn candidates(&mut self, segment: u64, within: &Range<u64>) -> Result<Option<Bits>, StoreError> {
        let first = segment * SEGMENT;
        let mut bits = Bits::range((within.start - first) as usize, (within.end - first) as usize);
        for any in &self.terms {
            let Some(union) = union(self.db(), segment, any)? else { return Ok(None) };
            bits.and(&union);
            if bits.is_empty() {
                return Ok(None);
            }
        }
        if let Some(session) = self.filter().session {
            let mut own = Bits::none();
            for index in self.view.indices_within(session, within.clone())? {
                own.set((index - first) as usize);
            }
            bits.and(&own);
        }
        let timely = self.timely_blocks(segment, bits.blocks())?;
        bits.and_blocks(timely);
        if timely != 0 && !self.rows.is_empty() {
            // Of what is sealed, the index by texts knows nothing: each is looked at.
            let sealed = union(self.db(), segment, &[Term::Sealed.hash()])?;
            let blocks = self.text_blocks(segment, timely)?;
            match sealed {
                None => bits.and_blocks(blocks),
                Some(mut sealed) => {
                    sealed.and(&bits);
                    bits.and_blocks(blocks);
                    bits.or(&sealed);
                }
            }
        }
        if self.filter().text.is_some() && !bits.is_empty() {
            // Half of a block are outcomes, which have no text.
            let kinds: Vec<u64> =
                EventKind::ALL.into_iter().filter(|kind| has_texts(*kind)).map(|kind| Term::Kind(kind).hash()).collect();
            let Some(union) = union(self.db(), segment, &kinds)? else { return Ok(None) };
            bits.and(&union);
        }
        Ok((!bits.is_empty()).then_some(bits))
    }

    /// The blocks among `blocks` whose time fits.
    fn timely_blocks(&self, segment: u64, mut blocks: u128) -> Result<u128, StoreError> {
        let filter = self.filter();
        if (filter.since.is_some() || filter.until.is_some()) && blocks != 0 {
            let value = self.db().get(Family::Segments, &key(segment, b'I', &[]))?.unwrap_or_default();
            let (times, _) = value.as_chunks::<16>();
            for (block, times) in times.iter().enumerate().take(BLOCKS) {
                let (earliest, latest) = times.split_at(8);
                let read = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).unwrap_or_default();
                if !self.overlaps(read(earliest), read(latest)) {
                    blocks &= !(1 << block);
                }
            }
        }
        Ok(blocks)
    }

    /// The blocks among `blocks` that may have the text.
    fn text_blocks(&mut self, segment: u64, mut blocks: u128) -> Result<u128, StoreError> {
        let db = self.db();
        let Some(head) = self.heads.get(segment)? else { return Ok(blocks) };
        let mask = (1usize << head.rows) - 1;
        for (weight, row) in &mut self.rows {
            let row = *row & mask;
            let group = u16::try_from(row / ROWS_OF_GROUP).unwrap_or(u16::MAX);
            let rows = db.get(Family::Segments, &key(segment, b'T', &group.to_be_bytes()))?.unwrap_or_default();
            let (rows, _) = rows.as_chunks::<16>();
            let row = rows.get(row % ROWS_OF_GROUP).map_or(0, |row| u128::from_le_bytes(*row));
            // What was seen before counts for less and less.
            *weight = (*weight * 3 + u64::from(row.count_ones()) * 1_024) / 4;
            blocks &= row;
            if blocks == 0 {
                break;
            }
        }
        self.rows.sort_unstable();
        Ok(blocks)
    }
}

/// Whether an entry of the session before `before` (`None`: any) passes.
pub(crate) fn session_has(
    view: &View<'_>,
    session: SessionId,
    filter: &EntryFilter,
    mut before: Option<u64>,
) -> Result<bool, StoreError> {
    let filter = EntryFilter { session: Some(session), ..filter.clone() };
    loop {
        let page = view.latest(before, &filter, 1)?;
        match page.next {
            Some(next) if page.items.is_empty() => before = Some(next),
            _ => return Ok(!page.items.is_empty()),
        }
    }
}
