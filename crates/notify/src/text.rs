//! Texts of others, made fit to be shown.

use proxy_core::Timestamp;
use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Stands for a character that is not shown.
const HIDDEN: char = '\u{fffd}';

/// Characters that a reader does not see, but that change what is read: controls, directions of writing (CVE-2021-42574),
/// invisible marks, line separators.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of at most `max` characters.
pub(crate) fn line(text: &str, max: usize) -> String {
    shorten(text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).map(visible), max)
}

/// Lines of at most `max` characters in all. Tabs stay.
pub(crate) fn lines(text: &str, max: usize) -> String {
    let text: Cow<'_, str> = if text.contains('\r') { text.replace("\r\n", "\n").into() } else { text.into() };
    shorten(text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { visible(c) }), max)
}

fn visible(c: char) -> char {
    if misleads(c) { HIDDEN } else { c }
}

fn shorten(text: impl Iterator<Item = char>, max: usize) -> String {
    let mut out = String::new();
    for (at, c) in text.enumerate() {
        if at >= max {
            out.pop();
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// Escapes character by character, as far as the result stays within `max` characters: no escape is cut in two.
pub(crate) fn escaped(text: &str, max: usize, escape: impl Fn(char) -> Option<&'static str>) -> String {
    // Where `out` could end and leave room for the mark.
    let (mut out, mut length, mut end) = (String::new(), 0_usize, 0);
    for c in text.chars() {
        let piece = escape(c);
        let more = piece.map_or(1, |piece| piece.chars().count());
        if length + more > max {
            out.truncate(end);
            out.push('…');
            return out;
        }
        length += more;
        match piece {
            Some(piece) => out.push_str(piece),
            None => out.push(c),
        }
        if length < max {
            end = out.len();
        }
    }
    out
}

/// `& < > " '` as HTML has them.
pub(crate) fn html(text: &str) -> String {
    escaped(text, usize::MAX, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    let time = OffsetDateTime::from_unix_timestamp(at.seconds()).ok().and_then(|time| time.format(&Rfc3339).ok());
    time.unwrap_or_else(|| "an unknown time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_shown_as_a_mark() {
        assert_eq!(line("a\nb\u{202e}c\0", 9), "a b\u{fffd}c\u{fffd}");
        assert_eq!(lines("a\r\nb\tc\u{7}", 9), "a\nb\tc\u{fffd}");
        assert_eq!(line("abcdef", 4), "abc…");
        assert_eq!(line("abcd", 4), "abcd");
    }

    #[test]
    fn an_escape_is_never_cut_in_two() {
        let amp = |c| (c == '&').then_some("&amp;");
        assert_eq!(escaped("a&b", 7, amp), "a&amp;b");
        for max in 1..7 {
            let short = escaped("a&b", max, amp);
            assert!(short.chars().count() <= max, "{short} of {max}");
            assert!(["…", "a…", "a&amp;…"].contains(&short.as_str()), "{short} of {max}");
        }
    }

    #[test]
    fn times_are_of_rfc_3339() {
        assert_eq!(time(Timestamp::from_seconds(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(time(Timestamp(i64::MAX)), "an unknown time");
    }
}
