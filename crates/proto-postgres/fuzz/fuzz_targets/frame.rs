//! Frames: what is decoded is the input, piece by piece, and the inspector prints any of it.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proto_postgres::frame::Frame;
use proxy_core::Peer;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    let mut at = 0;
    while let Ok(Some(frame)) = Frame::decode(&mut buffer, 1 << 20) {
        assert_eq!(frame.bytes()[..], data[at..at + frame.bytes().len()]);
        at += frame.bytes().len();
    }
    let _ = proto_postgres::dump(Peer::Client, data);
    let _ = proto_postgres::dump(Peer::Upstream, data);
});
