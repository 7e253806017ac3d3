//! Detectors of content: whether a text is, or holds, a value of some kind.
//!
//! `check --connect` uses them on samples. They are made to be right when they say yes: numbers are checked by
//! their own check digits where they have some.

mod address;
mod number;

use std::fmt::Debug;

/// Longest text that is looked at, in bytes; the rest of a longer one is not.
pub const TEXT_MAX: usize = 64 << 10;

/// Finds one kind of value.
pub trait Detector: Debug + Send + Sync {
    /// The name that `detect = "…"` gives.
    fn name(&self) -> &'static str;

    /// Whether the whole of `text`, without blanks around it, is such a value.
    fn is(&self, text: &str) -> bool;

    /// Whether such a value stands somewhere in `text`.
    fn found_in(&self, text: &str) -> bool;
}

static ALL: [&dyn Detector; 6] = [&address::Email, &number::Card, &number::Iban, &number::Phone, &number::Ssn, &address::Ip];

/// The detector of that name: `email`, `card`, `iban`, `phone`, `ssn`, `ip`.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Detector> {
    ALL.iter().find(|detector| detector.name() == name).copied()
}

/// The names of all detectors.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|detector| detector.name())
}

/// The first detector that knows `text` as a whole.
#[must_use]
pub fn kind_of(text: &str) -> Option<&'static dyn Detector> {
    ALL.iter().find(|detector| detector.is(text)).copied()
}

/// The beginning of `text`, at most [`TEXT_MAX`] bytes, at a character boundary.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{bounded, find, kind_of, names};

    #[test]
    fn whole_values() {
        for (name, yes, no) in [
            (
                "email",
                &["alice@example.com", " a.b+c@mail.example.co.uk ", "é@müller.fr"][..],
                &["alice", "@x.de", "a@b", "a b@c.de", "a@.de"][..],
            ),
            (
                "card",
                &["4111 1111 1111 1111", "4111111111111111", "378282246310005", "5555-5555-5555-4444"],
                &["4111111111111112", "0000000000000000", "1234", "4111111111111111x"],
            ),
            (
                "iban",
                &["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO9386011117947"],
                &["DE88370400440532013000", "DE89", "1E89370400440532013000"],
            ),
            (
                "phone",
                &["+49 30 901820", "+1 (555) 010-9999", "(555) 010-9999", "030/901820-1"],
                &["12", "2024-01-31", "1234567890123456", "192.168.0.1", "+", "4.5.6"],
            ),
            ("ssn", &["123-45-6789"], &["000-12-3456", "666-12-3456", "900-12-3456", "123-00-6789", "123-45-0000", "123456789"]),
            ("ip", &["192.168.0.1", "2001:db8::1"], &["1.2.3", "300.1.1.1", "12:30"]),
        ] {
            let detector = find(name).expect(name);
            for text in yes {
                assert!(detector.is(text), "{name} {text}");
                assert!(detector.found_in(&format!("see {} there", text.trim())), "{name} in a text: {text}");
            }
            for text in no {
                assert!(!detector.is(text), "not {name}: {text}");
            }
        }
        assert_eq!(names().count(), 6);
        assert!(find("emial").is_none());
        assert_eq!(kind_of("alice@example.com").map(|kind| kind.name()), Some("email"));
        assert!(kind_of("hello").is_none());
    }

    #[test]
    fn values_within_a_text() {
        for (name, text, there) in [
            ("email", "write to alice@example.com.", true),
            ("email", "a @ b.de", false),
            ("card", "paid with 4111-1111-1111-1111, thanks", true),
            ("card", "order 4111111111111112", false),
            ("card", "id 94111111111111111", false),
            ("ssn", "SSN: 123-45-6789.", true),
            ("ssn", "1123-45-67891", false),
            ("iban", "to DE89370400440532013000 please", true),
        ] {
            assert_eq!(find(name).expect(name).found_in(text), there, "{name} {text}");
        }
    }

    #[test]
    fn long_texts_are_looked_at_in_part() {
        let long = "é".repeat(100_000);
        assert!(bounded(&long).len() <= super::TEXT_MAX);
        for name in names() {
            assert!(!find(name).expect(name).found_in(&long));
        }
    }
}
