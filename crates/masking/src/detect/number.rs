//! Numbers that mean something: cards, bank accounts, telephones, social security.

use super::{Detector, bounded};
use regex::Regex;
use std::sync::LazyLock;

/// A pattern of this file. One that does not compile finds nothing; a test compiles them all.
fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

/// Whether a match of `pattern` that does not touch a letter or digit passes `check`.
fn found(pattern: &LazyLock<Option<Regex>>, text: &str, check: impl Fn(&str) -> bool) -> bool {
    let text = bounded(text);
    let Some(pattern) = pattern.as_ref() else { return false };
    pattern.find_iter(text).any(|found| {
        let before = text.get(..found.start()).and_then(|head| head.chars().next_back());
        let after = text.get(found.end()..).and_then(|tail| tail.chars().next());
        let alone = |neighbour: Option<char>| !neighbour.is_some_and(char::is_alphanumeric);
        alone(before) && alone(after) && check(found.as_str())
    })
}

fn whole(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().and_then(|pattern| pattern.find(text)).is_some_and(|found| found.len() == text.len())
}

#[derive(Debug)]
pub(super) struct Card;

static CARD: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"[2-6]\d(?:[ -]?\d){10,16}\d|[2-6]\d{12,18}"));

impl Detector for Card {
    fn name(&self) -> &'static str {
        "card"
    }

    fn is(&self, text: &str) -> bool {
        whole(&CARD, text.trim()) && is_card(text)
    }

    fn found_in(&self, text: &str) -> bool {
        found(&CARD, text, is_card)
    }
}

fn is_card(text: &str) -> bool {
    let digits = text.chars().filter_map(|c| c.to_digit(10)).collect::<Vec<_>>();
    (13..=19).contains(&digits.len()) && luhn(&digits)
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u32]) -> bool {
    let sum = digits.iter().rev().enumerate().fold(0, |sum, (at, digit)| {
        let doubled = if at % 2 == 1 { digit * 2 } else { *digit };
        sum + if doubled > 9 { doubled - 9 } else { doubled }
    });
    sum % 10 == 0
}

#[derive(Debug)]
pub(super) struct Iban;

static IBAN: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"));

impl Detector for Iban {
    fn name(&self) -> &'static str {
        "iban"
    }

    fn is(&self, text: &str) -> bool {
        whole(&IBAN, text.trim()) && is_iban(text)
    }

    fn found_in(&self, text: &str) -> bool {
        // A word in capitals after it could be taken for its end: try without.
        found(&IBAN, text, |candidate| {
            is_iban(candidate) || candidate.rsplit_once(' ').is_some_and(|(shorter, _)| is_iban(shorter))
        })
    }
}

/// ISO 13616: moved by four, letters as numbers, the remainder by 97 is 1.
fn is_iban(text: &str) -> bool {
    let characters = text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<_>>();
    if !(15..=34).contains(&characters.len()) {
        return false;
    }
    let (head, tail) = characters.split_at(4);
    let remainder = tail.iter().chain(head).try_fold(0_u32, |remainder, c| {
        let digit = c.to_digit(36)?;
        Some((remainder * if digit > 9 { 100 } else { 10 } + digit) % 97)
    });
    remainder == Some(1)
}

#[derive(Debug)]
pub(super) struct Phone;

static PHONE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\+?\(?\d[\d ()./-]{5,20}\d"));

impl Detector for Phone {
    fn name(&self) -> &'static str {
        "phone"
    }

    fn is(&self, text: &str) -> bool {
        whole(&PHONE, text.trim()) && is_phone(text.trim())
    }

    fn found_in(&self, text: &str) -> bool {
        found(&PHONE, text, is_phone)
    }
}

/// E.164: at most 15 digits. Without a `+`, it must be written like a number to dial, not like a date or a count.
fn is_phone(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let international = text.starts_with('+') && digits >= 7;
    let area = text.starts_with('(') && text.contains(')') && digits >= 7;
    let slash = text.starts_with('0') && text.matches('/').count() == 1 && digits >= 7;
    let groups = text.split(['-', '.', ' ']).map(str::len).collect::<Vec<_>>() == [3, 3, 4];
    digits <= 15 && (international || area || slash || groups)
}

#[derive(Debug)]
pub(super) struct Ssn;

static SSN: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\d{3}-\d{2}-\d{4}"));

impl Detector for Ssn {
    fn name(&self) -> &'static str {
        "ssn"
    }

    fn is(&self, text: &str) -> bool {
        whole(&SSN, text.trim()) && is_ssn(text.trim())
    }

    fn found_in(&self, text: &str) -> bool {
        found(&SSN, text, is_ssn)
    }
}

/// Numbers that the US Social Security Administration does not give are none.
fn is_ssn(text: &str) -> bool {
    let mut parts = text.split('-').map(str::parse::<u16>);
    let (Some(Ok(area)), Some(Ok(group)), Some(Ok(serial))) = (parts.next(), parts.next(), parts.next()) else { return false };
    area != 0 && area != 666 && area < 900 && group != 0 && serial != 0
}

#[cfg(test)]
mod tests {
    use super::{CARD, IBAN, PHONE, SSN};

    #[test]
    fn patterns_compile() {
        assert!(CARD.is_some() && IBAN.is_some() && PHONE.is_some() && SSN.is_some());
    }
}
