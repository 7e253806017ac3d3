//! `redact`: `***`, whatever the value.

use super::{HIDDEN, Transform};
use bytes::BytesMut;

#[derive(Debug)]
pub(super) struct Redact;

impl Transform for Redact {
    fn write(&self, _: &str, out: &mut BytesMut) {
        out.extend_from_slice(HIDDEN.as_bytes());
    }
}
