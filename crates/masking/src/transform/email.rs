//! `email`: `alice@example.com` is shown as `a***@e***.com`.
//!
//! The first character of the local part and of the domain stay when there are at least three of them, and the
//! top-level domain when it is two to eight letters. What is not an address is redacted.

use super::{HIDDEN, Transform};
use bytes::BytesMut;

/// Characters that a part must have for its first to be shown.
const SHOWN_FROM: usize = 3;

#[derive(Debug)]
pub(super) struct Email;

impl Transform for Email {
    fn write(&self, text: &str, out: &mut BytesMut) {
        let Some((local, domain, top)) = parts(text) else {
            out.extend_from_slice(HIDDEN.as_bytes());
            return;
        };
        initial(local, out);
        out.extend_from_slice(b"***@");
        initial(domain, out);
        out.extend_from_slice(b"***.");
        let letters = (2..=8).contains(&top.len()) && top.bytes().all(|byte| byte.is_ascii_alphabetic());
        out.extend_from_slice(if letters { top.as_bytes() } else { HIDDEN.as_bytes() });
    }
}

/// Local part, domain without its top level, top level. A trailing blank (`char(n)` has them) is not part of it.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_ascii_end();
    let (local, domain) = text.rsplit_once('@')?;
    let (domain, top) = domain.rsplit_once('.')?;
    let empty = local.is_empty() || domain.is_empty() || top.is_empty();
    (!empty && !text.bytes().any(|byte| byte.is_ascii_whitespace())).then_some((local, domain, top))
}

fn initial(part: &str, out: &mut BytesMut) {
    let mut characters = part.chars();
    if let Some(first) = characters.next()
        && characters.nth(SHOWN_FROM - 2).is_some()
    {
        out.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
