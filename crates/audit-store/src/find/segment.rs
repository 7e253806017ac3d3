//! Making a segment's index: a function of the log, and of which session belongs to whom.
//!
//! It is made as the entries come, together with the session index, and written when the last one is there.

use super::bits::{Bits, Positions};
use super::grams::{Matrix, Needle, ROWS_OF_GROUP, TextSort};
use super::terms::{Term, has_texts, objects, texts};
use super::{BLOCK, BLOCKS, SEGMENT, head_key, key};
use crate::db::{Db, Stored};
use crate::decode::{self, Commitment, Header};
use crate::encode::SALT_LENGTH;
use crate::index;
use crate::kind::{BESIDE, EventKind, REQUEST_FACTS, REQUEST_PARAMETERS, REQUEST_POLICIES, REQUEST_STATEMENT};
use crate::limits::OWNERS_KEPT_MAX;
use crate::log::{self, Go};
use crate::options::Family;
use crate::wire::{DecodeError, Reader};
use hashbrown::{DefaultHashBuilder, HashMap};
use proxy_core::record::RecordedVerdict;
use proxy_core::{Event, SessionId, StoreError};
use rocksdb::WriteBatch;
use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// Entries that segments cover: a multiple of [`SEGMENT`].
pub(crate) const SEGMENTS_KEY: &[u8] = b"segments";

/// Decisions that one segment remembers (4,096): further ones are read again each time.
const DECISIONS_MAX: usize = 4_096;

/// Principal and connection of sessions, as hashes of their terms. Kept from segment to segment.
pub(crate) type Owners = HashMap<SessionId, [u64; 2]>;

/// How far the stored segments have come.
pub(crate) fn covered(db: &Db) -> Result<u64, StoreError> {
    db.place(SEGMENTS_KEY, "the place of the index by segments")
}

/// Makes a segment anew: what was removed from beside its entries is found no more.
pub(crate) fn rebuild(db: &Db, segment: u64) -> Result<(), StoreError> {
    // Whoever searches meanwhile may see some of the old rows and some of the new: so there are as many as before.
    let rows = head(db, segment)?.map(|head| head.rows);
    let made = Builder::of(db, segment * SEGMENT..(segment + 1) * SEGMENT, &DefaultHashBuilder::default())?;
    let mut batch = WriteBatch::default();
    for sort in [b'B', b'T'] {
        db.delete_range(&mut batch, Family::Segments, &key(segment, sort, &[]), &key(segment, sort + 1, &[]))?;
    }
    made.write(db, &mut Owners::default(), &mut batch, rows)?;
    // Not until the disk has it is it forgotten.
    db.write_through(batch)
}

/// Of a segment as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) earliest: i64,
    pub(crate) latest: i64,
    /// 2-logarithm of the number of its rows.
    pub(crate) rows: u32,
}

/// The head of a segment; `None`: it is not made yet.
fn head(db: &Db, segment: u64) -> Result<Option<Head>, StoreError> {
    db.get(Family::Find, &head_key(segment))?.map(|value| Head::read(&value)).transpose()
}

impl Head {
    /// Reads the value of a key `H`.
    pub(crate) fn read(value: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Corrupt("the index's times of a segment: run `sallyport audit reindex`".to_owned());
        let (times, rest) = value.as_chunks::<8>();
        let ([earliest, latest], [rows]) = (times, rest) else { return Err(damaged()) };
        Ok(Self { earliest: i64::from_be_bytes(*earliest), latest: i64::from_be_bytes(*latest), rows: u32::from(*rows) })
    }
}

/// A segment in the making.
pub(crate) struct Builder {
    segment: u64,
    /// Hash of a term → place of its set.
    places: HashMap<u64, usize>,
    sets: Vec<(u64, Positions)>,
    kinds: [usize; EventKind::ALL.len() + 1],
    verdicts: [usize; 3],
    sealed: usize,
    /// Entries of each session: whose it is, is asked at the end.
    sessions: HashMap<SessionId, Positions>,
    /// What decides → places: a statement that runs again has the very ones of before.
    decisions: HashMap<u64, Arc<[usize]>>,
    matrix: Matrix,
    times: Vec<(i64, i64)>,
}

impl Builder {
    /// The segment that begins with the entries of `range`, which are read. `hasher`: of what decides.
    pub(crate) fn of(db: &Db, range: Range<u64>, hasher: &DefaultHashBuilder) -> Result<Self, StoreError> {
        let mut builder = Self::new(range.start / SEGMENT);
        log::scan(db, range.start, range.end, |index, leaf| {
            let header = decode::header(leaf).map_err(|e| log::damaged(index, &e))?;
            let request = Request::read(db, index, &header, leaf, hasher)?;
            builder.add(db, index, leaf, &header, request.as_ref())?;
            Ok(Go::On)
        })?;
        Ok(builder)
    }

    fn new(segment: u64) -> Self {
        let mut builder = Self {
            segment,
            places: HashMap::new(),
            sets: Vec::new(),
            kinds: [0; EventKind::ALL.len() + 1],
            verdicts: [0; 3],
            sealed: 0,
            sessions: HashMap::new(),
            decisions: HashMap::new(),
            matrix: Matrix::new(),
            times: vec![(i64::MAX, i64::MIN); BLOCKS],
        };
        for kind in EventKind::ALL {
            builder.kinds[kind as usize] = builder.place(Term::Kind(kind).hash());
        }
        builder.sealed = builder.place(Term::Sealed.hash());
        builder.verdicts = VERDICTS.map(|verdict| builder.place(Term::Verdict(verdict).hash()));
        builder
    }

    /// Writes the segment, of which all entries were added and their sessions are in the session index.
    pub(crate) fn seal(self, db: &Db, owners: &mut Owners) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let end = (self.segment + 1) * SEGMENT;
        self.write(db, owners, &mut batch, None)?;
        db.put(&mut batch, Family::Meta, SEGMENTS_KEY, &end.to_be_bytes())?;
        db.write(batch)
    }

    fn place(&mut self, hash: u64) -> usize {
        let next = self.sets.len();
        let place = *self.places.entry(hash).or_insert(next);
        if place == next {
            self.sets.push((hash, Positions::new()));
        }
        place
    }

    fn push(&mut self, place: usize, at: u16) {
        if let Some((_, set)) = self.sets.get_mut(place) {
            set.push(at);
        }
    }

    /// Takes the leaf at `index` into account; `request`: what it says, where it is one.
    pub(crate) fn add(
        &mut self,
        db: &Db,
        index: u64,
        leaf: &[u8],
        header: &Header,
        request: Option<&Request<'_>>,
    ) -> Result<(), StoreError> {
        let at = index - self.segment * SEGMENT;
        let block = (at / BLOCK) as usize;
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        if let Some((earliest, latest)) = self.times.get_mut(block) {
            *earliest = (*earliest).min(header.time.0);
            *latest = (*latest).max(header.time.0);
        }
        self.push(self.kinds[header.kind as usize], at);
        if let Some((id, _)) = header.session {
            self.sessions.entry(id).or_insert_with(Positions::new).push(at);
        }
        if let Some(verdict) = header.verdict {
            self.push(self.verdicts[verdict as usize], at);
        }
        match request {
            Some(request) => self.add_request(at, block, request).map_err(|e| log::damaged(index, &e)),
            None if has_texts(header.kind) => self.add_event(db, at, block, index, leaf),
            None => Ok(()),
        }
    }

    fn add_request(&mut self, at: u16, block: usize, request: &Request<'_>) -> Result<(), DecodeError> {
        let places = match self.decisions.get(&request.decision) {
            Some(places) => Arc::clone(places),
            None => {
                let mut places = Vec::new();
                request.fields.terms(|term| places.push(self.place(term.hash())))?;
                places.sort_unstable();
                places.dedup();
                let places: Arc<[usize]> = places.into();
                if self.decisions.len() < DECISIONS_MAX {
                    self.decisions.insert(request.decision, Arc::clone(&places));
                }
                places
            }
        };
        for place in places.iter() {
            self.push(*place, at);
        }
        if request.fields.sealed {
            self.push(self.sealed, at);
        }
        request.fields.open_texts(|sort, text| self.matrix.add(block, sort, text))
    }

    fn add_event(&mut self, db: &Db, at: u16, block: usize, index: u64, leaf: &[u8]) -> Result<(), StoreError> {
        let mut found = Vec::new();
        match &log::decode(db, index, leaf)?.entry.event {
            Event::SessionStarted(started) => found.extend(started.policies.iter().map(|id| Term::Policy(id).hash())),
            Event::LoginFailed { connection, .. } => found.push(Term::Connection(connection).hash()),
            _ => {}
        }
        for hash in found {
            let place = self.place(hash);
            self.push(place, at);
        }
        let mut sealed = false;
        // Without what is sealed: nothing of that gets into the index by texts.
        let open = decode::decode(leaf, |of| match db.stored_payload(index, of.field).map_err(log::Failed::Store)? {
            Some(Stored::Plain(payload)) => Ok(Some(payload)),
            Some(Stored::Sealed(_)) => {
                sealed = true;
                Ok(None)
            }
            None => Ok(None),
        });
        let open = open.map_err(|error: log::Failed| error.at(index))?;
        if sealed {
            self.push(self.sealed, at);
        }
        texts(&open.entry.event, |text| self.matrix.add(block, TextSort::Other, text));
        Ok(())
    }

    /// Adds the entries of each principal and of each connection.
    fn add_owners(&mut self, db: &Db, owners: &mut Owners) -> Result<(), StoreError> {
        let sessions = std::mem::take(&mut self.sessions);
        let mut owned = Vec::with_capacity(sessions.len() * 2);
        for (id, positions) in &sessions {
            owned.extend(owner(db, owners, *id)?.map(|hash| (hash, positions)));
        }
        owned.sort_unstable_by_key(|(hash, _)| *hash);
        for same in owned.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((hash, _)) = same.first() else { continue };
            let place = self.place(*hash);
            let mut bits = Bits::none();
            same.iter().for_each(|(_, positions)| positions.put_into(&mut bits));
            bits.iter().for_each(|at| self.push(place, u16::try_from(at).unwrap_or(u16::MAX)));
        }
        Ok(())
    }

    /// `rows`: how many there shall be, as a 2-logarithm; `None`: as many as are needed.
    fn write(mut self, db: &Db, owners: &mut Owners, batch: &mut WriteBatch, rows: Option<u32>) -> Result<(), StoreError> {
        self.add_owners(db, owners)?;
        let segment = self.segment;
        let mut value = Vec::new();
        for (hash, set) in &self.sets {
            value.clear();
            if set.encode(&mut value) {
                db.put(batch, Family::Segments, &key(segment, b'B', &hash.to_be_bytes()), &value)?;
            }
        }
        let (bits, rows) = self.matrix.finish(rows);
        for (group, rows) in (0u16..).zip(rows.chunks(ROWS_OF_GROUP)) {
            value.clear();
            rows.iter().for_each(|row| value.extend_from_slice(&row.to_le_bytes()));
            if rows.iter().any(|row| *row != 0) {
                db.put(batch, Family::Segments, &key(segment, b'T', &group.to_be_bytes()), &value)?;
            }
        }
        let put_times = |value: &mut Vec<u8>, (earliest, latest): (i64, i64)| {
            value.extend_from_slice(&earliest.to_be_bytes());
            value.extend_from_slice(&latest.to_be_bytes());
        };
        value.clear();
        self.times.iter().for_each(|times| put_times(&mut value, *times));
        db.put(batch, Family::Segments, &key(segment, b'I', &[]), &value)?;
        value.clear();
        let earliest = self.times.iter().map(|(earliest, _)| *earliest).min().unwrap_or(i64::MAX);
        let latest = self.times.iter().map(|(_, latest)| *latest).max().unwrap_or(i64::MIN);
        put_times(&mut value, (earliest, latest));
        value.push(u8::try_from(bits).unwrap_or(u8::MAX));
        db.put(batch, Family::Find, &head_key(segment), &value)
    }
}

/// Hashes of the session's principal and connection.
fn owner(db: &Db, owners: &mut Owners, id: SessionId) -> Result<[u64; 2], StoreError> {
    if let Some(hashes) = owners.get(&id) {
        return Ok(*hashes);
    }
    let summary = index::stored(db, id)?;
    let (principal, connection) = summary.as_ref().map_or(("", ""), |of| (&of.principal, &of.connection));
    let hashes = [Term::Principal(principal).hash(), Term::Connection(connection).hash()];
    if owners.len() >= OWNERS_KEPT_MAX {
        owners.clear();
    }
    owners.insert(id, hashes);
    Ok(hashes)
}

/// In the order of their numbers.
const VERDICTS: [RecordedVerdict; 3] = [RecordedVerdict::Allow, RecordedVerdict::Deny, RecordedVerdict::Hold];

/// A request, for whoever makes it findable.
pub(crate) struct Request<'a> {
    pub(crate) fields: RequestFields<'a>,
    /// Hash of what decides about [`RequestFields::terms`]: the same, the same terms.
    pub(crate) decision: u64,
}

impl<'a> Request<'a> {
    /// Reads what is needed of it; `None`: the entry is no request.
    pub(crate) fn read(
        db: &Db,
        index: u64,
        header: &Header,
        leaf: &'a [u8],
        hasher: &DefaultHashBuilder,
    ) -> Result<Option<Self>, StoreError> {
        if header.kind != EventKind::Request {
            return Ok(None);
        }
        let fields = RequestFields::read(db, index, leaf)?;
        let decision = fields.decision(hasher);
        Ok(Some(Self { fields, decision }))
    }
}

/// What of a request's leaf, or from beside it, it can be found by.
pub(crate) struct RequestFields<'a> {
    statement: Cow<'a, [u8]>,
    parameters: Cow<'a, [u8]>,
    facts: Cow<'a, [u8]>,
    policies: Cow<'a, [u8]>,
    /// One of its texts is sealed …
    sealed: bool,
    /// … the statement, or the parameters.
    open: [bool; 2],
}

impl<'a> RequestFields<'a> {
    /// Reads them without looking at the rest.
    pub(crate) fn read(db: &Db, index: u64, leaf: &'a [u8]) -> Result<Self, StoreError> {
        let damaged = |e: DecodeError| log::damaged(index, &e);
        let mut request = Self {
            statement: Cow::default(),
            parameters: Cow::default(),
            facts: Cow::default(),
            policies: Cow::default(),
            sealed: false,
            open: [true; 2],
        };
        let mut reader = Reader::new(leaf.get(2..).unwrap_or_default());
        while let Some((field, bytes)) = reader.skip().map_err(damaged)? {
            if field == BESIDE {
                let commitment = Commitment::read(bytes).map_err(damaged)?;
                request.take_beside(db, index, &commitment)?;
            } else if let Some(place) = request.place(field) {
                *place = Cow::Borrowed(bytes);
            }
        }
        Ok(request)
    }

    /// Reads what is kept beside for one of the fields. What cannot be opened is empty, as what is gone is: that it is damaged
    /// is for others to say.
    fn take_beside(&mut self, db: &Db, index: u64, commitment: &Commitment) -> Result<(), StoreError> {
        let field = commitment.field;
        if self.place(field).is_none() {
            return Ok(());
        }
        let (sealed, payload) = match db.stored_payload(index, field)? {
            None => (false, Vec::new()),
            Some(Stored::Plain(payload)) => (false, payload),
            Some(Stored::Sealed(sealed)) => {
                let opened = db.keys().and_then(|keys| keys.open(commitment, &sealed).ok().flatten());
                (true, opened.unwrap_or_default())
            }
        };
        if sealed {
            match field {
                REQUEST_STATEMENT => self.open[0] = false,
                REQUEST_PARAMETERS => self.open[1] = false,
                _ => {}
            }
            self.sealed = self.open != [true; 2];
        }
        if let Some(place) = self.place(field) {
            *place = Cow::Owned(payload.get(SALT_LENGTH..).unwrap_or_default().to_vec());
        }
        Ok(())
    }

    /// Shows its texts that are not sealed.
    fn open_texts(&self, mut visit: impl FnMut(TextSort, &[u8])) -> Result<(), DecodeError> {
        let [statement, parameters] = self.open;
        if statement {
            visit(TextSort::Statement, &self.statement);
        }
        if parameters { self.text_parameters(|text| visit(TextSort::Other, text)) } else { Ok(()) }
    }

    fn place(&mut self, field: u32) -> Option<&mut Cow<'a, [u8]>> {
        match field {
            REQUEST_STATEMENT => Some(&mut self.statement),
            REQUEST_PARAMETERS => Some(&mut self.parameters),
            REQUEST_FACTS => Some(&mut self.facts),
            REQUEST_POLICIES => Some(&mut self.policies),
            _ => None,
        }
    }

    /// Hash of what decides about [`Self::terms`]: the same, the same terms.
    fn decision(&self, hasher: &DefaultHashBuilder) -> u64 {
        let mut state = hasher.build_hasher();
        state.write(&self.facts);
        // Where one ends and the other begins.
        state.write_usize(self.facts.len());
        state.write(&self.policies);
        state.finish()
    }

    /// Shows its objects and policies.
    pub(crate) fn terms(&self, mut visit: impl FnMut(Term<'_>)) -> Result<(), DecodeError> {
        objects(&decode::facts_alone(&self.facts)?, |name| visit(Term::Object(name)));
        let policies = decode::list_alone(&self.policies)?;
        policies.iter().for_each(|id| visit(Term::Policy(id)));
        Ok(())
    }

    /// Whether one of its texts has it.
    pub(crate) fn has_text(&self, needle: &Needle) -> Result<bool, DecodeError> {
        let mut found = needle.is_in(&self.statement);
        if !found && !self.parameters.is_empty() {
            self.text_parameters(|value| found = found || needle.is_in(value))?;
        }
        Ok(found)
    }

    fn text_parameters(&self, mut visit: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        let mut list = Reader::new(&self.parameters);
        while let Some(bytes) = list.optional(1)? {
            let mut parameter = Reader::new(bytes);
            let value = parameter.optional(1)?;
            // Format 0 is text.
            if parameter.uint(2)? == 0 {
                value.into_iter().for_each(&mut visit);
            }
        }
        Ok(())
    }
}
