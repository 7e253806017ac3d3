//! What an entry can be found under, and whether it passes.

use crate::find::grams::Needle;
use crate::kind::EventKind;
use proxy_core::record::RecordedVerdict;
use proxy_core::{Event, Facts, ValueFormat};

/// Parts of an object's path that are looked at (8): none has so many.
const PARTS_MAX: usize = 8;

/// A value that entries or sessions have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term<'a> {
    Principal(&'a str),
    Connection(&'a str),
    Verdict(RecordedVerdict),
    /// Parts of an object's path that follow each other, with dots between.
    Object(&'a str),
    Policy(&'a str),
    Kind(EventKind),
    /// Hours since 1970. Of sessions alone: they have an entry of that hour.
    Hour(i64),
    /// It has a text that is sealed, and that no row of the index by texts knows.
    Sealed,
}

/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

impl Term<'_> {
    /// The hour of a time.
    pub(crate) fn hour(time: proxy_core::Timestamp) -> Self {
        Self::Hour(time.0.div_euclid(HOUR))
    }

    /// What all keys of it begin with: sort, length of the value (4 bytes, big-endian), value.
    pub(crate) fn prefix(self) -> Vec<u8> {
        let hour;
        let (sort, value): (u8, &[u8]) = match self {
            Term::Principal(id) => (b'p', id.as_bytes()),
            Term::Connection(name) => (b'c', name.as_bytes()),
            Term::Verdict(verdict) => (b'v', verdict.as_str().as_bytes()),
            Term::Object(name) => (b'o', name.as_bytes()),
            Term::Policy(id) => (b'y', id.as_bytes()),
            Term::Kind(kind) => (b'k', kind.as_str().as_bytes()),
            Term::Sealed => (b'x', b"sealed"),
            Term::Hour(hours) => {
                // In the order of time, also before 1970.
                hour = (hours.cast_unsigned() ^ 1 << 63).to_be_bytes();
                (b't', &hour)
            }
        };
        let mut key = Vec::with_capacity(5 + value.len() + 16);
        key.push(sort);
        key.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        key.extend_from_slice(value);
        key
    }

    /// Eight bytes that stand for it (FNV-1a over its prefix). Two values may share them: what is found is looked at.
    pub(crate) fn hash(self) -> u64 {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.prefix().iter().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

/// Every run of parts of the path: `prod.apps/deployments.web` is found under each part, each pair, and the whole.
fn runs(path: &[String], mut visit: impl FnMut(&str)) {
    let path = &path[..path.len().min(PARTS_MAX)];
    for from in 0..path.len() {
        let mut run = String::new();
        for (at, part) in path.iter().enumerate().skip(from) {
            if at > from {
                run.push('.');
            }
            run.push_str(part);
            visit(&run);
        }
    }
}

/// What the objects of a request can be found under; a value may come more than once.
pub(crate) fn objects(facts: &Facts, mut visit: impl FnMut(&str)) {
    for operation in &facts.operations {
        runs(&operation.object.path, &mut visit);
    }
}

/// Whether `wanted` is among [`objects`].
pub(crate) fn has_object(facts: &Facts, wanted: &str) -> bool {
    let mut found = false;
    objects(facts, |name| found = found || name == wanted);
    found
}

/// Shows the texts of an entry that are searched: a request's statement and the parameters that are texts; who a session
/// is of, what it called itself, from where; the same of a failed login, and its reason; administrative actions.
pub(crate) fn texts(event: &Event, mut visit: impl FnMut(&[u8])) {
    match event {
        Event::Request(record) => {
            visit(&record.statement);
            let texts = record.parameters.iter().filter(|parameter| parameter.format == ValueFormat::Text);
            texts.filter_map(|parameter| parameter.value.as_ref()).for_each(|value| visit(value));
        }
        Event::SessionStarted(started) => {
            let texts = [&started.principal.id(), &started.label, &started.application, &started.source];
            texts.into_iter().for_each(|text| visit(text.as_bytes()));
        }
        Event::LoginFailed { source, protocol: _, label, connection: _, reason } => {
            [source, label, reason].into_iter().for_each(|text| visit(text.as_bytes()));
        }
        Event::Administration { by, action, object, details: _ } => {
            [by, action, object].into_iter().for_each(|text| visit(text.as_bytes()));
        }
        Event::GatewayStarted { .. }
        | Event::GatewayStopped { .. }
        | Event::Activated { .. }
        | Event::ReloadRefused { .. }
        | Event::SessionEnded { .. }
        | Event::Outcome(_)
        | Event::Approval { .. }
        | Event::LogRead { .. }
        | Event::ClockJump { .. }
        | Event::Heartbeat
        | Event::LogKey(_)
        | Event::Destroyed(_) => {}
    }
}

/// Whether entries of this kind have [`texts`].
pub(crate) fn has_texts(kind: EventKind) -> bool {
    matches!(kind, EventKind::Request | EventKind::SessionStarted | EventKind::LoginFailed | EventKind::Administration)
}

/// Whether one of the entry's texts has it.
pub(crate) fn has_text(event: &Event, needle: &Needle) -> bool {
    let mut found = false;
    texts(event, |text| found = found || needle.is_in(text));
    found
}

/// Whether a policy determined it: a request's verdict, or that a session might open.
pub(crate) fn has_policy(event: &Event, id: &str) -> bool {
    match event {
        Event::Request(record) => record.policies.iter().any(|policy| **policy == *id),
        Event::SessionStarted(started) => started.policies.iter().any(|policy| policy == id),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_core::{Object, ObjectKind, Operation, Timestamp};

    #[test]
    fn an_object_is_found_under_each_run_of_its_path() {
        let object = Object::new(ObjectKind::KubeResource, ["prod", "apps/deployments", "web"]);
        let facts =
            Facts { operations: vec![Operation { action: "delete".to_owned(), object, has_where: None }], ..Facts::default() };
        for name in
            ["prod", "apps/deployments", "web", "prod.apps/deployments", "apps/deployments.web", "prod.apps/deployments.web"]
        {
            assert!(has_object(&facts, name), "{name}");
        }
        for name in ["", "pro", "prod.web", "prod.", "apps", "web.prod"] {
            assert!(!has_object(&facts, name), "{name}");
        }
    }

    #[test]
    fn hours_sort_in_time_and_no_two_values_share_a_prefix() {
        let hours = [-7_200_000_001, -1, 0, 3_599_999_999, 3_600_000_000, i64::MAX].map(|at| Term::hour(Timestamp(at)).prefix());
        assert!(hours.is_sorted());
        assert_eq!(hours[2], hours[3]);
        assert_ne!(Term::Object("a").hash(), Term::Policy("a").hash());
    }
}
