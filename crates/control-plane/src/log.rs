//! Reading the audit log: the same filters for the API and for the command line.

use crate::units::parse_time;
use audit_store::limits::TEXT_MIN;
use audit_store::{EntryFilter, EventKind, Reader, SessionFilter, StoredEntry};
use proxy_core::record::RecordedVerdict;
use proxy_core::{SessionId, StoreError, Timestamp};
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest page that is read at once.
const PAGE: usize = 512;

/// Which part of the log. All texts, as a person or a URL gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
pub struct Filter {
    /// Only of this principal: ISSUER/SUBJECT
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only on this connection
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// From this time on: RFC 3339, a date, or how long ago (2h, 7d)
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only with this verdict: allow, deny or hold
    #[arg(long, value_name = "VERDICT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Only with a request on this object: public.orders, or a part of it: orders, public
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Only what this policy determined
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Only with this text, in whatever case: in a statement or a text parameter, in who a session is of, what it called
    /// itself and where it came from, in a failed login or an administrative action
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A filter that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// Not a time.
    #[error("{0:?} is not a time; write 2026-11-24T10:00:00Z, 2026-11-24, or how long ago: 2h, 7d")]
    Time(String),
    /// Not a verdict.
    #[error("{0:?} is not a verdict; it is allow, deny or hold")]
    Verdict(String),
    /// Too short a text.
    #[error("the text {0:?} is too short to be searched for; give at least {TEXT_MIN} characters")]
    Text(String),
    /// Not a kind of entry.
    #[error("{0:?} is not a kind of entry; kinds are {kinds}", kinds = kinds())]
    Kind(String),
}

fn kinds() -> String {
    EventKind::ALL.map(EventKind::as_str).join(", ")
}

fn time(text: Option<&String>) -> Result<Option<Timestamp>, InvalidFilter> {
    text.map(|text| parse_time(text, now()).ok_or_else(|| InvalidFilter::Time(text.clone()))).transpose()
}

fn searched(text: Option<&String>) -> Result<Option<String>, InvalidFilter> {
    match text {
        Some(text) if text.len() < TEXT_MIN => Err(InvalidFilter::Text(text.clone())),
        other => Ok(other.cloned()),
    }
}

fn verdict(text: Option<&String>) -> Result<Option<RecordedVerdict>, InvalidFilter> {
    let all = [RecordedVerdict::Allow, RecordedVerdict::Deny, RecordedVerdict::Hold];
    let find = |text: &String| {
        all.into_iter().find(|verdict| verdict.as_str() == text).ok_or_else(|| InvalidFilter::Verdict(text.clone()))
    };
    text.map(find).transpose()
}

impl fmt::Display for Filter {
    /// For the record of a reading: `principal=dev/ci since=2h`; `all` without a condition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.conditions().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        f.write_str(if set.is_empty() { "all" } else { "" })?;
        f.write_str(&set.join(" "))
    }
}

impl Filter {
    /// The conditions that are set: name, as in a query, and value.
    pub fn conditions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("principal", &self.principal),
            ("connection", &self.connection),
            ("since", &self.since),
            ("until", &self.until),
            ("verdict", &self.verdict),
            ("object", &self.object),
            ("policy", &self.policy),
            ("text", &self.text),
        ];
        all.into_iter().filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }

    /// As a filter of sessions.
    ///
    /// # Errors
    /// [`InvalidFilter`].
    pub fn sessions(&self) -> Result<SessionFilter, InvalidFilter> {
        Ok(SessionFilter {
            principal: self.principal.clone(),
            connection: self.connection.clone(),
            verdict: verdict(self.verdict.as_ref())?,
            object: self.object.clone(),
            policy: self.policy.clone(),
            text: searched(self.text.as_ref())?,
            since: time(self.since.as_ref())?,
            until: time(self.until.as_ref())?,
            ..SessionFilter::default()
        })
    }

    /// As a filter of entries of some kinds (empty: all).
    ///
    /// # Errors
    /// [`InvalidFilter`].
    pub fn entries(&self, kinds: &[String]) -> Result<EntryFilter, InvalidFilter> {
        let kinds = kinds.iter().map(|kind| kind.parse().map_err(|_| InvalidFilter::Kind(kind.clone())));
        Ok(EntryFilter {
            session: None,
            principal: self.principal.clone(),
            connection: self.connection.clone(),
            verdict: verdict(self.verdict.as_ref())?,
            object: self.object.clone(),
            policy: self.policy.clone(),
            text: searched(self.text.as_ref())?,
            kinds: kinds.collect::<Result<_, _>>()?,
            since: time(self.since.as_ref())?,
            until: time(self.until.as_ref())?,
        })
    }
}

/// The session whose id is, or starts with, `text`.
///
/// # Errors
/// [`LogError`].
pub fn find_session(reader: &Reader, text: &str) -> Result<SessionId, LogError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if text.len() < 4 || !text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(LogError::NoSession(text.to_owned()));
    }
    match reader.sessions_named(text, 2)?.as_slice() {
        [] => Err(LogError::NoSession(text.to_owned())),
        [one] => Ok(*one),
        [_, ..] => Err(LogError::Ambiguous(text.to_owned())),
    }
}

/// Why the log cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such session.
    #[error("the log knows no session whose id is or starts with {0:?}; `sallyport sessions list` shows them")]
    NoSession(String),
    /// More than one.
    #[error("several sessions' ids start with {0:?}: give more of it")]
    Ambiguous(String),
}

/// The last `count` entries that pass, oldest first, and where to go on after them.
///
/// # Errors
/// [`StoreError`].
pub fn last(reader: &Reader, filter: &EntryFilter, count: usize) -> Result<(Vec<StoredEntry>, u64), StoreError> {
    let end = reader.len()?;
    let (mut found, mut before) = (Vec::new(), Some(end));
    while found.len() < count {
        let page = reader.latest(before, filter, (count - found.len()).min(PAGE))?;
        found.extend(page.items);
        let Some(next) = page.next else { break };
        before = Some(next);
    }
    found.reverse();
    Ok((found, end))
}

/// Hands over every entry from `from` on that passes, in order, up to the end that the log has now. Returns
/// where to go on; `None`: `each` wants no more.
///
/// # Errors
/// [`StoreError`].
pub fn forward(
    reader: &Reader,
    from: u64,
    filter: &EntryFilter,
    mut each: impl FnMut(StoredEntry) -> bool,
) -> Result<Option<u64>, StoreError> {
    let (mut from, end) = (from, reader.len()?);
    while from < end {
        let page = reader.tail(from, filter, PAGE)?;
        for entry in page.items {
            if !each(entry) {
                return Ok(None);
            }
        }
        // It is always there; should it not move on, there is nothing more now.
        match page.next {
            Some(next) if next > from => from = next,
            Some(_) | None => break,
        }
    }
    Ok(Some(from))
}
