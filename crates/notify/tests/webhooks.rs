//! Signed JSON, as the receiver sees it.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{NOW, Receiver, Reply, SECRET, STATEMENT, clock, hostile, local, notice, rig, webhook};
use notify::webhook::{Verifier, WebhookConfig};
use notify::{ConfigError, Destination, HeaderMap, Secret, VerifyError};
use proxy_core::Timestamp;

fn secrets(all: &[&str]) -> Vec<Secret> {
    all.iter().map(|secret| Secret::new(*secret)).collect()
}

fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", id.parse().unwrap());
    headers.insert("webhook-timestamp", timestamp.parse().unwrap());
    headers.insert("webhook-signature", signature.parse().unwrap());
    headers
}

/// Independent of the crate.
fn signature(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    format!("v1,{}", STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &content)))
}

// The example of the specification's own libraries.
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const THEN: i64 = 1_614_265_330;

fn then(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(THEN + seconds)
}

#[test]
fn the_published_example_is_believed_once() {
    let verifier = Verifier::new(&secrets(&[SECRET])).unwrap();
    let headers = headers(ID, "1614265330", GOOD);
    assert_eq!(verifier.verify(&headers, BODY, then(0)).as_deref(), Ok(ID));
    assert_eq!(verifier.verify(&headers, BODY, then(1)), Err(VerifyError::Replayed));
    let fresh = || Verifier::new(&secrets(&[SECRET])).unwrap();
    assert!(fresh().verify(&headers, BODY, then(300)).is_ok());
    assert_eq!(fresh().verify(&headers, BODY, then(301)), Err(VerifyError::Stale));
    assert_eq!(fresh().verify(&headers, BODY, then(-301)), Err(VerifyError::Stale));
}

#[test]
fn a_forged_message_is_not_believed() {
    let verifier = Verifier::new(&secrets(&[SECRET])).unwrap();
    let check = |id: &str, timestamp: &str, signature: &str, body: &[u8]| {
        verifier.verify(&headers(id, timestamp, signature), body, then(0)).unwrap_err()
    };
    assert_eq!(check(ID, "1614265330", GOOD, b"{}"), VerifyError::Forged);
    assert_eq!(check("msg_other", "1614265330", GOOD, BODY), VerifyError::Forged);
    assert_eq!(check(ID, "1614265331", GOOD, BODY), VerifyError::Forged);
    assert_eq!(check(ID, "1614265330", &GOOD[3..], BODY), VerifyError::Forged, "without its version");
    assert_eq!(check(ID, "1614265330", "v1,", BODY), VerifyError::Forged);
    assert_eq!(check(ID, "1614265330", &GOOD.replace("v1", "v2"), BODY), VerifyError::Forged);
    assert_eq!(check("msg.1614265330", "1614265330", GOOD, BODY), VerifyError::Malformed("webhook-id"));
    for bad in ["+1614265330", " 1614265330", "1614265330.0", "-1", "99999999999999999999"] {
        assert_eq!(check(ID, bad, GOOD, BODY), VerifyError::Malformed("webhook-timestamp"), "{bad}");
    }
    let mut twice = headers(ID, "1614265330", GOOD);
    twice.append("webhook-signature", GOOD.parse().unwrap());
    assert_eq!(verifier.verify(&twice, BODY, then(0)), Err(VerifyError::Header("webhook-signature")));
    assert_eq!(verifier.verify(&HeaderMap::new(), BODY, then(0)), Err(VerifyError::Header("webhook-id")));
    let good = headers(ID, "1614265330", &format!("v1a,xx v1,bad! {GOOD}"));
    assert!(verifier.verify(&good, BODY, then(0)).is_ok(), "one among several");
}

#[test]
fn a_secret_is_of_the_specification_or_refused() {
    for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!"] {
        let error = Verifier::new(&secrets(&[bad])).unwrap_err();
        assert!(
            matches!(error, ConfigError::Secret(_)) && (bad.is_empty() || !error.to_string().contains(bad) || bad == "whsec_")
        );
    }
    assert!(Verifier::new(&[]).is_err());
}

#[tokio::test]
async fn a_receiver_gets_signed_json_without_the_statement() {
    let receiver = Receiver::start([]).await;
    let rig = rig(vec![webhook(&receiver)]);
    rig.notifier.notify(&notice());
    let got = receiver.wait_for(1).await.remove(0);
    assert_eq!((got.path.as_str(), got.headers["content-type"].as_bytes()), ("/hook", b"application/json".as_slice()));
    let (id, timestamp) = (got.headers["webhook-id"].to_str().unwrap(), got.headers["webhook-timestamp"].to_str().unwrap());
    assert_eq!((id, timestamp), (notice().id().as_str(), NOW.to_string().as_str()));
    assert_eq!(got.headers["webhook-signature"], signature(SECRET, id, timestamp, &got.body));
    Verifier::new(&secrets(&[SECRET])).unwrap().verify(&got.headers, &got.body, clock()).unwrap();
    let json = got.json();
    assert_eq!((json["type"].as_str(), json["timestamp"].as_str()), (Some("approval.requested"), Some("2026-11-28T10:00:00Z")));
    let data = &json["data"];
    assert_eq!(data["request"], "7k2m9x");
    assert_eq!(data["principal"], "ci-deployer");
    assert_eq!(data["groups"][0], serde_json::json!({ "name": "keeper", "missing": 2 }));
    assert_eq!(data["expires_at"], "2026-11-28T10:10:00Z");
    assert_eq!(data["link"], "https://gate.example/approvals/7k2m9x");
    assert!(data.get("statement").is_none() && !String::from_utf8_lossy(&got.body).contains("DELETE FROM"));
}

#[tokio::test]
async fn the_statement_is_there_where_it_is_configured_and_no_longer_than_its_limit() {
    let receiver = Receiver::start([]).await;
    let mut config = webhook(&receiver);
    config.statement = true;
    let rig = rig(vec![config]);
    rig.notifier.notify(&notice());
    rig.notifier.notify(&hostile());
    let got = receiver.wait_for(2).await;
    assert_eq!(got[0].json()["data"]["statement"], STATEMENT);
    let long = got[1].json()["data"]["statement"].as_str().unwrap().to_owned();
    assert_eq!(long.chars().count(), notify::limits::STATEMENT_MAX);
    assert!(long.contains("<!channel>") && !long.contains(['\0', '\u{202e}', '\r']));
}

#[tokio::test]
async fn every_secret_signs_so_that_a_receiver_can_change_from_one_to_the_next() {
    let receiver = Receiver::start([]).await;
    let next = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=";
    let config = WebhookConfig { url: receiver.url("/"), secrets: secrets(&[SECRET, next]) };
    let rig = rig(vec![local("hook", Destination::Webhook(config))]);
    rig.notifier.notify(&notice());
    let got = receiver.wait_for(1).await.remove(0);
    assert_eq!(got.headers["webhook-signature"].to_str().unwrap().split(' ').count(), 2);
    for secret in [SECRET, next] {
        Verifier::new(&secrets(&[secret])).unwrap().verify(&got.headers, &got.body, clock()).unwrap();
    }
    let other = Verifier::new(&secrets(&["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])).unwrap();
    assert_eq!(other.verify(&got.headers, &got.body, clock()), Err(VerifyError::Forged));
}

#[tokio::test]
async fn another_attempt_has_the_same_id_and_is_no_replay() {
    let receiver = Receiver::start([Reply::Status(500)]).await;
    let verifier = Verifier::new(&secrets(&[SECRET])).unwrap();
    let mut count = 0;
    let rig = common::rig_with(vec![webhook(&receiver)], common::Names::none(), |setup| {
        // The clock goes on by a second each time that it is read.
        use std::sync::atomic::{AtomicI64, Ordering};
        static SECOND: AtomicI64 = AtomicI64::new(NOW);
        setup.clock = || Timestamp::from_seconds(SECOND.fetch_add(1, Ordering::Relaxed));
    });
    rig.notifier.notify(&notice());
    for got in receiver.wait_for(2).await {
        assert_eq!(verifier.verify(&got.headers, &got.body, clock()), Ok(notice().id()));
        count += 1;
    }
    assert_eq!(count, 2);
}
