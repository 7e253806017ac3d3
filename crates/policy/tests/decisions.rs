//! What is allowed, denied and held, on facts that a protocol layer gives.

mod common;

use common::{Caller, NOW, denial, on_table, service, session, set, target, word};
use masking::MaskRules;
use policy::{NoCatalog, PolicyEngine, starter};
use proxy_core::pipeline::{Approval, ApprovalRule, ReviewGroup, SessionFacts, Widths};
use proxy_core::{Facts, Object, ObjectKind, Operation, Principal, PrincipalKind, RequestKind, Statement, Timestamp, Verdict};
use std::sync::Arc;

fn engine(text: &str) -> PolicyEngine {
    PolicyEngine::new(set(text), MaskRules::default(), Arc::new(NoCatalog))
}

fn caller(text: &str) -> Caller {
    Caller::new(&engine(text), &session(service("ci", &["writer"]), target(&[("env", "prod")])))
}

fn facts_request(caller: &mut Caller, operations: Vec<Operation>, unknown: &[&str]) -> proxy_core::Request {
    let mut facts = Facts { kinds: vec!["TEST".into()], ..Facts::default() };
    operations.into_iter().for_each(|operation| facts.add(operation));
    unknown.iter().for_each(|what| facts.add_unknown(*what));
    caller.request(RequestKind::Command, Statement::Facts { facts, text: "test".into() })
}

const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource);";
const HOLD_UPDATE: &str = "@id(\"hold\") @approval(\"dba, security\") forbid (principal, action == Action::\"update\", resource) unless { context.approved };";

#[test]
fn nothing_is_allowed_by_default() {
    let mut caller = caller("@id(\"other\") permit (principal in Role::\"admin\", action, resource);");
    let decision = caller.facts(vec![on_table("select", "orders", None)]);
    let (policy, what, remedy) = denial(&decision);
    assert_eq!((policy, what), (None, "select on table public.orders"));
    assert!(remedy.contains("select") && remedy.contains("dev/ci") && remedy.contains("payments"), "{remedy}");
    assert!(decision.policies.is_empty());
}

#[test]
fn a_permit_allows_and_is_named() {
    let decision = caller(PERMIT_ALL).facts(vec![on_table("select", "orders", None)]);
    assert_eq!(word(&decision), "allow");
    assert_eq!(decision.policies.iter().map(|id| id.to_string()).collect::<Vec<_>>(), ["all"]);
    assert_eq!(decision.policy_version, *set(PERMIT_ALL).version());
}

#[test]
fn every_operation_must_be_allowed() {
    let mut caller = caller("permit (principal, action == Action::\"select\", resource);");
    let decision = caller.facts(vec![on_table("select", "orders", None), on_table("delete", "orders", Some(true))]);
    assert_eq!(denial(&decision).1, "delete on table public.orders");
}

#[test]
fn a_forbid_wins_and_says_what_to_do() {
    let text = format!(
        "{PERMIT_ALL} @id(\"limited\") @remedy(\"add a WHERE\") forbid (principal, action == Action::\"delete\", resource) unless {{ context.has_where }};"
    );
    let mut caller = caller(&text);
    let decision = caller.facts(vec![on_table("delete", "orders", Some(false))]);
    assert_eq!(denial(&decision), (Some("limited"), "delete on table public.orders without WHERE", "add a WHERE"));
    assert_eq!(word(&caller.facts(vec![on_table("delete", "orders", Some(true))])), "allow");
    let unsure = caller.facts(vec![on_table("delete", "orders", None)]);
    assert_eq!(word(&unsure), "deny", "what the protocol could not tell counts as not limited");
}

#[test]
fn it_is_held_when_only_approval_policies_forbid() {
    let mut caller = caller(&format!("{PERMIT_ALL} {HOLD_UPDATE}"));
    let decision = caller.facts(vec![on_table("update", "orders", Some(true)), on_table("select", "orders", None)]);
    let expected = ApprovalRule {
        policies: vec!["hold".into()],
        groups: ["dba", "security"].map(|name| ReviewGroup { name: name.into(), quorum: 1, escalation: None }).into(),
        expires: None,
        widths: Widths::default(),
        what: "update on table public.orders".into(),
    };
    assert_eq!(decision.verdict, Verdict::Hold(expected));
}

#[test]
fn it_is_denied_at_once_when_an_approval_would_not_help() {
    let unpermitted = caller(HOLD_UPDATE).facts(vec![on_table("update", "orders", Some(true))]);
    assert_eq!(denial(&unpermitted).0, None, "nothing permits it, approved or not");
    let text = format!("{PERMIT_ALL} {HOLD_UPDATE} @id(\"never\") forbid (principal, action == Action::\"update\", resource);");
    let forbidden = caller(&text).facts(vec![on_table("update", "orders", Some(true))]);
    assert_eq!(denial(&forbidden).0, Some("never"));
    let text =
        format!("{PERMIT_ALL} {HOLD_UPDATE} @id(\"no-truncate\") forbid (principal, action == Action::\"truncate\", resource);");
    let mixed = caller(&text).facts(vec![on_table("update", "orders", Some(true)), on_table("truncate", "orders", None)]);
    assert_eq!(denial(&mixed).0, Some("no-truncate"), "held and refused together is refused");
}

#[test]
fn an_approval_lets_it_through_if_all_groups_gave_it_under_this_set() {
    let engine = engine(&format!("{PERMIT_ALL} {HOLD_UPDATE}"));
    let mut caller = Caller::new(&engine, &session(service("ci", &[]), target(&[])));
    let request = facts_request(&mut caller, vec![on_table("update", "orders", Some(true))], &[]);
    let version = engine.policies().version().clone();
    let approval = |version: &Arc<str>, groups: &[&str]| Approval {
        policy_version: version.clone(),
        reviewers: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let both = approval(&version, &["security", "dba"]);
    let allowed = caller.decide(&request, Some(&both));
    assert_eq!(word(&allowed), "allow");
    assert_eq!(allowed.policies.iter().map(|id| id.to_string()).collect::<Vec<_>>(), ["all", "hold"]);
    assert_eq!(word(&caller.decide(&request, Some(&approval(&version, &["dba"])))), "hold", "one group is missing");
    assert_eq!(word(&caller.decide(&request, Some(&approval(&"other".into(), &["security", "dba"])))), "hold");
    engine.activate(set(&format!("{PERMIT_ALL} {HOLD_UPDATE} permit (principal, action == Action::\"select\", resource);")));
    assert_eq!(word(&caller.decide(&request, Some(&both))), "hold", "an approval is void under another set");
}

#[test]
fn what_is_unknown_needs_a_permit_of_its_own() {
    let everything_else = "permit (principal, action in [Action::\"read\", Action::\"write\", Action::\"connect\"], resource);";
    let mut caller = caller(everything_else);
    let request =
        facts_request(&mut caller, vec![on_table("select", "orders", None)], &["function public.f is not declared safe"]);
    let decision = caller.decide(&request, None);
    assert_eq!(denial(&decision).1, "a request that is not understood: function public.f is not declared safe");
    let text = format!(
        "{everything_else} permit (principal, action == Action::\"unknown\", resource in Connection::\"orders-prod\") when {{ context.unknown.contains(\"function public.f is not declared safe\") }};"
    );
    let mut caller = self::caller(&text);
    assert_eq!(word(&caller.decide(&request, None)), "allow");
    let other = facts_request(&mut caller, vec![], &["something else"]);
    assert_eq!(word(&caller.decide(&other, None)), "deny");
    let unread = facts_request(&mut caller, vec![on_table("ddl", "orders", None)], &["function public.f is not declared safe"]);
    assert_eq!(word(&caller.decide(&unread, None)), "deny", "what is known has to be permitted besides");
}

#[test]
fn an_action_that_the_schema_does_not_have_is_refused_even_if_everything_is_permitted() {
    let mut caller = caller(PERMIT_ALL);
    let decision = caller.facts(vec![on_table("teleport", "orders", None)]);
    assert!(denial(&decision).1.contains("no action teleport"), "{:?}", decision.verdict);
    let misplaced = Operation { action: "unmask".into(), object: Object::new(ObjectKind::Table, ["a", "b"]), has_where: None };
    assert_eq!(word(&caller.facts(vec![misplaced])), "deny");
}

#[test]
fn a_policy_that_cannot_be_evaluated_denies() {
    let text = format!(
        "{PERMIT_ALL} @id(\"broken\") forbid (principal, action == Action::\"select\", resource) when {{ context.hour + 9223372036854775807 > 0 }};"
    );
    let decision = caller(&text).facts(vec![on_table("select", "orders", None)]);
    assert_eq!(denial(&decision).0, Some("broken"));
    assert_eq!(decision.policies.iter().map(|id| id.to_string()).collect::<Vec<_>>(), ["broken"]);
}

#[test]
fn a_request_without_objects_is_decided_as_connect() {
    let mut allowed = caller("permit (principal, action == Action::\"connect\", resource);");
    assert_eq!(word(&allowed.facts(vec![])), "allow");
    let mut denied = caller("permit (principal, action == Action::\"select\", resource);");
    assert_eq!(denial(&denied.facts(vec![])).1, "TEST on connection orders-prod");
}

#[test]
fn opening_a_session_is_the_action_connect() {
    let mut caller = caller("permit (principal, action == Action::\"connect\", resource == Connection::\"orders-prod\");");
    let request = caller.request(RequestKind::Connect, Statement::Facts { facts: Facts::default(), text: "connect".into() });
    assert_eq!(word(&caller.decide(&request, None)), "allow");
    assert_eq!(caller.session.still_connected(NOW), Ok(()));
    let mut refused = self::caller("permit (principal, action == Action::\"connect\", resource == Connection::\"other\");");
    assert_eq!(denial(&refused.decide(&request, None)).1, "connect to connection orders-prod");
    assert!(refused.session.still_connected(NOW).is_err());
}

#[test]
fn a_session_loses_what_a_reload_takes() {
    let engine = engine(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &session(service("ci", &[]), target(&[])));
    assert_eq!(word(&caller.facts(vec![on_table("select", "orders", None)])), "allow");
    let activation = engine.activate(set("@id(\"few\") permit (principal, action == Action::\"select\", resource);"));
    assert_eq!(activation.difference, ["- all", "+ few"]);
    assert_eq!(word(&caller.facts(vec![on_table("select", "orders", None)])), "allow");
    assert!(caller.session.still_connected(NOW).is_err());
}

#[test]
fn a_bad_reload_keeps_the_last_good_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.cedar");
    std::fs::write(&file, PERMIT_ALL).expect("written");
    let engine = engine("forbid (principal, action, resource);");
    let loaded = engine.reload(folder.path()).expect("it loads");
    assert_eq!(loaded.digest, engine.policies().digest());
    std::fs::write(&file, "permit (principal, action, resource").expect("written");
    assert!(engine.reload(folder.path()).is_err());
    assert_eq!(loaded.digest, engine.policies().digest());
    let mut caller = Caller::new(&engine, &session(service("ci", &[]), target(&[])));
    assert_eq!(word(&caller.facts(vec![on_table("select", "orders", None)])), "allow");
}

#[test]
fn scopes_see_roles_kinds_tags_and_the_hierarchy() {
    let table = || vec![on_table("select", "orders", None)];
    let here = |text: &str| word(&caller(text).facts(table()));
    let permit = |scope: &str| format!("permit ({scope});");
    for (scope, expected) in [
        ("principal in Role::\"writer\", action in Action::\"read\", resource", "allow"),
        ("principal in Role::\"reader\", action in Action::\"read\", resource", "deny"),
        ("principal in Role::\"writer\", action in Action::\"write\", resource", "deny"),
        ("principal == Service::\"dev/ci\", action, resource", "allow"),
        ("principal == Agent::\"dev/ci\", action, resource", "deny"),
        ("principal is Service in Role::\"writer\", action, resource", "allow"),
        ("principal is Human, action, resource", "deny"),
        ("principal, action, resource in Connection::\"orders-prod\"", "allow"),
        ("principal, action, resource in Connection::\"orders\"", "deny"),
        ("principal, action, resource in Database::\"orders-prod/orders\"", "allow"),
        ("principal, action, resource in Schema::\"orders-prod/orders/public\"", "allow"),
        ("principal, action, resource in Schema::\"orders-prod/orders/private\"", "deny"),
        ("principal, action, resource == Table::\"orders-prod/orders/public.orders\"", "allow"),
        ("principal, action, resource == Table::\"orders-prod/orders/public.items\"", "deny"),
        ("principal, action, resource is Table in Connection::\"orders-prod\"", "allow"),
        ("principal, action, resource is Function", "deny"),
    ] {
        assert_eq!(here(&permit(scope)), expected, "{scope}");
    }
    for (condition, expected) in [
        ("resource.hasTag(\"env\") && resource.getTag(\"env\") == \"prod\"", "allow"),
        ("resource.hasTag(\"env\") && resource.getTag(\"env\") == \"dev\"", "deny"),
        ("resource has owner && resource.owner == \"payments\"", "allow"),
        ("principal.roles.contains(\"writer\")", "allow"),
        ("principal.subject == \"ci\" && principal.issuer == \"dev\"", "allow"),
        ("context.kinds.contains(\"TEST\")", "allow"),
        ("context.source.isInRange(ip(\"10.0.0.0/8\"))", "allow"),
        ("context.source.isInRange(ip(\"192.168.0.0/16\"))", "deny"),
        ("context.application == \"test\"", "allow"),
        ("context.hour == 11 && context.weekday == 2", "allow"),
        ("context.statement like \"*test*\"", "allow"),
    ] {
        let text = format!("permit (principal, action == Action::\"select\", resource) when {{ {condition} }};");
        assert_eq!(here(&text), expected, "{condition}");
    }
}

#[test]
fn claims_are_tags_of_the_principal() {
    let text = "permit (principal, action == Action::\"select\", resource) when { principal.hasTag(\"repository\") && principal.getTag(\"repository\") == \"shop/web\" };";
    let decide = |claim: &str| {
        let mut principal = service("ci", &[]);
        principal.claims.insert("repository".into(), claim.into());
        principal.claims.insert("iat".into(), "1".into());
        let facts = session(principal, target(&[]));
        word(&Caller::new(&engine(text), &facts).facts(vec![on_table("select", "orders", None)]))
    };
    assert_eq!(decide("shop/web"), "allow");
    assert_eq!(decide("shop/other"), "deny");
}

#[test]
fn an_address_is_what_policies_think_it_is() {
    let text =
        "permit (principal, action == Action::\"select\", resource) when { context.source.isInRange(ip(\"10.0.0.0/8\")) };";
    for (source, expected) in
        [("10.1.2.3", "allow"), ("::ffff:10.1.2.3", "allow"), ("11.0.0.1", "deny"), ("", "deny"), ("unix", "deny")]
    {
        let facts = SessionFacts { source: source.into(), ..session(service("ci", &[]), target(&[])) };
        assert_eq!(
            word(&Caller::new(&engine(text), &facts).facts(vec![on_table("select", "orders", None)])),
            expected,
            "{source:?}"
        );
    }
}

#[test]
fn the_hour_is_that_of_the_request() {
    let mut caller =
        caller("permit (principal, action == Action::\"select\", resource) when { context.hour >= 9 && context.hour < 17 };");
    assert_eq!(word(&caller.facts(vec![on_table("select", "orders", None)])), "allow");
    caller.now = Timestamp(NOW.0 + 8 * 3_600 * 1_000_000);
    assert_eq!(word(&caller.facts(vec![on_table("select", "orders", None)])), "deny");
}

#[test]
fn a_set_that_reads_texts_does_not_guess_where_there_is_none() {
    let text = format!(
        "{PERMIT_ALL} forbid (principal, action == Action::\"unknown\", resource); forbid (principal, action == Action::\"select\", resource) when {{ context.statement like \"*secret*\" }};"
    );
    let mut caller = caller(&text);
    let request = caller.request(RequestKind::Execute, Statement::Function(17_000));
    assert_eq!(word(&caller.decide(&request, None)), "deny");
}

#[test]
fn the_starter_set_does_what_the_demo_shows() {
    let engine = PolicyEngine::new(starter::starter().expect("it loads"), MaskRules::default(), Arc::new(NoCatalog));
    let on = |principal: Principal, env: &str| Caller::new(&engine, &session(principal, target(&[("env", env)])));
    let one = |caller: &mut Caller, operation: Operation| word(&caller.facts(vec![operation]));
    let mut reader = on(service("report", &["reader"]), "prod");
    assert_eq!(one(&mut reader, on_table("select", "customers", None)), "allow");
    assert_eq!(one(&mut reader, on_table("insert", "customers", None)), "deny");
    let mut writer = on(service("shop", &["writer"]), "prod");
    assert_eq!(one(&mut writer, on_table("delete", "orders", Some(false))), "deny");
    assert_eq!(one(&mut writer, on_table("update", "orders", Some(true))), "hold");
    assert_eq!(one(&mut writer, on_table("insert", "orders", None)), "allow");
    assert_eq!(one(&mut writer, on_table("truncate", "orders", None)), "deny");
    assert_eq!(one(&mut on(service("shop", &["writer"]), "dev"), on_table("update", "orders", Some(true))), "allow");
    let mut nobody = on(service("stranger", &[]), "dev");
    assert!(nobody.session.still_connected(NOW).is_err());
    let mut agent = service("helper", &["reader", "pii-reader"]);
    agent.kind = PrincipalKind::Agent;
    assert_eq!(one(&mut on(agent, "dev"), on_table("select", "customers", None)), "allow");
}
