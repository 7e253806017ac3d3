//! Sets of policies: what loads, what does not, and what is said about it.

use policy::{LoadError, PolicySet, ProblemKind};
use std::path::PathBuf;

fn parse(text: &str) -> Result<PolicySet, LoadError> {
    PolicySet::parse([(PathBuf::from("test.cedar"), text.to_owned())])
}

/// The one problem of `text`: its kind, its place, and all that is said about it.
fn problem(text: &str) -> (ProblemKind, usize, usize, String) {
    let error = parse(text).expect_err("it must not load");
    assert_eq!(error.problems.len(), 1, "{error}");
    let problem = &error.problems[0];
    assert!(!problem.remedy.is_empty() || problem.kind == ProblemKind::Syntax, "what to do: {problem}");
    (problem.kind, problem.line, problem.column, problem.to_string())
}

#[test]
fn ids_come_from_the_annotation_or_from_the_place() {
    let set = parse(
        "@id(\"named\")\npermit (principal, action, resource);\n\nforbid (principal, action == Action::\"ddl\", resource);",
    )
    .expect("it loads");
    let ids: Vec<&str> = set.policies().iter().map(|policy| &*policy.id).collect();
    assert_eq!(ids, ["named", "test#2"]);
    assert_eq!(set.policy("test#2").map(|policy| (policy.line, policy.forbids)), Some((4, true)));
}

#[test]
fn a_syntax_error_has_its_place() {
    let (kind, line, column, text) = problem("// fine\npermit (principal, action resource);");
    assert_eq!((kind, line, column), (ProblemKind::Syntax, 2, 27), "{text}");
    assert!(text.starts_with("test.cedar:2:27: "), "{text}");
}

#[test]
fn what_the_schema_does_not_have_is_an_error_at_its_place() {
    let (kind, line, _, text) = problem("permit (principal, action == Action::\"selct\", resource);");
    assert_eq!((kind, line), (ProblemKind::Schema, 1));
    assert!(text.contains("select"), "names the nearest action: {text}");
    let (kind, line, ..) = problem("permit (principal, action, resource)\nwhen { resource.colour == \"red\" };");
    assert_eq!((kind, line), (ProblemKind::Schema, 2));
    let (kind, ..) = problem("permit (principal, action, resource) when { resource.getTag(\"env\") == \"prod\" };");
    assert_eq!(kind, ProblemKind::Schema, "a tag must be asked for with hasTag first");
    let (kind, ..) = problem("permit (principal is Service, action == Action::\"select\", resource) when { context.has_where };");
    assert_eq!(kind, ProblemKind::Schema, "SELECT has no has_where");
}

#[test]
fn every_problem_is_told_not_the_first_alone() {
    let error = parse("@colour(\"red\")\npermit (principal, action, resource);\n@id(\"a\") permit (principal, action == Action::\"nope\", resource);\n@id(\"a\") permit (principal, action, resource);")
        .expect_err("it must not load");
    let kinds: Vec<ProblemKind> = error.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Annotation, ProblemKind::DuplicateId, ProblemKind::Schema], "{error}");
}

#[test]
fn approval_and_context_approved_go_together() {
    let holds =
        "@approval(\"dba, security\")\nforbid (principal, action == Action::\"ddl\", resource) unless { context.approved };";
    let set = parse(holds).expect("it loads");
    assert_eq!(set.policies()[0].approval.as_ref().unwrap().groups, ["dba", "security"]);
    for text in [
        "@approval(\"dba\")\nforbid (principal, action == Action::\"ddl\", resource);",
        "forbid (principal, action == Action::\"ddl\", resource) unless { context.approved };",
        "permit (principal, action == Action::\"ddl\", resource) when { context.approved };",
        "@approval(\"dba\")\npermit (principal, action == Action::\"ddl\", resource);",
    ] {
        assert_eq!(problem(text).0, ProblemKind::Approval, "{text}");
    }
    for groups in ["", " ", "dba,,x"] {
        let text = format!("@approval(\"{groups}\")\nforbid (principal, action, resource) unless {{ context.approved }};");
        assert_eq!(problem(&text).0, ProblemKind::Annotation, "{text}");
    }
}

#[test]
fn templates_are_refused() {
    assert_eq!(problem("permit (principal == ?principal, action, resource);").0, ProblemKind::Template);
}

#[test]
fn the_digest_is_of_the_meaning() {
    let a = parse("@id(\"x\") permit (principal, action, resource);").expect("it loads");
    let b = parse("// a comment\n@id(\"x\")\npermit(principal,action,resource);").expect("it loads");
    let c = parse("@id(\"x\") permit (principal, action == Action::\"connect\", resource);").expect("it loads");
    assert_eq!(a.digest(), b.digest());
    assert_ne!(a.digest(), c.digest());
    assert_eq!(a.digest().len(), 64);
    assert!(a.digest().starts_with(&**a.version()));
}

#[test]
fn differences_are_told_by_id() {
    let old = parse("@id(\"a\") permit (principal, action, resource); @id(\"b\") permit (principal, action, resource);")
        .expect("it loads");
    let new = parse("@id(\"b\") forbid (principal, action, resource); @id(\"c\") permit (principal, action, resource);")
        .expect("it loads");
    assert_eq!(new.difference(&old), ["- a", "~ b", "+ c"]);
    assert_eq!(new.difference(&new), Vec::<String>::new());
}

#[test]
fn folders_are_loaded_whole_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    let kind = |error: LoadError| error.problems[0].kind;
    assert_eq!(PolicySet::load(&missing).map_err(kind).err(), Some(ProblemKind::Unreadable));
    assert_eq!(PolicySet::load(folder.path()).map_err(kind).err(), Some(ProblemKind::Unreadable), "no policies: a mistaken path");
    std::fs::write(folder.path().join("20.cedar"), "forbid (principal, action, resource);").expect("written");
    std::fs::write(folder.path().join("10.cedar"), "permit (principal, action, resource);").expect("written");
    std::fs::write(folder.path().join("notes.txt"), "not a policy").expect("written");
    let set = PolicySet::load(folder.path()).expect("it loads");
    assert_eq!(set.policies().iter().map(|policy| policy.id.to_string()).collect::<Vec<_>>(), ["10#1", "20#1"]);
    std::fs::write(folder.path().join("30.cedar"), [0xff, 0xfe]).expect("written");
    assert_eq!(PolicySet::load(folder.path()).map_err(kind).err(), Some(ProblemKind::Unreadable), "not UTF-8");
    std::fs::write(folder.path().join("30.cedar"), " ".repeat((1 << 20) + 1)).expect("written");
    assert_eq!(PolicySet::load(folder.path()).map_err(kind).err(), Some(ProblemKind::LimitExceeded));
}

#[test]
fn what_policies_read_is_known() {
    let set = parse("permit (principal, action == Action::\"select\", resource) when { context.statement like \"*x*\" };")
        .expect("it loads");
    assert!(set.reads().context("statement") && !set.reads().context("hour"));
}
