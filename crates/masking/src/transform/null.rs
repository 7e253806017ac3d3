//! `null`: NULL, whatever the type.

use bytes::BytesMut;
use proxy_core::{Applied, Mask, ValueType};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Null {
    pub(super) class: Arc<str>,
}

impl Mask for Null {
    fn class(&self) -> &str {
        &self.class
    }

    fn apply(&self, _: &[u8], _: ValueType, _: &mut BytesMut) -> Applied {
        Applied::Null
    }
}
