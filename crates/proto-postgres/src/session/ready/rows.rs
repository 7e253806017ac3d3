//! Masking rows: the columns of a result, and the rewriting of its DataRows.

use crate::copy::{Column, put_values};
use crate::error::Malformed;
use crate::facts::value_format;
use crate::frame::{HEADER, Reader, patch_length};
use crate::message::RowDescription;
use crate::types::{FormatCode, UpstreamTag};
use bytes::{BufMut, BytesMut};
use proxy_core::{ColumnRule, Origin, ResultRules, ValueType};
use std::sync::Arc;

/// What happens to each column of one result.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    columns: Vec<Column>,
}

/// What the rules say of a described result.
#[derive(Debug)]
pub(super) struct Ruled {
    /// How to rewrite; `None`: no column is masked, rows pass.
    pub(super) columns: Option<Columns>,
    /// Columns that pass.
    pub(super) passed: u32,
    /// Columns that are masked.
    pub(super) masked: u32,
    /// Columns that must not be seen, and why the first of them.
    pub(super) refused: Option<(u32, Arc<str>)>,
    /// Classes that are masked.
    pub(super) classes: Vec<String>,
}

/// Applies `rules` to the columns that the server described.
pub(super) fn rule(rules: &dyn ResultRules, description: &RowDescription<'_>) -> Result<Ruled, Malformed> {
    let mut ruled = Ruled { columns: None, passed: 0, masked: 0, refused: None, classes: Vec::new() };
    let mut columns = Vec::with_capacity(description.fields.len());
    for field in &description.fields {
        if field.format != FormatCode::TEXT && field.format != FormatCode::BINARY {
            return Err(Malformed::Value);
        }
        let origin = Origin { table: field.table, column: field.column, type_id: field.type_id };
        let value_type = ValueType { type_id: field.type_id, format: value_format(field.format) };
        columns.push(ruled.add(rules.column(origin), value_type));
    }
    if ruled.masked > 0 {
        ruled.columns = Some(Columns { columns });
    }
    Ok(ruled)
}

impl Ruled {
    fn add(&mut self, rule: ColumnRule, value_type: ValueType) -> Column {
        match rule {
            ColumnRule::Pass => {
                self.passed = self.passed.saturating_add(1);
                None
            }
            ColumnRule::Mask(mask) => {
                self.masked = self.masked.saturating_add(1);
                self.classes.push(mask.class().to_owned());
                Some((mask, value_type))
            }
            ColumnRule::Refuse(why) => {
                let (count, why) = self.refused.take().map_or((0, why), |(count, first)| (count, first));
                self.refused = Some((count.saturating_add(1), why));
                None
            }
        }
    }
}

impl Columns {
    /// Rewrites one DataRow, header included, into `out`. Runs of columns that pass are copied at once.
    pub(super) fn rewrite(&self, frame: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        let start = out.len();
        match self.rewrite_row(frame, out) {
            Ok(()) => Ok(()),
            Err(malformed) => {
                out.truncate(start);
                Err(malformed)
            }
        }
    }

    fn rewrite_row(&self, frame: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        let body = frame.get(HEADER..).ok_or(Malformed::Truncated)?;
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.i16()?).map_err(|_| Malformed::Negative)?;
        // Fewer or more fields than described (RUSTSEC-2026-0178).
        if count != self.columns.len() {
            return Err(Malformed::Value);
        }
        out.reserve(frame.len().saturating_add(64));
        out.put_u8(UpstreamTag::DATA_ROW.0);
        let length_at = out.len();
        out.put_u32(0);
        // The count passes with the first columns.
        put_values(&self.columns, body, &mut reader, out)?;
        reader.end()?;
        patch_length(out, length_at, length_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{DataRow, Field, UpstreamMessage};
    use proxy_core::{Applied, Mask, ValueFormat};

    #[derive(Debug)]
    struct Stars;

    impl Mask for Stars {
        fn class(&self) -> &str {
            "email"
        }

        fn apply(&self, value: &[u8], value_type: ValueType, out: &mut BytesMut) -> Applied {
            if value == b"null" {
                return Applied::Null;
            }
            out.put_u8(if value_type.format == ValueFormat::Text { b't' } else { b'b' });
            out.extend_from_slice(b"***");
            Applied::Written
        }
    }

    #[derive(Debug)]
    struct Rules;

    impl ResultRules for Rules {
        fn column(&self, origin: Origin) -> ColumnRule {
            match origin.table {
                1 => ColumnRule::Mask(Arc::new(Stars)),
                2 => ColumnRule::Refuse("secret".into()),
                _ => ColumnRule::Pass,
            }
        }
    }

    fn field(table: u32, format: FormatCode) -> Field<'static> {
        Field { name: b"alias", table, column: 1, type_id: 25, type_size: -1, type_modifier: -1, format }
    }

    fn row(values: &[Option<&[u8]>]) -> BytesMut {
        let mut out = BytesMut::new();
        DataRow { values: values.to_vec() }.encode(&mut out);
        out
    }

    #[test]
    fn masked_columns_are_rewritten_and_others_are_copied() {
        let fields = vec![
            field(0, FormatCode::TEXT),
            field(1, FormatCode::TEXT),
            field(1, FormatCode::BINARY),
            field(0, FormatCode::TEXT),
            field(1, FormatCode::TEXT),
        ];
        let columns = rule(&Rules, &RowDescription { fields }).unwrap().columns.unwrap();
        let mut out = BytesMut::new();
        columns.rewrite(&row(&[Some(b"a"), Some(b"x@y.z"), Some(b"null"), None, None]), &mut out).unwrap();
        assert_eq!(
            UpstreamMessage::parse(out[0], &out[5..]).unwrap(),
            UpstreamMessage::DataRow(DataRow { values: vec![Some(b"a"), Some(b"t***"), None, None, None] })
        );
        out.clear();
        columns.rewrite(&row(&[None, None, Some(b"\x01"), Some(b"keep"), Some(b"e")]), &mut out).unwrap();
        assert_eq!(
            UpstreamMessage::parse(out[0], &out[5..]).unwrap(),
            UpstreamMessage::DataRow(DataRow { values: vec![None, None, Some(b"b***"), Some(b"keep"), Some(b"t***")] })
        );
    }

    #[test]
    fn rows_that_do_not_fit_their_description_are_refused() {
        let fields = vec![field(1, FormatCode::TEXT), field(0, FormatCode::TEXT)];
        let columns = rule(&Rules, &RowDescription { fields }).unwrap().columns.unwrap();
        let mut out = BytesMut::new();
        assert_eq!(columns.rewrite(&row(&[Some(b"a")]), &mut out), Err(Malformed::Value));
        assert_eq!(columns.rewrite(&row(&[Some(b"a"), None, None]), &mut out), Err(Malformed::Value));
        assert_eq!(columns.rewrite(b"D\0\0\0\x0a\0\x02\xff\xff\xff\xfe", &mut out), Err(Malformed::Negative));
        assert_eq!(columns.rewrite(b"D\0\0\0\x0f\0\x02\0\0\0\x01a\0\0\0\x09b", &mut out), Err(Malformed::Truncated));
        assert!(out.is_empty(), "nothing of a bad row is kept");
    }

    #[test]
    fn refused_columns_are_counted() {
        let fields = vec![field(2, FormatCode::TEXT), field(2, FormatCode::TEXT), field(1, FormatCode::TEXT)];
        let ruled = rule(&Rules, &RowDescription { fields }).unwrap();
        assert_eq!(ruled.refused, Some((2, "secret".into())));
        assert_eq!((ruled.masked, ruled.passed), (1, 0));
        let bad = RowDescription { fields: vec![field(0, FormatCode(7))] };
        assert_eq!(rule(&Rules, &bad).unwrap_err(), Malformed::Value);
    }
}
