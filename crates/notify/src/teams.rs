//! Messages to Microsoft Teams, through a workflow's webhook ("When a Teams webhook request is received"): an
//! [Adaptive Card](https://adaptivecards.io/explorer/) 1.5.

use crate::connect::Dialer;
use crate::error::{ConfigError, SendError};
use crate::http::{Endpoint, Post};
use crate::limits::TEAMS_MAX;
use crate::notice::Notice;
use crate::secret::Secret;
use crate::text;
use proxy_core::Timestamp;
use serde_json::{Value, json};

/// A workflow.
#[derive(Debug, Clone)]
pub struct TeamsConfig {
    /// The workflow's address, which is a secret.
    pub url: Secret,
}

/// The channel.
#[derive(Debug)]
pub(crate) struct Teams {
    to: Endpoint,
}

impl Teams {
    pub(crate) fn new(config: &TeamsConfig, loopback: bool) -> Result<Self, ConfigError> {
        Ok(Self { to: Endpoint::new(&config.url, loopback)? })
    }

    pub(crate) async fn send(&self, dialer: &Dialer, notice: &Notice, now: Timestamp) -> Result<(), SendError> {
        let body = message(notice)?;
        self.to.post(dialer, Post { headers: Vec::new(), body, wants_answer: false, now }).await?;
        Ok(())
    }
}

/// A text of others, so that it is not read as Markdown
/// (<https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features>): punctuation that begins something, with a
/// backslash before it (CommonMark §2.4), and no tags, which name people.
fn escape(value: &str) -> String {
    let escaped = text::escaped(value, usize::MAX, |c| match c {
        '\\' => Some("\\\\"),
        '*' => Some("\\*"),
        '_' => Some("\\_"),
        '[' => Some("\\["),
        ']' => Some("\\]"),
        '(' => Some("\\("),
        ')' => Some("\\)"),
        '`' => Some("\\`"),
        '~' => Some("\\~"),
        '#' => Some("\\#"),
        '!' => Some("\\!"),
        '|' => Some("\\|"),
        // `{{DATE(…)}}` is computed.
        '{' => Some("\\{"),
        '}' => Some("\\}"),
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    });
    // What begins a list begins a line: `-`, `+`, or a number with a full stop.
    let digits = escaped.bytes().take_while(u8::is_ascii_digit).count();
    match escaped.as_bytes().get(digits) {
        Some(b'-' | b'+') if digits == 0 => format!("\\{escaped}"),
        Some(b'.') if digits > 0 => {
            format!("{}\\{}", escaped.get(..digits).unwrap_or_default(), escaped.get(digits..).unwrap_or_default())
        }
        _ => escaped,
    }
}

/// The message about a notice, at most [`TEAMS_MAX`] bytes: where it does not fit, its statement is shortened.
fn message(notice: &Notice) -> Result<Vec<u8>, SendError> {
    let mut room = notice.statement.as_ref().map_or(0, |text| text.chars().count());
    loop {
        let statement = notice.statement.as_deref().filter(|_| room > 0).map(|statement| text::lines(statement, room));
        let body = serde_json::to_vec(&card(notice, statement.as_deref())).map_err(|_| SendError::Compose)?;
        if body.len() <= TEAMS_MAX {
            return Ok(body);
        }
        if room == 0 {
            return Err(SendError::TooLarge);
        }
        room /= 2;
    }
}

fn card(notice: &Notice, statement: Option<&str>) -> Value {
    let title = escape(&notice.title());
    let facts = notice.facts().into_iter().map(|(title, value)| json!({ "title": title, "value": escape(&value) }));
    let facts: Vec<_> = facts.collect();
    let mut body = vec![json!({ "type": "TextBlock", "text": title, "size": "Large", "weight": "Bolder", "wrap": true })];
    if !facts.is_empty() {
        body.push(json!({ "type": "FactSet", "facts": facts }));
    }
    if let Some(statement) = statement {
        // A run of text is never read as Markdown.
        let run = json!({ "type": "TextRun", "text": statement, "fontType": "Monospace" });
        body.push(json!({ "type": "RichTextBlock", "inlines": [run] }));
    }
    let context = format!("{} · {}", escape(notice.kind.as_str()), text::time(notice.time));
    body.push(json!({ "type": "TextBlock", "text": context, "isSubtle": true, "size": "Small", "wrap": true }));
    let label = if notice.kind.asks() { "Review" } else { "Open" };
    let actions: Vec<_> =
        notice.page().map(|page| json!({ "type": "Action.OpenUrl", "title": label, "url": page })).into_iter().collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.5",
                "msteams": { "width": "Full" },
                "body": body,
                "actions": actions,
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_begins_something_in_markdown_is_text() {
        for (text, escaped) in [
            ("[a](https://b)", "\\[a\\]\\(https://b\\)"),
            ("- a", "\\- a"),
            ("12. a", "12\\. a"),
            ("1.5", "1\\.5"),
            ("ci-deployer", "ci-deployer"),
            ("\\*", "\\\\\\*"),
            ("<at>All</at>", "&lt;at&gt;All&lt;/at&gt;"),
            ("", ""),
        ] {
            assert_eq!(escape(text), escaped, "{text}");
        }
    }
}
