//! JSON Lines: each line is what `sallyport audit tail --json` prints, and, for an entry of a session,
//! `session_context`: the session's principal, connection and what else its start says ([`SessionContext`]).

use super::{EncodeError, Encoder, Format, json_line};
use crate::context::SessionContext;
use crate::text::Texts;
use audit_store::StoredEntry;
use serde_json::json;

/// The log's own form. Nothing is cut out of it, but by [`Texts::Cut`].
pub(super) struct JsonLines {
    pub(super) texts: Texts,
}

impl Encoder for JsonLines {
    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let index = stored.index;
        let value = serde_json::to_value(stored);
        let mut value = value.map_err(|error| EncodeError { index, format: Format::Jsonl, why: error.to_string() })?;
        if let (Some(session), Some(map)) = (session, value.as_object_mut()) {
            map.insert("session_context".into(), json!(session));
        }
        self.texts.limit_value(&mut value);
        json_line(index, Format::Jsonl, &value, out)
    }
}
