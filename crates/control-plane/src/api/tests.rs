use super::server::bind_socket;
use super::*;
use crate::approvals::Outcome;
use crate::client::{Client, ClientError};
use crate::testing::{Gateway, http, principal, send, target};
use bytes::Bytes;
use proxy_core::record::{ApprovalStep, Entry, Event, RecordedVerdict, RequestRecord, SessionStarted};
use proxy_core::{Principal, RequestId, RequestKind, SessionId, Store, Timestamp};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn health_and_metrics_are_open_and_the_rest_is_not() {
    let gateway = Gateway::start();
    let address = gateway.listen().await;
    assert_eq!(http(address, "GET", "/healthz", None).await, (200, "ok\n".into()));
    assert_eq!(http(address, "GET", "/readyz", None).await, (503, "the audit store's disk is full\n".into()));
    let (status, text) = http(address, "GET", "/metrics", None).await;
    assert!(status == 200 && text.contains("sallyport_connections_total"), "{text}");
    for path in ["/api/v1/status", "/api/v1/sessions/live", "/api/v1/approvals", "/api/v1/approvals/abc234"] {
        assert_eq!(http(address, "GET", path, None).await.0, 401, "{path}");
        assert_eq!(http(address, "GET", path, Some("forged")).await.0, 401, "{path}");
        assert_eq!(http(address, "GET", path, Some("old")).await.0, 401, "{path}");
    }
    assert_eq!(http(address, "GET", "/api/v1/sessions/live", Some("ann")).await.0, 403, "a reviewer is no auditor");
    assert_eq!(http(address, "GET", "/api/v1/sessions/live", Some("ci")).await.0, 200);
    assert_eq!(http(address, "GET", "/nothing", None).await.0, 404);
}

#[tokio::test]
async fn a_reviewer_of_the_group_approves_and_it_is_recorded_first() {
    let gateway = Gateway::start();
    let address = gateway.listen().await;
    let ticket = gateway.hold();
    let path = format!("/api/v1/approvals/{}/approve", ticket.id());
    let (status, why) = http(address, "POST", &path, Some("ci")).await;
    assert!(status == 403 && why.contains("own request"), "{why}");
    let (status, why) = http(address, "POST", &path, Some("eve")).await;
    assert!(status == 403 && why.contains("dba"), "{why}");
    *gateway.store.closed.lock() = true;
    assert_eq!(http(address, "POST", &path, Some("ann")).await.0, 503);
    assert_eq!(gateway.state.approvals.len(), 1, "what cannot be recorded does not happen");
    assert_eq!(gateway.recorded(), []);
    *gateway.store.closed.lock() = false;
    let (status, answer) = http(address, "POST", &path, Some("ann")).await;
    assert!(status == 200 && answer.contains("\"approved\":true"), "{answer}");
    assert_eq!(ticket.outcome().await.step(), ApprovalStep::Approved);
    let recorded = gateway.recorded();
    let [Event::Administration { by, action, object, details }] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!((by.as_str(), action.as_str(), details["digest"].as_str()), ("dev/ann", "request approved", "ab"));
    assert_eq!(object, "request 3 of session 07070707-0707-0707-0707-070707070707");
    assert_eq!(http(address, "POST", &path, Some("ann")).await.0, 409, "it is settled");
}

#[tokio::test]
async fn the_socket_is_for_its_user_who_speaks_for_every_group() {
    let gateway = Gateway::start();
    let mode = std::fs::metadata(gateway.folder.path().join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ticket = gateway.hold();
    let client = gateway.client();
    let list = client.get("/api/v1/approvals").await.unwrap();
    assert_eq!(list["approvals"][0]["statement"], "DELETE FROM orders");
    let path = format!("/api/v1/approvals/{}/deny", ticket.id());
    client.post(&path, &json!({ "reason": "not on Fridays" })).await.unwrap();
    let Outcome::Denied(opinion) = ticket.outcome().await else { panic!("denied") };
    assert!(opinion.by.starts_with("local:"), "{opinion:?}");
    assert_eq!(opinion.reason.as_deref(), Some("not on Fridays"));
    let late = client.post(&path, &json!({})).await.unwrap_err();
    assert!(matches!(&late, ClientError::Refused { status: 409, message } if message.contains("denied")), "{late}");
    let unknown = client.post("/api/v1/approvals/abc234/deny", &json!({})).await.unwrap_err();
    assert!(matches!(unknown, ClientError::Refused { status: 404, .. }), "{unknown}");
    let bad = client.post("/api/v1/approvals/abc234/deny", &json!({ "resaon": "x" })).await.unwrap_err();
    assert!(matches!(bad, ClientError::Refused { status: 422, .. }), "{bad}");
}

fn live(subject: &str, last: u8) -> LiveSession {
    let mut id = [0x11; 16];
    id[15] = last;
    LiveSession {
        id: SessionId(id),
        principal: Arc::new(principal(subject, &[])),
        target: Arc::new(target()),
        source: "10.0.0.1:1".into(),
        label: subject.into(),
        application: "psql".into(),
        tls: None,
        started: Timestamp(0),
        requests: 0,
    }
}

fn status(answer: Result<Value, ClientError>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(ClientError::Refused { status, .. }) => status,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_session_of_a_principal_is_killed_and_each_is_recorded() {
    let gateway = Gateway::start();
    gateway.live.0.lock().extend([live("ci", 1), live("ann", 2), live("ci", 3)]);
    let client = gateway.client();
    let answer = client.post("/api/v1/sessions/kill", &json!({ "principal": "dev/ci" })).await.unwrap();
    assert_eq!(answer["killed"], json!([live("ci", 1).id, live("ci", 3).id]));
    assert_eq!(gateway.live.list().iter().map(|session| session.id).collect::<Vec<_>>(), [live("ann", 2).id]);
    let recorded = gateway.recorded();
    assert!(recorded.iter().all(|event| matches!(event, Event::Administration { action, .. } if action == "session killed")));
    assert_eq!(recorded.len(), 2);
    let none = client.post("/api/v1/sessions/kill", &json!({ "principal": "dev/ci" })).await.unwrap();
    assert_eq!(none["killed"], json!([]));
    let (address, body) = (gateway.listen().await, r#"{"principal":"dev/ann"}"#);
    assert_eq!(send(address, "POST", "/api/v1/sessions/kill", Some("ann"), body).await.0, 403, "a reviewer is no administrator");
    assert_eq!(send(address, "POST", "/api/v1/sessions/kill", None, body).await.0, 401);
    assert_eq!(gateway.live.list().len(), 1);
}

#[tokio::test]
async fn what_is_revoked_is_recorded_first_and_stays_so_until_it_is_lifted() {
    let gateway = Gateway::start();
    let client = gateway.client();
    let bad = [
        json!({ "what": {} }),
        json!({ "what": { "principal": "ci" } }),
        json!({ "what": { "principal": "dev/ci", "token": "dev/7" } }),
        json!({ "what": { "token": "dev/7" }, "lifetime": "soon" }),
    ];
    for bad in bad {
        assert_eq!(status(client.post("/api/v1/revocations", &bad).await), 400, "{bad}");
    }
    let entry = json!({ "what": { "principal": "dev/ci" }, "lifetime": "12h", "reason": "stolen" });
    *gateway.store.closed.lock() = true;
    assert_eq!(status(client.post("/api/v1/revocations", &entry).await), 503);
    assert_eq!(gateway.state.revocations.list(), [], "what cannot be recorded does not happen");
    *gateway.store.closed.lock() = false;
    client.post("/api/v1/revocations", &entry).await.unwrap();
    client.post("/api/v1/revocations", &json!({ "what": { "token": "dev/7" } })).await.unwrap();
    let listed = client.get("/api/v1/revocations").await.unwrap();
    assert_eq!((&listed["revocations"][0]["principal"], &listed["revocations"][1]["token"]), (&json!("dev/ci"), &json!("dev/7")));
    let now = proxy_io::clock::now();
    let token = |id: &str| Principal { credential_id: Some(id.to_owned()), ..principal("ann", &[]) };
    assert!(gateway.state.revocations.against(&principal("ci", &[]), now).is_some());
    assert!(gateway.state.revocations.against(&token("7"), now).is_some());
    assert!(gateway.state.revocations.against(&token("8"), now).is_none());
    assert_eq!(status(client.post("/api/v1/revocations/lift", &json!({ "principal": "dev/eve" })).await), 404);
    client.post("/api/v1/revocations/lift", &json!({ "principal": "dev/ci" })).await.unwrap();
    assert!(gateway.state.revocations.against(&principal("ci", &[]), now).is_none());
    let address = gateway.listen().await;
    for (path, body) in [("", r#"{"what":{"principal":"dev/ci"}}"#), ("/lift", r#"{"token":"dev/7"}"#)] {
        let path = format!("/api/v1/revocations{path}");
        assert_eq!(send(address, "POST", &path, Some("ann"), body).await.0, 403, "a reviewer is no administrator");
        assert_eq!(send(address, "POST", &path, None, body).await.0, 401);
    }
    let actions = gateway.recorded().into_iter().map(|event| match event {
        Event::Administration { action, object, .. } => format!("{action}: {object}"),
        other => panic!("{other:?}"),
    });
    let expected = ["revoked: principal dev/ci", "revoked: token dev/7", "revocation lifted: principal dev/ci"];
    assert_eq!(actions.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_session_is_killed_by_the_start_of_its_id() {
    let gateway = Gateway::start();
    let session = |last| live("ci", last);
    gateway.live.0.lock().extend([session(1), session(2)]);
    let client = gateway.client();
    assert_eq!(status(client.post("/api/v1/sessions/1111/kill", &json!({})).await), 400, "there are two");
    assert_eq!(status(client.post("/api/v1/sessions/2222/kill", &json!({})).await), 404);
    assert_eq!(gateway.recorded(), []);
    assert_eq!(status(client.post(&format!("/api/v1/sessions/{}/kill", session(2).id), &json!({})).await), 200);
    assert_eq!(status(client.post("/api/v1/sessions/1111/kill", &json!({})).await), 200);
    assert!(gateway.live.list().is_empty());
    assert_eq!(gateway.recorded().len(), 2);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let gateway = Gateway::start();
    let path = gateway.folder.path().join("admin.sock");
    assert_eq!(bind_socket(&path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let dead = gateway.folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert!(matches!(Client::new(&dead).get("/").await, Err(ClientError::NotRunning(_))));
    bind_socket(&dead).unwrap();
    let file = gateway.folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(bind_socket(&file).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

fn session_entries(id: u8, statement: &'static str) -> Vec<Entry> {
    let session = SessionId([id; 16]);
    let started = SessionStarted {
        principal: principal("ci", &["writer"]),
        target: target(),
        source: "10.0.0.1:1".into(),
        protocol: "postgres".into(),
        label: "ci".into(),
        application: "psql".into(),
        tls: None,
        policy_version: "v1".into(),
        policies: vec![],
    };
    let request = RequestRecord {
        request: RequestId(1),
        kind: RequestKind::Query,
        statement: Bytes::from_static(statement.as_bytes()),
        parameters: vec![],
        facts: Arc::default(),
        verdict: RecordedVerdict::Allow,
        policies: Arc::from([]),
        policy_version: "v1".into(),
        reason: None,
    };
    let entry = |number, event| Entry { time: proxy_io::clock::now(), session: Some((session, number)), event };
    vec![entry(0, Event::SessionStarted(Box::new(started))), entry(1, Event::Request(Box::new(request)))]
}

#[tokio::test]
async fn the_log_is_read_with_filters_and_every_reading_is_recorded() {
    let gateway = Gateway::start();
    gateway.store.append(&session_entries(0xaa, "SELECT 1")).unwrap();
    gateway.store.append(&session_entries(0xbb, "SELECT 2")).unwrap();
    let client = gateway.client();
    let sessions = client.get("/api/v1/sessions?principal=dev%2Fci&since=1h").await.unwrap();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(sessions["sessions"][0]["open"], false, "no live session has that id");
    assert_eq!(client.get("/api/v1/sessions?connection=other").await.unwrap()["sessions"], json!([]));
    let story = client.get("/api/v1/sessions/aaaa").await.unwrap();
    assert_eq!(story["requests"][0]["request"]["statement"], "SELECT 1");
    let mut kinds = Vec::new();
    let path = "/api/v1/audit/entries?session=bbbb&last=10";
    client
        .lines(path, |entry| {
            kinds.push(entry["event"].as_str().unwrap().to_owned());
            Ok::<_, ClientError>(())
        })
        .await
        .unwrap();
    assert_eq!(kinds, ["session_started", "request"]);
    let verified = client.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(verified["holds"], true, "{verified}");
    for (path, word) in
        [("sessions?since=yesterday", "not a time"), ("audit/entries?kinds=x", "not a kind"), ("audit/entries?last=x", "number")]
    {
        let refused = client.get(&format!("/api/v1/{path}")).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 400, message } if message.contains(word)), "{refused}");
    }
    assert!(matches!(client.get("/api/v1/sessions/cccc").await, Err(ClientError::Refused { status: 404, .. })));
    let readings = gateway.recorded().iter().filter(|event| matches!(event, Event::LogRead { .. })).count();
    assert_eq!(readings, 5);
    *gateway.store.closed.lock() = true;
    assert!(matches!(client.get("/api/v1/sessions").await, Err(ClientError::Refused { status: 503, .. })));
}

#[tokio::test]
async fn a_reader_that_follows_sees_what_comes() {
    let gateway = Gateway::start();
    let (seen, mut entries) = tokio::sync::mpsc::channel(16);
    let client = gateway.client();
    let follower = tokio::spawn(async move {
        let path = "/api/v1/audit/entries?last=0&kinds=request&follow=true";
        client
            .lines(path, |entry| {
                let _ = seen.try_send(entry);
                Ok::<_, ClientError>(())
            })
            .await
    });
    while gateway.recorded().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.store.append(&session_entries(0xaa, "SELECT 1")).unwrap();
    let entry = tokio::time::timeout(Duration::from_secs(10), entries.recv()).await.unwrap().unwrap();
    assert_eq!(entry["statement"], "SELECT 1");
    follower.abort();
}

#[tokio::test]
async fn a_key_is_shown_once_and_one_that_cannot_be_recorded_is_void() {
    let gateway = Gateway::start();
    let client = gateway.client();
    let created =
        client.post("/api/v1/keys", &json!({ "subject": "billing", "roles": ["reader"], "lifetime": "30d" })).await.unwrap();
    let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
    assert!(secret.starts_with("sp_"));
    assert!(gateway.state.keys.verify_secret(secret.as_bytes(), proxy_io::clock::now()).is_ok());
    let listed = client.get("/api/v1/keys").await.unwrap().to_string();
    assert!(listed.contains(id) && !listed.contains(secret));
    assert!(!format!("{:?}", gateway.recorded()).contains(secret));
    client.post(&format!("/api/v1/keys/{id}/revoke"), &json!({})).await.unwrap();
    assert!(gateway.state.keys.verify_secret(secret.as_bytes(), proxy_io::clock::now()).is_err());
    for bad in [json!({ "subject": "x", "lifetime": "soon" }), json!({ "subject": "" })] {
        assert!(matches!(client.post("/api/v1/keys", &bad).await, Err(ClientError::Refused { status: 400, .. })), "{bad}");
    }
    *gateway.store.closed.lock() = true;
    assert!(matches!(
        client.post("/api/v1/keys", &json!({ "subject": "late" })).await,
        Err(ClientError::Refused { status: 503, .. })
    ));
    let late = gateway.state.keys.list().into_iter().find(|key| key.subject == "late").unwrap();
    assert!(late.revoked.is_some());
}
