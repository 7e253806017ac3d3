//! The message: plain text, and the same as HTML.

use crate::error::SendError;
use crate::notice::Notice;
use crate::text;
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use std::time::{Duration, UNIX_EPOCH};

/// Composes the message about a notice.
pub(super) fn compose(notice: &Notice, from: &Mailbox, to: &[Mailbox]) -> Result<Message, SendError> {
    let domain = from.email.domain();
    // What asks has the conversation's id; all else refers to it (RFC 5322 §3.6.4). Break-glass is used without asking, and
    // more than once: its messages meet beneath an id that no message has.
    let first = format!("<{}@{domain}>", notice.conversation());
    let own = format!("<{}.{}@{domain}>", notice.conversation(), notice.id());
    let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(notice.time.seconds()).unwrap_or(0));
    let mut message = Message::builder().from(from.clone()).date(date).subject(subject(notice));
    for mailbox in to {
        message = message.to(mailbox.clone());
    }
    message = if notice.kind.asks() {
        message.message_id(Some(first))
    } else {
        message.message_id(Some(own)).in_reply_to(first.clone()).references(first)
    };
    // RFC 3834 §5: nobody's absence answers it.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    message = message.raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
    let body = MultiPart::alternative_plain_html(as_text(notice), as_html(notice));
    message.multipart(body).map_err(|_| SendError::Compose)
}

/// One line without a control character: `Notice::bounded` has seen to that, and this does not rely on it.
fn subject(notice: &Notice) -> String {
    text::line(&format!("[sallyport] {} on {}", notice.title(), notice.connection), 200)
}

fn as_text(notice: &Notice) -> String {
    let mut out = format!("{}\n\n", notice.title());
    for (label, value) in notice.facts() {
        out.push_str(&format!("{label}: {value}\n"));
    }
    if let Some(statement) = &notice.statement {
        out.push_str("\nStatement:\n");
        // Indented, so that no line of it can be taken for one of ours.
        for line in statement.lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    if let Some(page) = notice.page() {
        out.push_str(&format!("\n{page}\n\nThis link carries no authority: you are asked to log in.\n"));
    }
    out.push_str(&format!("\n{} at {}\n", notice.kind.as_str(), text::time(notice.time)));
    out
}

fn as_html(notice: &Notice) -> String {
    let mut out = format!("<!doctype html><html><body><h2>{}</h2>\n<table>\n", text::html(&notice.title()));
    for (label, value) in notice.facts() {
        out.push_str(&format!("<tr><th align=\"left\">{label}</th><td><code>{}</code></td></tr>\n", text::html(&value)));
    }
    out.push_str("</table>\n");
    if let Some(statement) = &notice.statement {
        out.push_str(&format!("<pre>{}</pre>\n", text::html(statement)));
    }
    if let Some(page) = notice.page() {
        let label = if notice.kind.asks() { "Review" } else { "Open" };
        let page = text::html(page);
        out.push_str(&format!("<p><a href=\"{page}\">{label}</a></p>\n"));
        out.push_str("<p>This link carries no authority: you are asked to log in.</p>\n");
    }
    out.push_str(&format!("<p><small>{} at {}</small></p></body></html>\n", notice.kind.as_str(), text::time(notice.time)));
    out
}
