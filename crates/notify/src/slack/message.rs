//! The message, in Block Kit.

use crate::limits::{SLACK_FIELD_MAX, SLACK_FIELDS_MAX, SLACK_HEADER_MAX, SLACK_TEXT_MAX, SLACK_VALUE_MAX};
use crate::notice::Notice;
use crate::text;
use serde_json::{Value, json};

/// Names of the buttons: they come back in an interaction.
pub(super) const REVIEW: &str = "sallyport.review";
pub(super) const APPROVE: &str = "sallyport.approve";
pub(super) const DENY: &str = "sallyport.deny";

/// A text of others in at most `max` characters. `&`, `<` and `>` begin everything that Slack makes of a text, mentions and links
/// as well (<https://docs.slack.dev/messaging/formatting-message-text#escaping>); a backtick would end the code that it is shown
/// as. A word joiner parts the names that reach everybody, for programs that look for them in plain text.
fn escape(value: &str, max: usize) -> String {
    let value = part_names(value);
    text::escaped(&value, max, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '`' => Some("ˋ"),
        _ => None,
    })
}

fn part_names(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        out.push(c);
        let follows = |name: &str| value.get(at + 1..at + 1 + name.len()).is_some_and(|next| next.eq_ignore_ascii_case(name));
        if c == '@' && ["here", "channel", "everyone", "group"].into_iter().any(follows) {
            out.push('\u{2060}');
        }
    }
    out
}

/// `verbatim`: Slack makes no links and mentions of what looks like one.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

fn button(label: &str, action: &str, request: &str) -> Value {
    let value: String = request.chars().take(SLACK_VALUE_MAX).collect();
    json!({ "type": "button", "text": plain(label), "action_id": action, "value": value })
}

/// The message about a notice.
pub(crate) fn blocks(notice: &Notice, buttons: bool) -> Value {
    // As code, so that `*` and `_` stay what they are. The label, the marks and the line break take less than 40 characters.
    let field =
        |(label, value): (&'static str, String)| mrkdwn(&format!("*{label}*\n`{}`", escape(&value, SLACK_FIELD_MAX - 40)));
    let fields: Vec<_> = notice.facts().into_iter().take(SLACK_FIELDS_MAX).map(field).collect();
    let title = escape(&notice.title(), SLACK_HEADER_MAX);
    let mut blocks = vec![json!({ "type": "header", "text": plain(&title) })];
    if !fields.is_empty() {
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    if let Some(statement) = &notice.statement {
        let text = format!("```\n{}\n```", escape(statement, SLACK_TEXT_MAX - 8));
        blocks.push(json!({ "type": "section", "text": mrkdwn(&text) }));
    }
    let context = format!("{} · {}", notice.kind.as_str(), text::time(notice.time));
    blocks.push(json!({ "type": "context", "elements": [mrkdwn(&context)] }));
    let mut elements = Vec::new();
    if let Some(page) = notice.page() {
        let mut review = button(if notice.kind.asks() { "Review" } else { "Open" }, REVIEW, &notice.request);
        if let Value::Object(fields) = &mut review {
            fields.insert("url".to_owned(), Value::from(page));
            fields.insert("style".to_owned(), Value::from("primary"));
        }
        elements.push(review);
    }
    if buttons && notice.kind.asks() && !notice.request.is_empty() {
        elements.push(button("Approve", APPROVE, &notice.request));
        elements.push(button("Deny", DENY, &notice.request));
    }
    if !elements.is_empty() {
        blocks.push(json!({ "type": "actions", "elements": elements }));
    }
    // Shown in notifications, where there are no blocks.
    json!({ "text": title, "mrkdwn": false, "unfurl_links": false, "unfurl_media": false, "blocks": blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_escaped_text_fits_and_holds_no_markup(text in "[<>&`@a-z \\n漢]{0,60}|\\PC{0,60}", max in 1_usize..80) {
            let escaped = escape(&text, max);
            prop_assert!(escaped.chars().count() <= max);
            prop_assert!(!escaped.contains(['<', '>', '`']));
            let mut entities = escaped.split('&').skip(1);
            let known = ["amp;", "lt;", "gt;"];
            prop_assert!(entities.all(|rest| known.iter().any(|name| rest.starts_with(name))), "{}", escaped);
        }
    }
}
