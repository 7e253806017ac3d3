//! The rewriter, however the stream is cut.

use super::binary::SIGNATURE;
use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use proxy_core::Applied;

/// Doubles the value's bytes; `null` becomes NULL.
#[derive(Debug)]
struct Twice;

impl Mask for Twice {
    fn class(&self) -> &str {
        "twice"
    }

    fn apply(&self, value: &[u8], _: ValueType, out: &mut BytesMut) -> Applied {
        if value == b"null" {
            return Applied::Null;
        }
        out.extend_from_slice(value);
        out.extend_from_slice(value);
        Applied::Written
    }
}

fn text() -> CopyFormat {
    CopyFormat::Text { delimiter: b'\t', null: Bytes::from_static(b"\\N"), header: false }
}

fn csv() -> CopyFormat {
    CopyFormat::Csv { delimiter: b',', quote: b'"', escape: b'"', null: Bytes::new(), header: true }
}

/// The second column is masked.
fn rewriter(format: CopyFormat) -> Rewriter {
    Rewriter::new(vec![ColumnRule::Pass, ColumnRule::Mask(Arc::new(Twice))], &[23, 25], format, 1 << 16)
}

fn payload(mut frames: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(header) = crate::frame::peek(frames).unwrap() {
        data.extend_from_slice(&frames[5..header.total]);
        frames = &frames[header.total..];
    }
    data
}

/// Feeds in pieces of every size: the output must not depend on how the stream is cut.
fn check(format: &CopyFormat, input: &[u8], expected: &[u8]) {
    for size in 1..=input.len() {
        let (mut rewriter, mut out) = (rewriter(format.clone()), BytesMut::new());
        for piece in input.chunks(size) {
            rewriter.feed(piece, &mut out).unwrap();
        }
        rewriter.finish().unwrap();
        assert_eq!(payload(&out), expected, "pieces of {size}: {}", String::from_utf8_lossy(&payload(&out)));
    }
}

#[test]
fn text_rows_are_rewritten() {
    check(&text(), b"1\ta\n\\N\t\\N\n2\tnull\n3\t\n", b"1\taa\n\\N\t\\N\n2\t\\N\n3\t\n");
}

#[test]
fn text_escapes_hide_no_delimiter_and_no_row_end() {
    check(&text(), b"1\ta\\tb\\\\\n", b"1\ta\\tb\\\\a\\tb\\\\\n");
    let format = CopyFormat::Text { delimiter: b'|', null: Bytes::from_static(b"\\N"), header: true };
    check(&format, b"id|name\n1|a\\|b\n", b"id|name\n1|a\\|ba\\|b\n");
    check(&text(), b"1\t\\x41\\101\n", b"1\tx41Ax41A\n");
}

#[test]
fn csv_rows_are_rewritten() {
    check(&csv(), b"id,\"na\nme\"\n1,a\n2,\n3,\"\"\n", b"id,\"na\nme\"\n1,aa\n2,\n3,\"\"\n");
    check(&csv(), b"h,h\n1,\"a,\n\"\"b\"\n", b"h,h\n1,\"a,\n\"\"ba,\n\"\"b\"\n");
    check(&csv(), b"h,h\n1,null\n", b"h,h\n1,\n");
    let format = CopyFormat::Csv { delimiter: b';', quote: b'\'', escape: b'\\', null: Bytes::from_static(b"-"), header: false };
    check(&format, b"1;'a\\';\\\\'\n2;-\n3;'-'\n", b"1;'a\\';\\\\a\\';\\\\'\n2;-\n3;'--'\n");
}

#[test]
fn binary_rows_are_rewritten() {
    let header = [SIGNATURE, &[0, 0, 0, 0, 0, 0, 0, 1, 9]].concat();
    let row = b"\0\x02\0\0\0\x01x\0\0\0\x02ab\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    let masked = b"\0\x02\0\0\0\x01x\0\0\0\x04abab\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    check(&CopyFormat::Binary, &[&header[..], row].concat(), &[&header[..], masked].concat());
}

#[test]
fn rows_with_other_columns_are_malformed_and_leave_nothing() {
    for (format, input) in [
        (text(), &b"1\n"[..]),
        (text(), b"1\t2\t3\n"),
        (csv(), b"h\n1\n"),
        (csv(), b"h\n1,2,3\n"),
        (csv(), b"h\n1,\"a\"b\"\n\"\n"),
        (CopyFormat::Binary, b"PGCOPX"),
        (CopyFormat::Binary, b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0"),
        (CopyFormat::Binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\xff\xff\xff\xff"),
    ] {
        let (mut rewriter, mut out) = (rewriter(format), BytesMut::new());
        assert_eq!(rewriter.feed(input, &mut out), Err(CopyError::Malformed), "{input:?}");
        assert!(!payload(&out).windows(2).any(|w| w == b"11"));
    }
    let mut rewriter = rewriter(CopyFormat::Binary);
    let mut out = BytesMut::new();
    rewriter.feed(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff", &mut out).unwrap();
    assert_eq!(rewriter.feed(b"\0\x02", &mut out), Err(CopyError::Malformed), "nothing comes after the trailer");
}

#[test]
fn a_row_without_an_end_is_bounded() {
    let mut rewriter = Rewriter::new(vec![ColumnRule::Pass], &[25], text(), 100);
    let mut out = BytesMut::new();
    assert_eq!(rewriter.feed(&[b'a'; 101], &mut out), Err(CopyError::RowTooLong));
    let mut rewriter = Rewriter::new(vec![ColumnRule::Pass], &[25], text(), 100);
    rewriter.feed(&[b'a'; 60], &mut out).unwrap();
    assert_eq!(rewriter.finish(), Err(CopyError::Malformed));
    assert_eq!(rewriter.feed(&[b'a'; 60], &mut out), Err(CopyError::RowTooLong));
}

// The server's writers, byte by byte, as a model.

/// `CopyAttributeOutText`.
fn model_text(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        match *byte {
            8 => out.extend(b"\\b"),
            12 => out.extend(b"\\f"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            11 => out.extend(b"\\v"),
            byte if byte == b'\\' || byte == delimiter => out.extend([b'\\', byte]),
            byte => out.push(byte),
        }
    }
}

/// `CopyAttributeOutCSV`; `quote`: what was quoted stays so.
fn model_csv(value: &[u8], csv: &Csv, quote: bool, out: &mut Vec<u8>) -> bool {
    let special = value.iter().any(|byte| [csv.delimiter, csv.quote, b'\n', b'\r'].contains(byte));
    let quoted = quote || special || value == csv.null || csv.single && value == b"\\.";
    if !quoted {
        out.extend(value);
        return false;
    }
    out.push(csv.quote);
    for byte in value {
        if *byte == csv.quote || *byte == csv.escape {
            out.push(csv.escape);
        }
        out.push(*byte);
    }
    out.push(csv.quote);
    true
}

fn model_row(format: &CopyFormat, row: &[Option<Vec<u8>>], masks: &[bool], masked: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if is_binary(format) {
        out.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
    }
    for (at, value) in row.iter().enumerate() {
        let hidden = masked && masks[at];
        let shown = value.as_ref().filter(|value| !(hidden && *value == b"null"));
        let shown = shown.map(|value| if hidden { value.repeat(2) } else { value.clone() });
        match format {
            CopyFormat::Text { delimiter, null, .. } => {
                out.extend((at > 0).then_some(delimiter));
                match shown {
                    Some(value) => model_text(&value, *delimiter, &mut out),
                    None => out.extend(null),
                }
            }
            CopyFormat::Csv { delimiter, quote, escape, null, .. } => {
                out.extend((at > 0).then_some(delimiter));
                let (delimiter, quote, escape, null, single) = (*delimiter, *quote, *escape, null.clone(), row.len() == 1);
                let csv = Csv { delimiter, quote, escape, null, single };
                // How the server wrote the clear value decides whether the masked one is quoted.
                let quoted = value.as_ref().is_some_and(|clear| model_csv(clear, &csv, false, &mut Vec::new()));
                match shown {
                    Some(value) => drop(model_csv(&value, &csv, quoted, &mut out)),
                    None => out.extend(&csv.null),
                }
            }
            CopyFormat::Binary => match shown {
                Some(value) => {
                    out.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    out.extend(value);
                }
                None => out.extend((-1i32).to_be_bytes()),
            },
        }
    }
    if !is_binary(format) {
        out.push(b'\n');
    }
    out
}

fn formats() -> impl Strategy<Value = CopyFormat> {
    let csv = |delimiter, quote, escape, null: &'static [u8]| CopyFormat::Csv {
        delimiter,
        quote,
        escape,
        null: Bytes::from_static(null),
        header: false,
    };
    prop_oneof![
        Just(CopyFormat::Text { delimiter: b'\t', null: Bytes::from_static(b"\\N"), header: false }),
        Just(CopyFormat::Text { delimiter: b'|', null: Bytes::from_static(b"\\N"), header: false }),
        Just(csv(b',', b'"', b'"', b"")),
        Just(csv(b';', b'\'', b'\\', b"-")),
        Just(CopyFormat::Binary),
    ]
}

/// Values with many of the bytes that mean something.
fn values() -> impl Strategy<Value = Option<Vec<u8>>> {
    let bytes = proptest::collection::vec(
        prop_oneof![b' '..b'z', proptest::sample::select(b"\t|,;\"'\\\n\r.nN-\x08\xff".to_vec())],
        0..40,
    );
    prop_oneof![1 => Just(None), 1 => Just(Some(b"null".to_vec())), 8 => bytes.prop_map(Some)]
}

proptest! {
    #[test]
    fn eight_bytes_at_a_time_find_what_one_at_a_time_does(value in proptest::collection::vec(any::<u8>(), 0..40), floor in 0u8..=128) {
        let slow = value.iter().any(|byte| *byte < floor || [b'\\', b'|'].contains(byte));
        prop_assert_eq!(delimited::any_of(&value, floor, [b'\\', b'|']), slow);
    }

    #[test]
    fn rows_come_out_as_the_server_would_have_written_them(
        format in formats(),
        columns in 1usize..6,
        cells in proptest::collection::vec(values(), 6..60),
        masks in proptest::collection::vec(any::<bool>(), 6),
        piece in 1usize..200,
    ) {
        let header = [SIGNATURE, &[0; 8]].concat();
        let (mut clear, mut expected) = if is_binary(&format) { (header.clone(), header) } else { (Vec::new(), Vec::new()) };
        for row in cells.chunks_exact(columns) {
            clear.extend(model_row(&format, row, &masks, false));
            expected.extend(model_row(&format, row, &masks, true));
        }
        let rules = masks.iter().take(columns).map(|mask| if *mask { ColumnRule::Mask(Arc::new(Twice)) } else { ColumnRule::Pass });
        let mut rewriter = Rewriter::new(rules.collect(), &[25; 6], format, 1 << 16);
        let mut out = BytesMut::new();
        for piece in clear.chunks(piece) {
            prop_assert_eq!(rewriter.feed(piece, &mut out), Ok(()));
        }
        prop_assert_eq!(rewriter.finish(), Ok(()));
        prop_assert_eq!(payload(&out).escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
