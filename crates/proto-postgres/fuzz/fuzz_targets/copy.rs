//! COPY streams: however one is cut, the rewriter gives the same or fails the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use proto_postgres::copy::Rewriter;
use proxy_core::results::CopyFormat;
use proxy_core::{Applied, ColumnRule, Mask, ValueType};
use std::sync::Arc;

#[derive(Debug)]
struct Stars;

impl Mask for Stars {
    fn class(&self) -> &str {
        "stars"
    }

    fn apply(&self, _: &[u8], _: ValueType, out: &mut BytesMut) -> Applied {
        out.extend_from_slice(b"***");
        Applied::Written
    }
}

fn run(format: &CopyFormat, data: &[u8], size: usize) -> (BytesMut, bool) {
    let rules = vec![ColumnRule::Pass, ColumnRule::Mask(Arc::new(Stars))];
    let mut rewriter = Rewriter::new(rules, &[25, 25], format.clone(), 1000);
    let mut out = BytesMut::new();
    let failed = data.chunks(size).any(|piece| rewriter.feed(piece, &mut out).is_err());
    (out, failed)
}

fuzz_target!(|data: &[u8]| {
    let [sort, size, data @ ..] = data else { return };
    let format = match sort % 3 {
        0 => CopyFormat::Text { delimiter: b'\t', null: Bytes::from_static(b"\\N"), header: sort & 4 != 0 },
        1 => {
            let escape = if sort & 8 != 0 { b'\\' } else { b'"' };
            CopyFormat::Csv { delimiter: b',', quote: b'"', escape, null: Bytes::new(), header: sort & 4 != 0 }
        }
        _ => CopyFormat::Binary,
    };
    if data.len() < 900 {
        assert_eq!(run(&format, data, usize::from(*size) + 1), run(&format, data, usize::MAX));
    }
});
