//! E-mail and IP addresses.

use super::{Detector, bounded};
use std::net::IpAddr;

#[derive(Debug)]
pub(super) struct Email;

impl Detector for Email {
    fn name(&self) -> &'static str {
        "email"
    }

    fn is(&self, text: &str) -> bool {
        is_email(text.trim())
    }

    fn found_in(&self, text: &str) -> bool {
        words(text).any(|word| is_email(word.trim_matches(['.', ',', ';', ':', '(', ')', '<', '>', '"', '\'', '[', ']'])))
    }
}

/// `local@domain.top`: what mail systems accept, not all that RFC 5322 allows.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let character = |c: char| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-.".contains(c);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let Some((_, top)) = domain.rsplit_once('.') else { return false };
    !local.is_empty()
        && local.len() <= 64
        && local.chars().all(character)
        && domain.len() <= 255
        && domain.split('.').all(label)
        && top.chars().count() >= 2
        && top.chars().all(|c| c.is_alphabetic() || c == '-')
}

#[derive(Debug)]
pub(super) struct Ip;

impl Detector for Ip {
    fn name(&self) -> &'static str {
        "ip"
    }

    fn is(&self, text: &str) -> bool {
        text.trim().parse::<IpAddr>().is_ok()
    }

    fn found_in(&self, text: &str) -> bool {
        words(text).any(|word| word.trim_matches([',', ';', '(', ')', '[', ']', '"']).parse::<IpAddr>().is_ok())
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    bounded(text).split_whitespace()
}
