//! Messages: what parses encodes to the bytes that it was parsed from.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proto_postgres::message::{ClientMessage, StartupPacket, UpstreamMessage, split_options};

fuzz_target!(|data: &[u8]| {
    let Some((tag, body)) = data.split_first() else { return };
    let mut out = BytesMut::new();
    if let Ok(message) = ClientMessage::parse(*tag, body) {
        message.encode(&mut out);
        assert_eq!(&out[5..], body);
    }
    out.clear();
    if let Ok(message) = UpstreamMessage::parse(*tag, body) {
        message.encode(&mut out);
        assert_eq!(&out[5..], body);
    }
    if let Ok(StartupPacket::Startup { rest, .. }) = StartupPacket::parse(body) {
        let _ = StartupPacket::parameters(rest);
    }
    let _ = std::str::from_utf8(body).map(split_options);
});
