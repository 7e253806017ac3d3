//! CEF version 0, as "ArcSight Common Event Format (CEF) Implementation Standard" has it:
//!
//! ```text
//! CEF:0|Sallyport|Sallyport|VERSION|EVENT|TITLE|SEVERITY|key=value key=value …
//! ```
//!
//! - In the header `\` and `|` are escaped by `\`, and a line break is a space.
//! - In a value `\`, `=` are escaped by `\`, a line feed is `\n`, a carriage return `\r`.
//! - Other control characters have no form in CEF: each is the replacement character U+FFFD, so that an event stays one
//!   line and no terminal is moved. The exact text is in the other formats.
//! - The dictionary's lengths (`cs5` 4,000 bytes …) are what receivers keep, not what is sent: nothing is cut here.

use super::{EncodeError, Encoder, json_text};
use crate::context::{LogInfo, SessionContext};
use crate::row::Row;
use crate::text::{Texts, endpoint};
use audit_store::{EventKind, StoredEntry};
use proxy_core::record::{OutcomeStatus, RecordedVerdict};
use std::fmt::Display;
use std::net::IpAddr;

pub(super) struct Cef {
    pub(super) log: LogInfo,
    pub(super) texts: Texts,
}

/// 0 to 10: 3 what happens all day, 5 what somebody changed, 6 what failed or waits, 8 what was refused.
fn severity(row: &Row) -> u8 {
    match (row.kind, row.verdict, row.status) {
        (EventKind::LoginFailed | EventKind::ReloadRefused, _, _) | (_, Some(RecordedVerdict::Deny), _) => 8,
        (_, _, Some(OutcomeStatus::Refused)) => 8,
        (EventKind::Approval | EventKind::ClockJump, _, _) | (_, Some(RecordedVerdict::Hold), _) => 6,
        (_, _, Some(OutcomeStatus::Failed | OutcomeStatus::Unknown)) => 6,
        (EventKind::Administration | EventKind::Activated | EventKind::GatewayStarted | EventKind::GatewayStopped, _, _) => 5,
        _ => 3,
    }
}

/// Success or failure, where there is one.
fn outcome(row: &Row) -> Option<&'static str> {
    match (row.kind, row.verdict, row.status) {
        (EventKind::LoginFailed | EventKind::ReloadRefused, _, _) | (_, Some(RecordedVerdict::Deny), _) => Some("failure"),
        (EventKind::SessionStarted, _, _) => Some("success"),
        (_, _, Some(status)) => Some(if status == OutcomeStatus::Completed { "success" } else { "failure" }),
        _ => None,
    }
}

fn header(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' | '|' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
}

fn value(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' | '=' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push('\t'),
            // Line separators that some receivers break at.
            '\u{2028}' | '\u{2029}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

/// The extension, key by key.
struct Extension(String);

impl Extension {
    fn put(&mut self, key: &str, text: impl Display) {
        let text = text.to_string();
        if text.is_empty() {
            return;
        }
        self.0.push_str(if self.0.is_empty() { "" } else { " " });
        self.0.push_str(key);
        self.0.push('=');
        value(&text, &mut self.0);
    }

    fn maybe(&mut self, key: &str, text: Option<impl Display>) {
        if let Some(text) = text {
            self.put(key, text);
        }
    }

    /// A value of ours, with its label.
    fn ours(&mut self, key: &str, label: &str, text: impl Display) {
        let text = text.to_string();
        if !text.is_empty() {
            self.put(key, text);
            self.put(&format!("{key}Label"), label);
        }
    }
}

fn extension(row: &Row, log: &LogInfo) -> String {
    let mut out = Extension(String::new());
    out.put("rt", row.time.0.div_euclid(1_000));
    out.put("externalId", row.index);
    out.put("deviceExternalId", &log.id);
    out.put("dvchost", &log.host);
    out.put("cat", row.kind.as_str());
    let (source, port) = endpoint(&row.who.source);
    match source.parse() {
        Ok(IpAddr::V4(_)) => out.put("src", source),
        Ok(IpAddr::V6(_)) => out.ours("c6a2", "Source IPv6 Address", source),
        Err(_) => out.put("shost", source),
    }
    out.maybe("spt", port);
    let (target, port) = endpoint(&row.who.address);
    out.put("dhost", target);
    out.maybe("dpt", port);
    out.put("suid", &row.who.principal);
    out.put("suser", &row.who.label);
    out.put("duser", &row.who.upstream_user);
    out.put("app", &row.who.protocol);
    out.put("sourceServiceName", &row.who.application);
    out.put("destinationServiceName", &row.who.database);
    out.maybe("act", row.verdict.map(RecordedVerdict::as_str).or(row.action.as_deref()));
    out.maybe("outcome", outcome(row));
    out.maybe("reason", row.reason.as_deref());
    out.maybe("requestMethod", row.request_kind);
    out.maybe("out", row.bytes);
    out.ours("cs1", "session", row.session.map(|id| id.to_string()).unwrap_or_default());
    out.ours("cs2", "connection", &row.who.connection);
    out.ours("cs3", "policies", row.policies.join(","));
    out.ours("cs4", "objects", row.objects.join(","));
    let statement = if row.statement_base64 { "statement (base64)" } else { "statement" };
    out.ours("cs5", statement, row.statement.as_deref().unwrap_or_default());
    out.ours("cs6", "details", details(row));
    if let Some(request) = row.request {
        out.ours("cn1", "request", request);
    }
    if let Some(rows) = row.rows {
        out.ours("cn2", "rows", rows);
    }
    if let Some(micros) = row.duration_micros {
        out.ours("cn3", "duration in microseconds", micros);
    }
    out.0
}

/// What has no key of its own, as JSON.
fn details(row: &Row) -> String {
    let mut all = serde_json::Map::new();
    let mut add = |name: &str, value: serde_json::Value| {
        all.insert(name.to_owned(), value);
    };
    if let Some([passed, masked, refused]) = row.columns {
        add("columns_passed", passed.into());
        add("columns_masked", masked.into());
        add("columns_refused", refused.into());
    }
    let texts = [
        ("actor", row.actor.as_deref()),
        ("object", row.object.as_deref()),
        ("status", row.status.map(OutcomeStatus::as_str)),
        ("code", row.code.as_deref()),
        ("tag", row.tag.as_deref()),
        ("policy_version", row.policy_version.as_deref()),
        ("principal_kind", Some(row.who.principal_kind.as_str()).filter(|kind| !kind.is_empty())),
    ];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| text.map(|text| (name, text))) {
        add(name, text.into());
    }
    if !row.masked_classes.is_empty() {
        add("masked_classes", row.masked_classes.clone().into());
    }
    if !row.actions.is_empty() {
        add("actions", row.actions.clone().into());
    }
    if let Some(number) = row.number {
        add("number", number.into());
    }
    if !row.details.is_empty() {
        add("details", row.details.clone().into());
    }
    if all.is_empty() { String::new() } else { json_text(&all) }
}

impl Encoder for Cef {
    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let row = Row::new(stored, session, self.texts);
        let mut line = String::from("CEF:0|Sallyport|Sallyport|");
        header(&self.log.version, &mut line);
        line.push('|');
        header(row.kind.as_str(), &mut line);
        line.push('|');
        header(&row.title(), &mut line);
        line.push_str(&format!("|{}|{}\n", severity(&row), extension(&row, &self.log)));
        out.extend_from_slice(line.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_values_are_escaped_each_their_own_way() {
        let (mut head, mut ext) = (String::new(), String::new());
        header("a|b\\c=d\ne", &mut head);
        assert_eq!(head, "a\\|b\\\\c=d e");
        value("a|b\\c=d\ne\r\tf\x1b[2J\u{2028}", &mut ext);
        assert_eq!(ext, "a|b\\\\c\\=d\\ne\\r\tf\u{fffd}[2J\u{fffd}");
    }
}
