//! The journal: where entries are accepted, before they are moved into the database.
//!
//! An append is one `pwrite` of one record into a file that was filled beforehand, so that it neither grows the file nor
//! waits for anything. What the journal has, the database gets a moment later, in few large writes. There are two
//! halves, a file each, written in turns: one is used again when the database has all of it on the disk. So opening
//! reads at most both of them, and puts what the database lacks where it belongs.
//!
//! ```text
//! file    = head, filled up to 4 KiB; records
//! head    = "sallyport journal 1\n" (20 bytes); the log's id (16); salt (4); mark (8); checksum of all that (4)
//! record  = mark (8); checksum (4) of the next 32 bytes; checksum (4) of the body; length of the body (4); entries (4);
//!           first index (8); synced (8); length of the leaves (4); body, filled up to a multiple of 8
//! body    = leaves, each after its length (2); for each field kept beside: which of the entries (4), field (4),
//!           length (4), content
//! ```
//!
//! Numbers are big-endian. Checksums are CRC-32 and begin with the salt. Salt and mark are drawn anew each time that a half
//! is begun: what is left from before is no record, and neither is what somebody had written into a statement, who would
//! have to guess 96 bits. `synced` says
//! up to where the log was on the disk when the record was made. A record that does not hold ends what a kill left. After
//! a power loss others may follow it; they are dropped where nothing says that what is missing was on the disk.

use crate::batch::Batch;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_ENTRIES_MAX};
use crate::log::Leaves;
use hashbrown::HashMap;
use proxy_core::StoreError;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: &[u8; 20] = b"sallyport journal 1\n";
const HEAD: usize = 52;
const RECORDS_AT: usize = 4_096;
pub(crate) const RECORD_HEAD: usize = 44;
const ALIGN: usize = 8;
/// What a file system reads before it changes a part of it (4 KiB).
const BLOCK: u64 = 4_096;
const _: () = assert!((RECORDS_AT as u64).is_multiple_of(BLOCK), "the first record begins a block");
/// Memory that a chunk begins with (16 KiB): most have 64 short entries in the end.
const CHUNK_ROOM: usize = 16 << 10;

fn path(dir: &Path, half: usize) -> PathBuf {
    dir.join(format!("journal-{half}"))
}

fn failed(dir: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { free: 0, needed: 0 },
        _ => StoreError::Io(format!("the journal in {}: {error}", dir.display())),
    }
}

/// The two files, for syncing: without the writer's lock.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    halves: [File; 2],
    /// Written to since the last sync.
    dirty: [AtomicBool; 2],
}

impl Files {
    /// Waits until the disk has all that was written before.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        for (half, dirty) in self.halves.iter().zip(&self.dirty) {
            if dirty.swap(false, Ordering::AcqRel) {
                half.sync_data().map_err(|e| failed(&self.dir, &e))?;
            }
        }
        Ok(())
    }
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Journal {
    files: Arc<Files>,
    log_id: [u8; 16],
    size: u64,
    /// Which half is written to.
    active: usize,
    secret: Secret,
    at: u64,
    /// The index after the last entry of the other half, until the database has them on the disk.
    full: Option<u64>,
}

/// Why an append did not happen.
pub(crate) enum NoRoom {
    /// It is longer than a quarter of a half: it goes into the database at once.
    TooLong,
    /// The other half is not free yet.
    Full,
}

impl Journal {
    /// Begins an empty journal in `dir`, with halves of `size` bytes: what was there must be in the database, and on
    /// the disk.
    pub(crate) fn begin(dir: &Path, log_id: [u8; 16], size: u64) -> Result<Self, StoreError> {
        let made = (|| {
            let halves = [prepare(&path(dir, 0), size)?, prepare(&path(dir, 1), size)?];
            File::open(dir)?.sync_all()?;
            Ok(halves)
        })();
        let halves = made.map_err(|e| failed(dir, &e))?;
        let files = Files { dir: dir.to_owned(), halves, dirty: [const { AtomicBool::new(false) }; 2] };
        let mut journal =
            Self { files: Arc::new(files), log_id, size, active: 1, secret: Secret::default(), at: size, full: None };
        journal.clear()?;
        Ok(journal)
    }

    /// Empties it, so that nothing of it is read again.
    pub(crate) fn clear(&mut self) -> Result<(), StoreError> {
        self.turn()?;
        self.turn()?;
        self.full = None;
        self.files.sync()
    }

    /// Overwrites all that it has, of which the database must have everything on the disk: what was destroyed there shall not
    /// be left here.
    pub(crate) fn erase(&mut self) -> Result<(), StoreError> {
        let zeros = vec![0; 1 << 20];
        for half in 0..2 {
            let mut at = 0;
            while at < self.size {
                let part = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(zeros.len());
                self.write(half, &zeros[..part], at)?;
                at += part as u64;
            }
        }
        self.clear()
    }

    pub(crate) fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files)
    }

    /// Begins the other half.
    fn turn(&mut self) -> Result<(), StoreError> {
        let mut drawn = [0; SECRET];
        aws_lc_rs::rand::fill(&mut drawn).map_err(|_| StoreError::Io("no randomness for the journal's salt".to_owned()))?;
        let other = 1 - self.active;
        let mut block = [0; RECORDS_AT];
        block[..HEAD].copy_from_slice(&head(&self.log_id, drawn));
        self.write(other, &block, 0)?;
        self.active = other;
        self.secret = Secret::new(drawn);
        self.at = RECORDS_AT as u64;
        Ok(())
    }

    /// Appends `batch` as the `count` entries from `first` on, or says why not yet; `synced`: the log is on the disk up
    /// to there.
    pub(crate) fn append(
        &mut self,
        batch: &mut Batch,
        first: u64,
        count: u64,
        synced: u64,
    ) -> Result<Option<NoRoom>, StoreError> {
        let beside = beside(batch);
        let leaves = batch.leaves();
        let body = leaves + beside.len();
        let length = (RECORD_HEAD + body).next_multiple_of(ALIGN) as u64;
        if length > self.size / 4 {
            return Ok(Some(NoRoom::TooLong));
        }
        if self.at + length > self.size {
            if self.full.is_some() {
                return Ok(Some(NoRoom::Full));
            }
            self.turn()?;
            self.full = Some(first);
        }
        let Secret { salt, mark } = self.secret;
        let end = self.at + length;
        // A block that is begun is written to its end: of a part of it, the kernel would have to read the rest first.
        let begun = self.at.next_multiple_of(BLOCK);
        let until = if end > begun { end.next_multiple_of(BLOCK).min(self.size) } else { end };
        let fill = usize::try_from(until - self.at).unwrap_or_default().saturating_sub(RECORD_HEAD + body);
        batch.with_record(&beside, fill, |record| {
            let Some((head, rest)) = record.split_first_chunk_mut::<RECORD_HEAD>() else { return Ok(()) };
            let content = &rest[..body];
            head[..8].copy_from_slice(&mark);
            head[12..16].copy_from_slice(&checksum(salt, content).to_be_bytes());
            head[16..20].copy_from_slice(&truncated(body).to_be_bytes());
            head[20..24].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
            head[24..32].copy_from_slice(&first.to_be_bytes());
            head[32..40].copy_from_slice(&synced.to_be_bytes());
            head[40..].copy_from_slice(&truncated(leaves).to_be_bytes());
            let sum = checksum(salt, &head[12..]);
            head[8..12].copy_from_slice(&sum.to_be_bytes());
            self.write(self.active, record, self.at)
        })?;
        self.at = end;
        Ok(None)
    }

    fn write(&self, half: usize, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        let written = loop {
            match rustix::io::pwrite(&self.files.halves[half], bytes, at) {
                Err(Errno::INTR) => {}
                written => break written,
            }
        };
        match written {
            Ok(written) if written == bytes.len() => {
                self.files.dirty[half].store(true, Ordering::Release);
                Ok(())
            }
            Ok(written) => Err(StoreError::Io(format!("the journal took {written} bytes of {}", bytes.len()))),
            Err(error) => Err(failed(&self.files.dir, &error.into())),
        }
    }

    /// The half that waits for the database to have the entries before this on the disk.
    pub(crate) fn waits_for(&self) -> Option<u64> {
        self.full
    }

    /// The database has the entries before `end` on the disk.
    pub(crate) fn release(&mut self, end: u64) {
        self.full = self.full.filter(|full| *full > end);
    }
}

/// A file of `size` bytes that are all there: writing into it needs no further space.
fn prepare(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.len() != size {
        file.set_len(0)?;
        let zeros = vec![0; 64 << 10];
        let mut left = size;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
            (&file).write_all(&zeros[..part])?;
            left -= part as u64;
        }
        file.sync_all()?;
    }
    Ok(file)
}

fn head(log_id: &[u8; 16], drawn: [u8; SECRET]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..20].copy_from_slice(MAGIC);
    head[20..36].copy_from_slice(log_id);
    head[36..48].copy_from_slice(&drawn);
    let checksum = checksum(0, &head[..48]);
    head[48..].copy_from_slice(&checksum.to_be_bytes());
    head
}

/// Random bytes of a half: salt and mark.
const SECRET: usize = 12;

/// What tells the records of a half from all else.
#[derive(Debug, Clone, Copy, Default)]
struct Secret {
    /// Checksums begin with it.
    salt: u32,
    /// Records begin with it.
    mark: [u8; 8],
}

impl Secret {
    fn new([s0, s1, s2, s3, mark @ ..]: [u8; SECRET]) -> Self {
        Self { salt: u32::from_be_bytes([s0, s1, s2, s3]), mark }
    }
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// Lengths that the limit of a record bounds.
fn truncated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn beside(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, field) in &batch.beside {
        bytes.extend_from_slice(&truncated(*entry).to_be_bytes());
        bytes.extend_from_slice(&field.field.to_be_bytes());
        bytes.extend_from_slice(&truncated(field.payload.len()).to_be_bytes());
        bytes.extend_from_slice(&field.payload);
    }
    bytes
}

/// Entries that are to be moved into the database, or stand in for it: consecutive ones.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// Index of the first leaf, number of leaves, and the leaves: each at most one chunk of the database.
    pub(crate) chunks: Vec<(u64, usize, Vec<u8>)>,
    /// Index of the entry, and field → content.
    pub(crate) beside: HashMap<(u64, u32), Vec<u8>>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes of it, about.
    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// The index after its last entry.
    pub(crate) fn end(&self) -> Option<u64> {
        self.chunks.last().map(|(first, count, _)| first + *count as u64)
    }

    /// The index of its first entry.
    pub(crate) fn first(&self) -> Option<u64> {
        self.chunks.first().map(|(first, ..)| *first)
    }

    /// Appends leaves that go under one key at most.
    fn push(&mut self, first: u64, count: usize, leaves: &[u8]) {
        self.bytes += leaves.len();
        match self.chunks.last_mut() {
            Some((_, before, bytes)) if *before + count <= CHUNK_ENTRIES_MAX && bytes.len() + leaves.len() <= CHUNK_BYTES_MAX => {
                *before += count;
                bytes.extend_from_slice(leaves);
            }
            _ => {
                let mut chunk = Vec::with_capacity(leaves.len().max(CHUNK_ROOM));
                chunk.extend_from_slice(leaves);
                self.chunks.push((first, count, chunk));
            }
        }
    }

    /// Appends a batch that was accepted as the entries from `first` on.
    pub(crate) fn add(&mut self, first: u64, batch: &mut Batch) {
        for chunk in &batch.chunks {
            self.push(first + chunk.first as u64, chunk.count, batch.chunk(chunk));
        }
        for (entry, field) in batch.beside.drain(..) {
            self.bytes += field.payload.len();
            self.beside.insert((first + entry as u64, field.field), field.payload);
        }
    }

    /// Appends a record.
    fn replay(&mut self, record: Record) -> Option<()> {
        let (leaves, mut rest) = record.body.split_at_checked(record.leaves)?;
        let mut index = record.first;
        for leaf in Leaves::new(leaves) {
            let leaf = leaf.ok()?;
            let prefix = u16::try_from(leaf.len()).ok()?;
            self.push(index, 1, &[&prefix.to_be_bytes()[..], leaf].concat());
            index += 1;
        }
        if index != record.end() {
            return None;
        }
        while !rest.is_empty() {
            let [entry, field, length] = [take(&mut rest)?, take(&mut rest)?, take(&mut rest)?];
            let (content, after) = rest.split_at_checked(length as usize)?;
            self.bytes += content.len();
            self.beside.insert((record.first + u64::from(entry), field), content.to_vec());
            rest = after;
        }
        Some(())
    }
}

fn take(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

#[derive(Debug)]
struct Record {
    first: u64,
    count: u32,
    leaves: usize,
    synced: u64,
    body: Vec<u8>,
    length: usize,
}

impl Record {
    /// The record at the beginning of `bytes`, if there is one. Of one that ends before `from`, the body is not looked at.
    fn read(Secret { salt, mark }: Secret, bytes: &[u8], from: u64) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD>()?;
        let number = |at: usize| head.get(at..at + 4).and_then(|n| n.try_into().ok()).map_or(0, u32::from_be_bytes);
        let long = |at: usize| head.get(at..at + 8).and_then(|n| n.try_into().ok()).map_or(0, u64::from_be_bytes);
        if !head.starts_with(&mark) || number(8) != checksum(salt, &head[12..]) {
            return None;
        }
        let body = rest.get(..number(16) as usize)?;
        let (count, first) = (number(20), long(24));
        let end = first.checked_add(u64::from(count)).filter(|_| count > 0)?;
        let length = (RECORD_HEAD + body.len()).next_multiple_of(ALIGN);
        let body = if end <= from { &[] } else { body };
        if end > from && number(12) != checksum(salt, body) {
            return None;
        }
        Some(Self { first, count, leaves: number(40) as usize, synced: long(32), body: body.to_vec(), length })
    }

    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// What the journal of a store has.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In order of their indices.
    records: Vec<Record>,
    /// Entries before this were on the disk.
    pub(crate) synced: u64,
}

impl Found {
    /// Takes the consecutive entries that begin with `from`.
    pub(crate) fn run(self, from: u64) -> Result<Tail, StoreError> {
        let mut tail = Tail::default();
        let mut expected = from;
        for record in self.records.into_iter().skip_while(|record| record.first < from) {
            if record.first != expected {
                break;
            }
            expected = record.end();
            let first = record.first;
            tail.replay(record).ok_or_else(|| StoreError::Corrupt(format!("the journal's record of entry {first}")))?;
        }
        Ok(tail)
    }

    /// How many there are from `from` on.
    pub(crate) fn entries_from(&self, from: u64) -> u64 {
        self.records.iter().filter(|record| record.first >= from).map(|record| u64::from(record.count)).sum()
    }
}

/// How the two halves begin, which tells whether one was begun anew.
pub(crate) fn heads(dir: &Path) -> Result<[Vec<u8>; 2], StoreError> {
    let head = |half| match File::open(path(dir, half)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        file => {
            let mut head = Vec::with_capacity(HEAD);
            file.and_then(|file| file.take(HEAD as u64).read_to_end(&mut head)).map_err(|e| failed(dir, &e))?;
            Ok(head)
        }
    };
    Ok([head(0)?, head(1)?])
}

/// Reads what the journal in `dir`, of the log with that id, has from the entry `from` on. It may be written to meanwhile:
/// `None`, if a half was begun anew.
///
/// # Errors
/// [`StoreError::Corrupt`]: a head is damaged, or of another log. [`StoreError::Io`].
pub(crate) fn read(dir: &Path, log_id: &[u8; 16], from: u64) -> Result<Option<Found>, StoreError> {
    let mut found = Found::default();
    for half in 0..2 {
        let path = path(dir, half);
        let bytes = match fs::read(&path) {
            // A store that was just made, or comes from before there was a journal.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes.map_err(|e| failed(dir, &e))?,
        };
        let Some(secret) = secret(&path, &bytes, log_id)? else { continue };
        let mut again = [0; HEAD];
        File::open(&path).and_then(|mut file| file.read_exact(&mut again)).map_err(|e| failed(dir, &e))?;
        if bytes.get(..HEAD) != Some(&again[..]) {
            return Ok(None);
        }
        let mut at = RECORDS_AT;
        while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() > RECORD_HEAD) {
            // Behind one that does not hold, each place is looked at: a power loss may leave later ones.
            match Record::read(secret, rest, from) {
                None => at += ALIGN,
                Some(record) => {
                    at += record.length;
                    found.synced = found.synced.max(record.synced);
                    if record.end() > from {
                        found.records.push(record);
                    }
                }
            }
        }
    }
    found.records.sort_by_key(|record| record.first);
    Ok(Some(found))
}

/// What a half's records are told by; `None`: it was never begun.
fn secret(path: &Path, bytes: &[u8], log_id: &[u8; 16]) -> Result<Option<Secret>, StoreError> {
    let Some(head) = bytes.first_chunk::<HEAD>().filter(|head| head.iter().any(|byte| *byte != 0)) else { return Ok(None) };
    let (content, sum) = head.split_at(48);
    let damaged = |what: &str| StoreError::Corrupt(format!("{} {what}", path.display()));
    if sum != checksum(0, content).to_be_bytes() || !content.starts_with(MAGIC) {
        return Err(damaged("does not begin as a journal does"));
    }
    if content.get(20..36) != Some(log_id) {
        return Err(damaged("belongs to another log"));
    }
    Ok(content.last_chunk().copied().map(Secret::new))
}
