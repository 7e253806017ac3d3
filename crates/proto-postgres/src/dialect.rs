//! What the server reports of how it reads text.
//!
//! Policy reads statements as the server does with `standard_conforming_strings` on and in an encoding whose
//! characters hide no quote and no backslash. Where the server says otherwise, the same bytes can be another
//! statement to it: `select 'x\', ' ; delete from t; --'` deletes where backslashes escape. Then statements
//! are refused. The server reports both settings whenever they change, however that was done.

use crate::message::ParameterStatus;

/// How the server reads text, as it last reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    encoding: Vec<u8>,
    backslashes_escape: bool,
}

impl Dialect {
    /// Hears a ParameterStatus.
    pub fn hear(&mut self, status: &ParameterStatus<'_>) {
        match status.name {
            b"client_encoding" => self.encoding = status.value.to_vec(),
            b"standard_conforming_strings" => self.backslashes_escape = status.value != b"on",
            _ => {}
        }
    }

    /// Whether text may have bytes below 128 inside a character: then a quote or a delimiter cannot be told
    /// from a part of one (`PG_ENCODING_IS_CLIENT_ONLY` in src/include/mb/pg_wchar.h).
    #[must_use]
    pub fn embeds_ascii(&self) -> bool {
        [&b"SJIS"[..], b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"]
            .iter()
            .any(|unsafe_one| unsafe_one.eq_ignore_ascii_case(&self.encoding))
    }

    /// Why statements cannot be read, and what to do.
    #[must_use]
    pub fn unreadable(&self) -> Option<(&'static str, &'static str)> {
        if self.embeds_ascii() {
            Some((
                "the gateway cannot read statements in this client_encoding: its characters can hide quotes",
                "Connect with client_encoding UTF8.",
            ))
        } else if self.backslashes_escape {
            Some((
                "the gateway cannot read statements while standard_conforming_strings is off",
                "Connect again and leave standard_conforming_strings on.",
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(name: &[u8], value: &[u8]) -> Dialect {
        let mut dialect = Dialect::default();
        dialect.hear(&ParameterStatus { name, value });
        dialect
    }

    #[test]
    fn what_hides_quotes_is_not_read() {
        for encoding in [&b"SJIS"[..], b"gbk", b"GB18030"] {
            assert!(after(b"client_encoding", encoding).unreadable().is_some());
        }
        for encoding in [&b"UTF8"[..], b"LATIN1", b"EUC_JP", b"WIN1252"] {
            assert_eq!(after(b"client_encoding", encoding).unreadable(), None);
        }
        assert!(after(b"standard_conforming_strings", b"off").unreadable().is_some());
        assert_eq!(after(b"standard_conforming_strings", b"on").unreadable(), None);
    }
}
