//! `fixed`: one configured text, as a value of the column's type where it is one.

use super::{Layout, oid, quote_json};
use bytes::{BufMut, BytesMut};
use proxy_core::{Applied, Mask, ValueFormat, ValueType};
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's day zero.
const EPOCH_DAYS: i64 = 10_957;

#[derive(Debug)]
pub(super) struct Fixed {
    class: Arc<str>,
    text: String,
    json: BytesMut,
    boolean: Option<bool>,
    integer: Option<i64>,
    float: Option<f64>,
    decimal: bool,
    days: Option<i32>,
    uuid: Option<[u8; 16]>,
}

impl Fixed {
    pub(super) fn new(class: Arc<str>, text: &str) -> Self {
        let mut json = BytesMut::new();
        quote_json(text, &mut json);
        let float = text.parse::<f64>().ok().filter(|number| number.is_finite());
        Self {
            class,
            json,
            boolean: match text {
                "true" | "t" => Some(true),
                "false" | "f" => Some(false),
                _ => None,
            },
            integer: text.parse().ok(),
            // "1e9" is a number, but not how `numeric` is written.
            decimal: float.is_some() && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.')),
            float,
            days: days(text),
            uuid: uuid(text),
            text: text.to_owned(),
        }
    }

    fn binary(&self, type_id: u32, out: &mut BytesMut) -> Option<()> {
        match type_id {
            oid::BOOL => out.put_u8(u8::from(self.boolean?)),
            oid::INT2 => out.put_i16(i16::try_from(self.integer?).ok()?),
            oid::INT4 => out.put_i32(i32::try_from(self.integer?).ok()?),
            oid::INT8 => out.put_i64(self.integer?),
            oid::FLOAT4 => out.put_f32(single(self.float?)?),
            oid::FLOAT8 => out.put_f64(self.float?),
            oid::DATE => out.put_i32(self.days?),
            oid::UUID => out.extend_from_slice(&self.uuid?),
            _ => return None,
        }
        Some(())
    }

    fn text(&self, type_id: u32, out: &mut BytesMut) -> Option<()> {
        let fits = match type_id {
            oid::BOOL => {
                out.put_u8(if self.boolean? { b't' } else { b'f' });
                return Some(());
            }
            oid::INT2 => self.integer.is_some_and(|number| i16::try_from(number).is_ok()),
            oid::INT4 => self.integer.is_some_and(|number| i32::try_from(number).is_ok()),
            oid::INT8 => self.integer.is_some(),
            oid::FLOAT4 => self.float.and_then(single).is_some(),
            oid::FLOAT8 => self.float.is_some(),
            oid::NUMERIC => self.decimal,
            oid::DATE => self.days.is_some(),
            oid::UUID => self.uuid.is_some(),
            _ => false,
        };
        fits.then(|| out.extend_from_slice(self.text.as_bytes()))
    }
}

impl Mask for Fixed {
    fn class(&self) -> &str {
        &self.class
    }

    fn apply(&self, _: &[u8], value_type: ValueType, out: &mut BytesMut) -> Applied {
        match (Layout::of(value_type), value_type.format) {
            (Layout::Text, _) => out.extend_from_slice(self.text.as_bytes()),
            (Layout::Json, _) => out.extend_from_slice(&self.json),
            (Layout::Jsonb, _) => {
                out.put_u8(1);
                out.extend_from_slice(&self.json);
            }
            (Layout::Other, ValueFormat::Binary) => {
                return self.binary(value_type.type_id, out).map_or(Applied::Null, |()| Applied::Written);
            }
            (Layout::Other, ValueFormat::Text) => {
                return self.text(value_type.type_id, out).map_or(Applied::Null, |()| Applied::Written);
            }
        }
        Applied::Written
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float that is rounded is what float4 does")]
fn single(number: f64) -> Option<f32> {
    let rounded = number as f32;
    rounded.is_finite().then_some(rounded)
}

/// Days of `YYYY-MM-DD` since 2000-01-01.
fn days(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() });
    if !shaped {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    if year < 1 || !(1..=12).contains(&month) || !(1..=length).contains(&day) {
        return None;
    }
    // Days from the civil calendar, counting years from March: H. Hinnant, "chrono-compatible date algorithms".
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let since_1970 = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    i32::try_from(since_1970 - EPOCH_DAYS).ok()
}

/// The bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
fn uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 || !text.is_ascii() {
        return None;
    }
    let hyphens = text.bytes().enumerate().all(|(at, byte)| matches!(at, 8 | 13 | 18 | 23) == (byte == b'-'));
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    if !hyphens || digits != 32 {
        return None;
    }
    u128::from_str_radix(&text.replace('-', ""), 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str, type_id: u32, format: ValueFormat) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        let mask = Fixed::new("c".into(), value);
        match mask.apply(b"clear", ValueType { type_id, format }, &mut out) {
            Applied::Written => Some(out.to_vec()),
            Applied::Null => {
                assert!(out.is_empty(), "nothing is appended for NULL");
                None
            }
        }
    }

    #[test]
    fn is_a_value_of_the_columns_type_or_null() {
        use ValueFormat::{Binary, Text};
        for (value, type_id, text, binary) in [
            ("42", oid::INT4, Some("42"), Some(vec![0, 0, 0, 42])),
            ("42", oid::INT2, Some("42"), Some(vec![0, 42])),
            ("70000", oid::INT2, None, None),
            ("-1", oid::INT8, Some("-1"), Some(vec![255; 8])),
            ("1.5", oid::FLOAT8, Some("1.5"), Some(1.5_f64.to_be_bytes().to_vec())),
            ("1.5", oid::FLOAT4, Some("1.5"), Some(1.5_f32.to_be_bytes().to_vec())),
            ("1e300", oid::FLOAT4, None, None),
            ("inf", oid::FLOAT8, None, None),
            ("1.50", oid::NUMERIC, Some("1.50"), None),
            ("1e9", oid::NUMERIC, None, None),
            ("t", oid::BOOL, Some("t"), Some(vec![1])),
            ("false", oid::BOOL, Some("f"), Some(vec![0])),
            ("no", oid::BOOL, None, None),
            ("2000-01-01", oid::DATE, Some("2000-01-01"), Some(vec![0; 4])),
            ("1970-01-01", oid::DATE, Some("1970-01-01"), Some((-10_957_i32).to_be_bytes().to_vec())),
            ("2024-02-29", oid::DATE, Some("2024-02-29"), Some(8_825_i32.to_be_bytes().to_vec())),
            ("2023-02-29", oid::DATE, None, None),
            ("+024-01-01", oid::DATE, None, None),
            ("00000000-0000-0000-0000-0000000000ff", oid::UUID, Some("00000000-0000-0000-0000-0000000000ff"), {
                let mut bytes = vec![0; 16];
                bytes[15] = 255;
                Some(bytes)
            }),
            ("n/a", oid::UUID, None, None),
            ("n/a", oid::INT4, None, None),
            ("n/a", oid::TEXT, Some("n/a"), Some(b"n/a".to_vec())),
            ("a\"b", oid::JSON, Some("\"a\\\"b\""), Some(b"\"a\\\"b\"".to_vec())),
            ("x", oid::JSONB, Some("\"x\""), Some(b"\x01\"x\"".to_vec())),
            ("x", 17, None, None),
            ("x", 20_000, Some("x"), None),
        ] {
            assert_eq!(of(value, type_id, Text).as_deref(), text.map(str::as_bytes), "{value} {type_id} text");
            assert_eq!(of(value, type_id, Binary), binary, "{value} {type_id} binary");
        }
    }
}
