//! How times, statements and verdicts look in a page.

use crate::approvals::Pending;
use crate::units::show_time;
use crate::view;
use proxy_core::Timestamp;
use serde_json::Value;
use std::fmt;

/// A point in time: in UTC, and the page's script shows it in the viewer's zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(pub(super) Timestamp);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = show_time(self.0);
        // No letter of it comes from outside.
        let short = at.get(..19).unwrap_or(&at).replace('T', " ");
        write!(f, "<time datetime=\"{at}\" title=\"{short} UTC\">{short} UTC</time>")
    }
}

impl askama::filters::HtmlSafe for Moment {}

/// One line of what waits.
pub(super) struct WaitingLine {
    pub(super) id: String,
    pub(super) principal: String,
    pub(super) connection: String,
    pub(super) database: String,
    pub(super) does: String,
    pub(super) statement: String,
    pub(super) missing: String,
    pub(super) submitted: Moment,
    pub(super) expires: Moment,
}

impl WaitingLine {
    pub(super) fn of(pending: &Pending) -> Self {
        let held = &pending.held;
        Self {
            id: pending.id.to_string(),
            principal: held.principal.id(),
            connection: held.target.connection.clone(),
            database: held.target.database.clone(),
            does: does(&held.facts),
            statement: view::one_line(&String::from_utf8_lossy(&held.statement)),
            missing: pending.missing().join(", "),
            submitted: Moment(held.submitted),
            expires: Moment(pending.expires),
        }
    }
}

/// What a request would do, in a few words.
pub(super) fn does(facts: &proxy_core::Facts) -> String {
    let mut parts = view::operations(facts);
    parts.extend(facts.unknown.iter().map(|unknown| format!("unknown: {}", unknown.what)));
    view::one_line(&parts.join(", "))
}

/// One entry of a session, as its timeline shows it.
pub(super) struct Line {
    /// Its number in the session: for links.
    pub(super) number: String,
    pub(super) at: Option<Moment>,
    /// `allow`, `deny`, `hold`, `completed` …: how it is marked.
    pub(super) mark: String,
    /// The request's number, where the line is a request.
    pub(super) request: Option<u64>,
    /// The statement; empty: there is none.
    pub(super) statement: String,
    /// Everything else, in words.
    pub(super) words: String,
}

impl Line {
    /// `entry` is [`view::entry`]'s.
    pub(super) fn of(entry: &Value, time: Timestamp) -> Self {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let (mark, statement, words) = match text("event") {
            "request" => {
                let reason = entry["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let parameters = entry["parameters"].as_array().into_iter().flatten().map(view::parameter_in_words);
                let parameters = parameters.collect::<Vec<_>>().join(", ");
                let parameters = if parameters.is_empty() { parameters } else { format!(" · with {parameters}") };
                (text("verdict"), view::statement(entry), format!("{}{reason}{parameters}", view::decided(entry)))
            }
            "outcome" => (text("status"), String::new(), view::summary(entry)),
            "approval" => (text("step"), String::new(), view::summary(entry)),
            _ => ("", String::new(), view::summary(entry)),
        };
        let number = entry["number"].as_u64().map(|number| number.to_string()).unwrap_or_default();
        let request = entry["request"].as_u64().filter(|_| text("event") == "request");
        let (statement, words) = (view::exact(&statement).0, view::exact(&words).0);
        Self { number, at: Some(Moment(time)), mark: mark.to_owned(), request, statement, words }
    }
}
