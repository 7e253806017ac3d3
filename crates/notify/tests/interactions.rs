//! What people press in Slack.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use aws_lc_rs::hmac;
use common::Names;
use notify::slack::{Answerer, InteractionError, Pressed, Verifier, parse_interaction};
use notify::{HeaderMap, Secret, SendError, VerifyError};
use proxy_core::Timestamp;
use std::sync::Arc;

// Slack's own example, docs.slack.dev/authentication/verifying-requests-from-slack.
const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const THEN: i64 = 1_531_420_618;
const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar\
&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2F\
T1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
const GOOD: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

fn headers(timestamp: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-slack-request-timestamp", timestamp.parse().unwrap());
    headers.insert("x-slack-signature", signature.parse().unwrap());
    headers
}

fn verifier() -> Verifier {
    Verifier::new(&[Secret::new("0123456789abcdef0123456789abcdef"), Secret::new(SECRET)]).unwrap()
}

fn then(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(THEN + seconds)
}

#[test]
fn slacks_own_example_is_believed_once_and_for_five_minutes() {
    let (verifier_, headers) = (verifier(), headers("1531420618", GOOD));
    assert_eq!(verifier_.verify(&headers, BODY.as_bytes(), then(0)), Ok(()));
    assert_eq!(verifier_.verify(&headers, BODY.as_bytes(), then(1)), Err(VerifyError::Replayed));
    assert_eq!(verifier().verify(&headers, BODY.as_bytes(), then(300)), Ok(()));
    assert_eq!(verifier().verify(&headers, BODY.as_bytes(), then(301)), Err(VerifyError::Stale));
    assert_eq!(verifier().verify(&headers, BODY.as_bytes(), then(-301)), Err(VerifyError::Stale));
}

#[test]
fn a_replay_in_other_letters_is_a_replay() {
    let verifier = verifier();
    assert_eq!(verifier.verify(&headers("1531420618", GOOD), BODY.as_bytes(), then(0)), Ok(()));
    let upper = GOOD.replace("a2114d", "A2114D");
    assert_eq!(verifier.verify(&headers("1531420618", &upper), BODY.as_bytes(), then(0)), Err(VerifyError::Replayed));
    assert!(verifier.verify(&headers("01531420618", GOOD), BODY.as_bytes(), then(0)).is_err());
}

#[test]
fn a_forged_request_is_not_believed() {
    let check = |timestamp: &str, signature: &str, body: &str| {
        verifier().verify(&headers(timestamp, signature), body.as_bytes(), then(0)).unwrap_err()
    };
    assert_eq!(check("1531420618", GOOD, &format!("{BODY}&x=1")), VerifyError::Forged);
    assert_eq!(check("1531420619", GOOD, BODY), VerifyError::Forged);
    assert_eq!(check("1531420618", "v0=", BODY), VerifyError::Forged);
    assert_eq!(check("1531420618", &GOOD[..GOOD.len() - 2], BODY), VerifyError::Forged, "a part of it");
    assert_eq!(check("1531420618", &GOOD.replace("v0", "v1"), BODY), VerifyError::Malformed("x-slack-signature"));
    assert_eq!(check("1531420618", "v0=zz", BODY), VerifyError::Malformed("x-slack-signature"));
    assert_eq!(check("yesterday", GOOD, BODY), VerifyError::Malformed("x-slack-request-timestamp"));
    let mut twice = headers("1531420618", GOOD);
    twice.append("x-slack-request-timestamp", "1531420618".parse().unwrap());
    assert_eq!(verifier().verify(&twice, BODY.as_bytes(), then(0)), Err(VerifyError::Header("x-slack-request-timestamp")));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"");
    let empty: String =
        hmac::sign(&key, format!("v0:1531420618:{BODY}").as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(check("1531420618", &format!("v0={empty}"), BODY), VerifyError::Forged);
    assert!(Verifier::new(&[Secret::new("")]).is_err() && Verifier::new(&[]).is_err());
}

fn form(json: &str) -> Vec<u8> {
    let coded: String = json.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("payload={coded}").into_bytes()
}

fn pressed(action: &str, response_url: &str) -> Vec<u8> {
    form(&format!(
        r#"{{"type":"block_actions","user":{{"id":"U1","username":"ann","team_id":"T9"}},"team":{{"id":"T1","domain":"x"}},
        "api_app_id":"A1","response_url":"{response_url}","actions":[{{"type":"button","action_id":"{action}","block_id":"b",
        "value":"7k2m9x","action_ts":"1.2"}}]}}"#
    ))
}

#[test]
fn an_interaction_says_who_pressed_what() {
    let interaction = parse_interaction(&pressed("sallyport.approve", "https://hooks.slack.com/actions/T1/2/3")).unwrap();
    assert_eq!((interaction.user.as_str(), interaction.user_name.as_str(), interaction.team.as_str()), ("U1", "ann", "T1"));
    assert_eq!((interaction.pressed, interaction.request.as_str()), (Pressed::Approve, "7k2m9x"));
    assert!(interaction.response_url.is_some());
    assert!(!format!("{interaction:?}").contains("actions/T1"), "where to answer is a secret");
    let elsewhere = parse_interaction(&pressed("sallyport.deny", "https://hooks.slack.com.evil.example/x")).unwrap();
    assert_eq!(elsewhere.pressed, Pressed::Deny);
    assert!(elsewhere.response_url.is_none());
}

#[test]
fn what_is_not_ours_is_refused() {
    let refused = |body: &[u8]| parse_interaction(body).unwrap_err();
    assert_eq!(refused(&pressed("other.button", "")), InteractionError::NotOurs);
    assert_eq!(refused(&form(r#"{"type":"view_submission","user":{"id":"U1"}}"#)), InteractionError::NotOurs);
    assert_eq!(refused(&form(r#"{"type":"block_actions","user":{"id":"U1"},"actions":[]}"#)), InteractionError::NotOurs);
    for bad in [
        b"".as_slice(),
        b"payload=",
        b"payload=%7",
        b"payload={}",
        b"payload=%FF",
        b"x=1",
        b"payload=1&payload=2",
        BODY.as_bytes(),
    ] {
        assert_eq!(refused(bad), InteractionError::Malformed, "{bad:?}");
    }
    assert_eq!(refused(&vec![b'x'; 300 << 10]), InteractionError::Malformed);
}

#[test]
fn an_answer_is_for_one_person_and_decides_nothing() {
    let answer = Answerer::answer("https://gate.example/approvals/7k2m9x");
    assert_eq!((&answer["response_type"], &answer["replace_original"]), (&"ephemeral".into(), &false.into()));
    assert!(answer["text"].as_str().unwrap().contains("Log in to decide: https://gate.example/approvals/7k2m9x"));
    assert_eq!(answer["blocks"][1]["elements"][0]["url"], "https://gate.example/approvals/7k2m9x");
}

#[tokio::test]
async fn an_answer_does_not_go_to_where_a_lying_name_leads() {
    let names = Names(vec![("hooks.slack.com", vec!["127.0.0.1".parse().unwrap()])]);
    let answerer = Answerer::new(Arc::new(names)).unwrap();
    let interaction = parse_interaction(&pressed("sallyport.deny", "https://hooks.slack.com/actions/T1")).unwrap();
    let sent = answerer.send(&interaction.response_url.unwrap(), "https://gate.example/", then(0)).await;
    assert!(matches!(sent, Err(SendError::Address(_))));
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_sent_breaks_the_reader(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), json in "[{}\\[\\]\":,a-z0-9%+&=]{0,80}") {
        let _ = parse_interaction(&body);
        let _ = parse_interaction(&[b"payload=".as_slice(), &body].concat());
        let _ = parse_interaction(&form(&json));
        let signature = String::from_utf8_lossy(&body).into_owned();
        if let Ok(signature) = signature.parse() {
            let mut headers = headers("1531420618", GOOD);
            headers.insert("x-slack-signature", signature);
            assert!(verifier().verify(&headers, &body, then(0)).is_err());
        }
    }
}
