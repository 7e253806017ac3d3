//! OCSF events against the schema: what base event, classes, objects and profiles require, their enumerations and their
//! constraints, written down from version 1.8 of the schema (`events/` and `objects/` of ocsf-schema).

use super::lines;
use crate::format::Format;
use crate::samples::{all, hostile};
use serde_json::Value;

/// Required attributes of every event.
const BASE: [&str; 7] = ["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"];

/// A class: its uid, required attributes, of which attributes one must be there, its activities.
type Class = (u64, &'static [&'static str], &'static [&'static str], &'static [(u64, &'static str)]);

const CLASSES: [Class; 4] = [
    (3002, &["user"], &["service", "dst_endpoint"], &[(1, "Logon"), (2, "Logoff"), (99, "Other")]),
    (4007, &[], &["dst_endpoint", "src_endpoint"], &[(1, "Open"), (2, "Close"), (4, "Fail"), (5, "Refuse"), (6, "Traffic")]),
    (
        6003,
        &["actor", "api", "src_endpoint"],
        &["api"],
        &[(0, "Unknown"), (1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete"), (99, "Other")],
    ),
    (
        6005,
        &["actor", "src_endpoint"],
        &["database", "databucket", "table"],
        &[
            (0, "Unknown"),
            (1, "Read"),
            (2, "Update"),
            (3, "Connect"),
            (4, "Query"),
            (5, "Write"),
            (6, "Create"),
            (7, "Delete"),
            (99, "Other"),
        ],
    ),
];

/// Attributes that an event may have: those of the base event, of the profiles, and of the classes that are used.
const KNOWN: [&str; 47] = [
    "action",
    "action_id",
    "activity_id",
    "activity_name",
    "actor",
    "api",
    "app_name",
    "category_name",
    "category_uid",
    "class_name",
    "class_uid",
    "database",
    "disposition",
    "disposition_id",
    "dst_endpoint",
    "duration",
    "is_remote",
    "message",
    "metadata",
    "policy",
    "query_info",
    "resources",
    "service",
    "session",
    "severity",
    "severity_id",
    "src_endpoint",
    "status",
    "status_code",
    "status_detail",
    "status_id",
    "time",
    "time_dt",
    "type",
    "type_id",
    "type_name",
    "type_uid",
    "unmapped",
    "user",
    "auth_type",
    "auth_type_id",
    "connection_info",
    "count",
    "end_time",
    "raw_data",
    "start_time",
    "timezone_offset",
];

/// Captions of `severity_id`, `status_id`, `disposition_id`.
const SEVERITIES: [(u64, &str); 3] = [(1, "Informational"), (2, "Low"), (3, "Medium")];
const STATUSES: [(u64, &str); 3] = [(0, "Unknown"), (1, "Success"), (2, "Failure")];
const DISPOSITIONS: [(u64, &str); 5] = [(1, "Allowed"), (2, "Blocked"), (8, "Approved"), (14, "Delayed"), (25, "Rejected")];
const ACTIONS: [(u64, &str); 3] = [(0, "Unknown"), (1, "Allowed"), (2, "Denied")];

fn caption(event: &Value, id: &str, name: &str, known: &[(u64, &str)]) {
    let pair = (event[id].as_u64().unwrap(), event[name].as_str().unwrap());
    assert!(known.contains(&pair), "{id}: {pair:?}");
}

fn one_of(object: &Value, names: &[&str]) {
    assert!(names.iter().any(|name| !object[*name].is_null()), "one of {names:?} in {object}");
}

/// The event against its class, and its objects against theirs.
fn check(event: &Value) {
    for name in BASE {
        assert!(!event[name].is_null(), "{name} is missing: {event}");
    }
    for name in event.as_object().unwrap().keys() {
        assert!(KNOWN.contains(&name.as_str()), "{name} is no attribute of the class");
    }
    let uid = event["class_uid"].as_u64().unwrap();
    let (_, required, one, activities) = CLASSES.iter().find(|class| class.0 == uid).unwrap();
    for name in *required {
        assert!(!event[*name].is_null(), "{uid} needs {name}: {event}");
    }
    one_of(event, one);
    caption(event, "activity_id", "activity_name", activities);
    assert_eq!(event["type_uid"].as_u64().unwrap(), uid * 100 + event["activity_id"].as_u64().unwrap());
    assert_eq!(event["category_uid"].as_u64().unwrap(), uid / 1_000);
    caption(event, "severity_id", "severity", &SEVERITIES);
    caption(event, "status_id", "status", &STATUSES);
    objects(event);
    let profiles = event["metadata"]["profiles"].as_array().unwrap();
    assert!(event["time_dt"].is_string() && profiles.contains(&"datetime".into()));
    assert_eq!(event.get("disposition_id").is_some(), profiles.contains(&"security_control".into()));
    if event.get("disposition_id").is_some() {
        caption(event, "disposition_id", "disposition", &DISPOSITIONS);
        caption(event, "action_id", "action", &ACTIONS);
    }
}

fn objects(event: &Value) {
    let metadata = &event["metadata"];
    assert_eq!(metadata["version"], "1.8.0");
    one_of(&metadata["product"], &["name", "uid"]);
    assert!(metadata["product"]["vendor_name"].is_string());
    for name in ["src_endpoint", "dst_endpoint"].into_iter().filter(|name| event.get(name).is_some()) {
        one_of(&event[name], &["ip", "uid", "name", "hostname", "svc_name", "instance_uid", "interface_uid", "domain"]);
        assert!(event[name]["port"].is_null() || event[name]["port"].is_u64());
    }
    if let Some(actor) = event.get("actor") {
        one_of(actor, &["process", "user", "invoked_by", "session", "app_name", "app_uid"]);
    }
    for user in [event.get("user"), event["actor"].get("user")].into_iter().flatten() {
        one_of(user, &["account", "name", "uid"]);
        let types = [(0, "Unknown"), (1, "User"), (4, "Service"), (99, "Agent")];
        caption(user, "type_id", "type", &types);
    }
    if let Some(api) = event.get("api") {
        assert!(api["operation"].is_string(), "api.operation is required");
    }
    if let Some(query) = event.get("query_info") {
        assert!(query["query_string"].is_string(), "query_info.query_string is required");
    }
    if let Some(database) = event.get("database") {
        one_of(database, &["name", "uid"]);
        assert_eq!((&database["type_id"], &database["type"]), (&1.into(), &"Relational".into()));
    }
    if let Some(policy) = event.get("policy") {
        one_of(policy, &["name", "uid"]);
    }
}

#[test]
fn every_event_keeps_to_the_schema() {
    let mut entries = all();
    entries.extend(hostile());
    lines(Format::Ocsf, &entries).iter().for_each(check);
}

#[test]
fn entries_are_of_the_class_that_says_most() {
    let events = lines(Format::Ocsf, &all());
    let classes: Vec<_> = events.iter().map(|event| event["type_uid"].as_u64().unwrap()).collect();
    let expected = [
        600_399, 600_399, 600_303, 600_303, 300_201, 300_201, 300_202, 600_507, 600_504, 600_303, 600_301, 600_302, 600_399,
        600_399,
    ];
    assert_eq!(classes, expected);
    let denied = &events[7];
    assert_eq!(denied["actor"]["user"]["uid"], "entra/9f2b/ci-bot");
    assert_eq!(denied["src_endpoint"]["ip"], "10.1.2.3");
    assert_eq!((&denied["dst_endpoint"]["hostname"], &denied["dst_endpoint"]["port"]), (&"db.example.com".into(), &5_432.into()));
    assert_eq!(denied["query_info"]["query_string"], "DELETE FROM customers");
    assert_eq!((&denied["disposition"], &denied["status"]), (&"Blocked".into(), &"Failure".into()));
    assert_eq!(denied["metadata"]["sequence"], 7);
    assert_eq!(denied["unmapped"]["details"]["parameters"][2], serde_json::json!({ "value": null, "format": "text", "type": 0 }));
    assert_eq!(events[10]["unmapped"]["details"]["rows"], "12", "details do not hide what is beside them");
}

#[test]
fn sessions_of_other_protocols_have_classes_of_their_own() {
    let mut encoder = crate::format::encoder(Format::Ocsf, &crate::samples::log(), crate::Texts::Whole);
    for (protocol, class) in [("ssh", 4_007), ("kubernetes", 6_003), ("postgres", 6_005)] {
        let context = crate::SessionContext { protocol: protocol.into(), ..crate::samples::context() };
        let mut out = Vec::new();
        encoder.entry(Some(&context), &all()[7], &mut out).unwrap();
        let event: Value = serde_json::from_slice(&out).unwrap();
        check(&event);
        assert_eq!(event["class_uid"], class);
        assert!(event.to_string().contains("DELETE FROM customers"));
    }
}
