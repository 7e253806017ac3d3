//! What the log and the board look like outside: JSON for the API and for `--json`, one line for people.
//! The field names are part of the interface.

use crate::approvals::{Pending, Standing, Width};
use crate::units::show_time;
use audit_store::{SessionSummary, StoredEntry};
use base64::Engine;
use proxy_core::pipeline::{ReviewGroup, Widths};
use proxy_core::{Facts, Parameter, Principal, Target, ValueFormat};
use serde_json::{Map, Value, json};

/// Longest text of a statement in a listing for people, in characters. JSON is never cut.
const LINE_MAX: usize = 160;

/// One entry of the log: `audit-store` has the form.
#[must_use]
pub fn entry(entry: &StoredEntry) -> Value {
    serde_json::to_value(entry).unwrap_or_default()
}

/// A session in a listing.
#[must_use]
pub fn session(summary: &SessionSummary) -> Value {
    let mut value = serde_json::to_value(summary).unwrap_or_default();
    value["started"] = json!(show_time(summary.started));
    value["last"] = json!(show_time(summary.last));
    value["ended"] = json!(summary.ended.map(show_time));
    value
}

fn extend(map: &mut Map<String, Value>, value: Value) {
    if let Value::Object(fields) = value {
        map.extend(fields);
    }
}

/// A principal, with the id that filters take.
#[must_use]
pub fn principal(principal: &Principal) -> Value {
    let mut value = json!({ "id": principal.id() });
    if let (Some(map), Ok(fields)) = (value.as_object_mut(), serde_json::to_value(principal)) {
        extend(map, fields);
        map.insert("expires".into(), json!(principal.expires.map(show_time)));
    }
    value
}

/// A target.
#[must_use]
pub fn target(target: &Target) -> Value {
    serde_json::to_value(target).unwrap_or_default()
}

/// `select on table public.customers`, one for each operation.
#[must_use]
pub fn operations(facts: &Facts) -> Vec<String> {
    let show = |operation: &proxy_core::Operation| {
        let without = if operation.has_where == Some(false) { " without WHERE" } else { "" };
        format!("{} on {}{without}", operation.action, operation.object)
    };
    facts.operations.iter().map(show).collect()
}

/// What a recorded request would do, and the policies that determined its verdict, in one line: `select on table
/// public.orders · by app-read`. Empty: neither is known. `request` is the log's form.
#[must_use]
pub fn decided(request: &Value) -> String {
    let facts: Facts = serde_json::from_value(request["facts"].clone()).unwrap_or_default();
    let policies = request["policies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut parts = operations(&facts);
    parts.extend(facts.unknown.iter().map(|unknown| format!("unknown: {}", unknown.what)));
    let mut line = one_line(&parts.join(", "));
    if !policies.is_empty() {
        line.push_str(if line.is_empty() { "by " } else { " · by " });
        line.push_str(&policies.join(", "));
    }
    line
}

/// Text as text, anything else as `{"base64": …}`: what is shown is never altered unseen.
fn bytes(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(value) }),
    }
}

/// Bound parameters, as far as their types are known.
#[must_use]
pub fn parameters(list: &[Parameter]) -> Vec<Value> {
    list.iter().map(|parameter| json!({ "value": parameter_text(parameter), "type": parameter.type_id })).collect()
}

/// A parameter in words; `None`: NULL. Binary values of common types are decoded, others shown as `\x…`.
#[must_use]
pub fn parameter_text(parameter: &Parameter) -> Option<String> {
    let value = parameter.value.as_ref()?;
    let hex = || format!("\\x{}", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    if parameter.format == ValueFormat::Text {
        return Some(std::str::from_utf8(value).map_or_else(|_| hex(), str::to_owned));
    }
    Some(binary_text(parameter.type_id, value).unwrap_or_else(hex))
}

/// PostgreSQL's binary forms of the types that parameters mostly have.
fn binary_text(type_id: u32, value: &[u8]) -> Option<String> {
    match type_id {
        16 => match value {
            [0] => Some("false".to_owned()),
            [1] => Some("true".to_owned()),
            _ => None,
        },
        20 => value.try_into().ok().map(|bytes| i64::from_be_bytes(bytes).to_string()),
        21 => value.try_into().ok().map(|bytes| i16::from_be_bytes(bytes).to_string()),
        23 => value.try_into().ok().map(|bytes| i32::from_be_bytes(bytes).to_string()),
        26 => value.try_into().ok().map(|bytes| u32::from_be_bytes(bytes).to_string()),
        700 => value.try_into().ok().map(|bytes| f32::from_be_bytes(bytes).to_string()),
        701 => value.try_into().ok().map(|bytes| f64::from_be_bytes(bytes).to_string()),
        // text, name, json, xml, bpchar, varchar, unknown
        19 | 25 | 114 | 142 | 705 | 1042 | 1043 => std::str::from_utf8(value).ok().map(str::to_owned),
        2950 => <[u8; 16]>::try_from(value).ok().map(|bytes| proxy_core::SessionId(bytes).to_string()),
        _ => None,
    }
}

/// A request that waits.
#[must_use]
pub fn pending(pending: &Pending) -> Value {
    let held = &pending.held;
    json!({
        "id": pending.id,
        "session": held.session,
        "request": held.request,
        "principal": principal(&held.principal),
        "target": target(&held.target),
        "statement": bytes(&held.statement),
        "parameters": parameters(&held.parameters),
        "digest": held.digest,
        "operations": operations(&held.facts),
        "asks": held.rule.what,
        "policies": held.rule.policies,
        "policy_version": held.policy_version,
        "reviewers": held.rule.names().collect::<Vec<_>>(),
        "groups": held.rule.groups.iter().map(|group| review_group(pending, group)).collect::<Vec<_>>(),
        "widths": widths(held.rule.widths),
        "missing": pending.missing(),
        "approvals": pending.opinions,
        "submitted": show_time(held.submitted),
        "expires": show_time(pending.expires),
    })
}

/// An approval that covers more than one request.
#[must_use]
pub fn standing(standing: &Standing) -> Value {
    let held = &standing.held;
    json!({
        "id": standing.id,
        "width": standing.width,
        "until": standing.until.map(show_time),
        "session": held.session,
        "principal": principal(&held.principal),
        "target": target(&held.target),
        "statement": bytes(&held.statement),
        "policies": held.rule.policies,
        "policy_version": held.policy_version,
        "approvals": standing.by,
    })
}

/// What a reviewer may choose from.
fn widths(widths: Widths) -> Vec<String> {
    let mut list = vec![Width::Once.to_string()];
    list.extend(widths.session.then(|| Width::Session.to_string()));
    list.extend(widths.window.map(|window| Width::Window(window).to_string()));
    list
}

/// A group that is asked: how far it is, and who may speak for it later.
fn review_group(pending: &Pending, group: &ReviewGroup) -> Value {
    let escalation = group.escalation.as_ref().map(
        |escalation| json!({ "group": escalation.group, "from": show_time(pending.held.submitted.after(escalation.after)) }),
    );
    json!({
        "name": group.name,
        "quorum": group.quorum,
        "approvals": pending.approvals_of(&group.name),
        "escalation": escalation,
    })
}

/// A recorded parameter in words, as a listing shows it. `parameter` is the log's form.
#[must_use]
pub fn parameter_in_words(parameter: &Value) -> String {
    let bytes = match &parameter["value"] {
        Value::Null => return "NULL".to_owned(),
        Value::String(text) => text.clone().into_bytes(),
        other => base64::engine::general_purpose::STANDARD.decode(text(other, "base64")).unwrap_or_default(),
    };
    let format = if parameter["format"] == "binary" { ValueFormat::Binary } else { ValueFormat::Text };
    let type_id = parameter["type"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let shown = parameter_text(&Parameter { value: Some(bytes.into()), format, type_id });
    shown.map_or_else(|| "NULL".to_owned(), |shown| format!("{shown:?}"))
}

/// Text of others, without what would move a terminal's cursor.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Text of others as a page shows it, and whether something of it could not be seen otherwise: control characters, and those
/// that take no room or turn the direction of text (Unicode's `Cf`, as in "Trojan Source"), are written out.
#[must_use]
pub fn exact(text: &str) -> (String, bool) {
    let (mut shown, mut hidden) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        let unseen = match c {
            '\n' | '\t' => false,
            '\r' => true,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => true,
            '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
            '\u{e0000}'..='\u{e007f}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => true,
            other => other.is_control(),
        };
        if unseen {
            hidden = true;
            shown.push_str(&format!("⟦U+{:04X}⟧", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    (shown, hidden)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// A statement on one line, cut for a listing.
#[must_use]
pub fn one_line(statement: &str) -> String {
    let joined = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean: String = joined.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.chars().count() <= LINE_MAX { clean } else { format!("{}…", clean.chars().take(LINE_MAX).collect::<String>()) }
}

/// The statement of an entry or a pending request, for people.
#[must_use]
pub fn statement(value: &Value) -> String {
    match value["statement"].as_str() {
        Some(statement) => statement.to_owned(),
        None => format!("(not text, base64) {}", text(&value["statement"], "base64")),
    }
}

/// What happened, in one line without time and session. `value` is [`entry`]'s.
#[must_use]
pub fn summary(value: &Value) -> String {
    match text(value, "event") {
        "request" => {
            let verdict = text(value, "verdict");
            let reason = value["reason"].as_str().map(|reason| format!("  ({reason})")).unwrap_or_default();
            format!("{verdict} {}: {}{reason}", value["request"], one_line(&statement(value)))
        }
        "outcome" => outcome_summary(value),
        "session_started" => format!(
            "session of {} on {}/{} from {}",
            text(&value["principal"], "id"),
            text(&value["target"], "connection"),
            text(&value["target"], "database"),
            text(value, "source")
        ),
        "session_ended" => format!("session ended: {} ({} requests)", text(value, "reason"), value["requests"]),
        "login_failed" => {
            format!(
                "login failed: {:?} for {:?} from {}: {}",
                text(value, "label"),
                text(value, "connection"),
                text(value, "source"),
                text(value, "reason")
            )
        }
        "approval" => {
            let by = value["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
            let reason = value["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("approval of {} {}{by}{reason}", value["request"], text(value, "step"))
        }
        "administration" => format!("{} {} by {}", text(value, "action"), text(value, "object"), text(value, "by")),
        "log_read" => format!("log read by {}: {}", text(value, "by"), text(value, "query")),
        "activated" => {
            let changes = value["difference"].as_array().map_or(0, Vec::len);
            let digest: String = text(value, "digest").chars().take(12).collect();
            format!("{} {digest} active ({changes} changes)", text(value, "what"))
        }
        "reload_refused" => format!("{} not reloaded: {}", text(value, "what"), one_line(text(value, "error"))),
        "gateway_started" => format!("gateway {} started on {}", text(value, "version"), text(value, "host")),
        "gateway_stopped" => format!("gateway stopped: {}", text(value, "reason")),
        "log_key" => format!("the log is signed by {} from here on", text(value, "key")),
        "destroyed" => {
            let (first, last) = (value["first"].as_u64().unwrap_or(0), value["next"].as_u64().unwrap_or(0).saturating_sub(1));
            format!("{} contents of entries {first} to {last} were destroyed: {}", value["contents"], text(value, "rule"))
        }
        "clock_jump" => format!("the clock jumped by {} µs", value["micros"]),
        other => other.to_owned(),
    }
}

fn outcome_summary(value: &Value) -> String {
    let number = |name: &str| value[name].as_u64().unwrap_or(0);
    let mut line = format!("{} {}: ", text(value, "status"), value["request"]);
    match value["tag"].as_str().or(value["code"].as_str()) {
        // A refused result does not undo its statement.
        Some(what) if value["status"] == "refused" => line.push_str(&format!("the target said {what}, the result was withheld")),
        Some(what) => line.push_str(what),
        None => line.push_str(&format!("{} rows", number("rows"))),
    }
    line.push_str(&format!(", {} ms", number("duration_micros") / 1_000));
    if number("columns_masked") > 0 {
        let classes = value["masked_classes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
        line.push_str(&format!(", {} columns masked ({})", number("columns_masked"), classes.join(", ")));
    }
    if number("columns_refused") > 0 {
        line.push_str(&format!(", {} columns refused", number("columns_refused")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proxy_core::record::{Entry, Event, RecordedVerdict, RequestRecord};
    use proxy_core::{Object, ObjectKind, Operation, RequestId, RequestKind, SessionId, Timestamp};
    use std::sync::Arc;

    fn record(statement: &'static [u8]) -> StoredEntry {
        let record = RequestRecord {
            request: RequestId(3),
            kind: RequestKind::Query,
            statement: Bytes::from_static(statement),
            parameters: vec![],
            facts: Arc::default(),
            verdict: RecordedVerdict::Deny,
            policies: Arc::from([Arc::from("no-delete-all")]),
            policy_version: "v1".into(),
            reason: Some("no-delete-all".into()),
        };
        let entry = Entry { time: Timestamp(0), session: Some((SessionId([1; 16]), 4)), event: Event::Request(Box::new(record)) };
        StoredEntry { index: 9, entry, withheld: vec![] }
    }

    #[test]
    fn a_line_says_it_shortly() {
        assert_eq!(summary(&entry(&record(b"DELETE\n FROM\torders"))), "deny 3: DELETE FROM orders  (no-delete-all)");
    }

    #[test]
    fn what_is_not_text_cannot_draw_on_the_terminal() {
        assert_eq!(summary(&entry(&record(b"SELECT '\xff'"))), "deny 3: (not text, base64) U0VMRUNUICf/Jw==  (no-delete-all)");
        assert!(!summary(&entry(&record(b"SELECT '\x1b[2J'"))).contains('\x1b'));
    }

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(exact("SELECT 1\n\t-- é 😀"), ("SELECT 1\n\t-- é 😀".to_owned(), false));
        let (shown, hidden) = exact("DELETE \u{202e}-- \u{200b}\u{0}\r");
        assert_eq!((shown.as_str(), hidden), ("DELETE ⟦U+202E⟧-- ⟦U+200B⟧⟦U+0000⟧⟦U+000D⟧", true));
    }

    #[test]
    fn operations_say_what_is_missing() {
        let mut facts = Facts::default();
        let orders = Object::new(ObjectKind::Table, ["public", "orders"]);
        facts.add(Operation { action: "delete".into(), object: orders, has_where: Some(false) });
        assert_eq!(operations(&facts), ["delete on table public.orders without WHERE"]);
    }

    #[test]
    fn parameters_are_shown_by_their_types() {
        let shown = |type_id: u32, format: ValueFormat, value: &'static [u8]| {
            parameter_text(&Parameter { value: Some(Bytes::from_static(value)), format, type_id }).unwrap()
        };
        assert_eq!(shown(0, ValueFormat::Text, b"42"), "42");
        assert_eq!(shown(23, ValueFormat::Binary, &[0, 0, 0, 42]), "42");
        assert_eq!(shown(16, ValueFormat::Binary, &[1]), "true");
        assert_eq!(shown(23, ValueFormat::Binary, &[0, 42]), "\\x002a", "a value that does not fit its type");
        assert_eq!(shown(17, ValueFormat::Binary, &[0xde, 0xad]), "\\xdead");
        assert_eq!(parameter_text(&Parameter { value: None, format: ValueFormat::Text, type_id: 0 }), None);
    }
}
