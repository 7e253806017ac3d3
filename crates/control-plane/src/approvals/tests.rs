use super::*;
use bytes::Bytes;
use proxy_core::pipeline::{ApprovalRule, Escalation, Widths};
use proxy_core::{PrincipalKind, RequestId, SessionId, Target};

fn held(groups: &[&str]) -> HeldRequest {
    let principal = Principal {
        kind: PrincipalKind::Service,
        issuer: "dev".into(),
        subject: "ci".into(),
        tenant: None,
        application: None,
        credential_id: None,
        aliases: vec![],
        roles: vec![],
        claims: BTreeMap::new(),
        expires: None,
    };
    let target = Target {
        connection: "shop".into(),
        address: "db:5432".into(),
        database: "shop".into(),
        upstream_user: "gateway".into(),
        owner: None,
        tags: BTreeMap::new(),
    };
    let rule = ApprovalRule {
        policies: vec!["hold-updates".into()],
        groups: groups.iter().map(|name| ReviewGroup { name: name.to_string(), quorum: 1, escalation: None }).collect(),
        expires: None,
        widths: Widths::default(),
        what: "update on table public.orders".into(),
    };
    HeldRequest {
        session: SessionId([7; 16]),
        request: RequestId(3),
        principal: Arc::new(principal),
        target: Arc::new(target),
        statement: Bytes::from_static(b"UPDATE orders SET paid = true"),
        parameters: vec![],
        digest: "00".into(),
        facts: Arc::default(),
        rule,
        policy_version: "v1".into(),
        submitted: Timestamp::from_seconds(100),
    }
}

fn person(id: &str, groups: &[&str]) -> Principal {
    let (issuer, subject) = id.split_once('/').unwrap();
    Principal {
        kind: PrincipalKind::Human,
        issuer: issuer.into(),
        subject: subject.into(),
        tenant: None,
        application: None,
        credential_id: None,
        aliases: vec![format!("{subject}@example.com")],
        roles: groups.iter().map(ToString::to_string).collect(),
        claims: BTreeMap::new(),
        expires: None,
    }
}

fn reviewer(id: &str, groups: &[&str]) -> Reviewer {
    let principal = Some(Arc::new(person(id, groups)));
    Reviewer { id: id.into(), principal, groups: Groups::These(groups.iter().map(ToString::to_string).collect()) }
}

fn board(held_max: usize) -> Arc<ApprovalBoard> {
    ApprovalBoard::new(held_max, Box::new(|_| true))
}

fn because(reason: &str) -> Word {
    Word { reason: Some(reason.into()), width: Width::Once }
}

fn wide(width: Width) -> Word {
    Word { reason: None, width }
}

const MINUTE: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp(200_000_000);

fn submit(board: &Arc<ApprovalBoard>, groups: &[&str]) -> Ticket {
    board.submit(held(groups), MINUTE).unwrap()
}

#[tokio::test]
async fn an_approval_reaches_the_session_with_its_policy_version() {
    let board = board(10);
    let ticket = submit(&board, &["dba"]);
    assert_eq!(board.list()[0].expires, Timestamp::from_seconds(160));
    let progress = board.approve(ticket.id(), &reviewer("entra/ann", &["dba"]), because("ticket 7"), NOW).unwrap();
    assert!(progress.approved);
    let id = ticket.id();
    let outcome = ticket.outcome().await;
    assert_eq!((outcome.step(), outcome.by().as_deref()), (ApprovalStep::Approved, Some("entra/ann")));
    assert_eq!(outcome.reason().as_deref(), Some("ticket 7"));
    let Outcome::Approved { approval, .. } = outcome else { panic!("approved") };
    assert_eq!((&*approval.policy_version, approval.reviewers), ("v1", vec!["dba".to_owned()]));
    let late = board.deny(id, &reviewer("entra/bob", &["dba"]), Word::default(), NOW).unwrap_err();
    assert!(matches!(late, Refused::Settled { step: ApprovalStep::Approved, .. }), "{late}");
    assert!(board.is_empty());
}

#[tokio::test]
async fn every_group_must_approve() {
    let board = board(10);
    let ticket = submit(&board, &["dba", "security"]);
    let first = board.approve(ticket.id(), &reviewer("a/ann", &["dba", "other"]), Word::default(), NOW).unwrap();
    assert_eq!(first, Progress { approved: false, missing: vec!["security".into()] });
    let again = board.approve(ticket.id(), &reviewer("a/bob", &["dba"]), Word::default(), NOW).unwrap_err();
    assert_eq!(again, Refused::NotReviewer { by: "a/bob".into(), groups: vec!["security".into()] });
    assert!(board.approve(ticket.id(), &reviewer("a/eve", &["security"]), Word::default(), NOW).unwrap().approved);
    assert_eq!(ticket.outcome().await.by().as_deref(), Some("a/ann, a/eve"));
}

#[tokio::test]
async fn nobody_decides_on_their_own_request_and_strangers_do_not_decide() {
    let board = board(10);
    let ticket = submit(&board, &["dba"]);
    let own = reviewer("dev/ci", &["dba"]);
    assert_eq!(board.approve(ticket.id(), &own, Word::default(), NOW), Err(Refused::Own("dev/ci".into())));
    assert_eq!(board.deny(ticket.id(), &own, Word::default(), NOW), Err(Refused::Own("dev/ci".into())));
    assert!(matches!(board.may_decide(ticket.id(), &own, Width::Once, NOW), Err(Refused::Own(_))));
    let stranger = reviewer("a/ann", &["marketing"]);
    assert!(matches!(board.approve(ticket.id(), &stranger, Word::default(), NOW), Err(Refused::NotReviewer { .. })));
    assert!(matches!(board.deny(ticket.id(), &stranger, Word::default(), NOW), Err(Refused::NotReviewer { .. })));
    assert_eq!(board.len(), 1);
    let local = Reviewer { id: "local:root".into(), principal: None, groups: Groups::All };
    board.deny(ticket.id(), &local, because("no"), NOW).unwrap();
    let outcome = ticket.outcome().await;
    assert_eq!(
        (outcome.step(), outcome.by().as_deref(), outcome.reason().as_deref()),
        (ApprovalStep::Denied, Some("local:root"), Some("no"))
    );
}

#[tokio::test]
async fn a_dropped_ticket_withdraws_and_a_full_board_refuses() {
    let board = board(1);
    let ticket = submit(&board, &["dba"]);
    let id = ticket.id();
    assert_eq!(board.submit(held(&["dba"]), MINUTE).unwrap_err(), BoardFull(1));
    drop(ticket);
    let gone = board.approve(id, &reviewer("a/ann", &["dba"]), Word::default(), NOW).unwrap_err();
    assert!(matches!(gone, Refused::Settled { step: ApprovalStep::Withdrawn, .. }), "{gone}");
    // A wait that is cancelled withdraws as well.
    let ticket = submit(&board, &["dba"]);
    let waiting = tokio::spawn(ticket.outcome());
    tokio::task::yield_now().await;
    waiting.abort();
    let _ = waiting.await;
    assert!(board.is_empty());
}

#[tokio::test]
async fn nobody_in_time_is_expired() {
    let board = board(10);
    let ticket = board.submit(held(&["dba"]), Duration::from_millis(10)).unwrap();
    let id = ticket.id();
    assert_eq!(ticket.outcome().await, Outcome::Expired);
    assert!(matches!(board.get(id), Err(Refused::Settled { step: ApprovalStep::Expired, .. })));
}

#[test]
fn many_reviewers_and_a_timeout_at_once_give_one_outcome() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for round in 0..200 {
        let board = board(10);
        let ticket = board.submit(held(&["dba"]), Duration::from_micros(round * 5)).unwrap();
        let id = ticket.id();
        let deciders: Vec<_> = (0..4)
            .map(|number| {
                let board = Arc::clone(&board);
                std::thread::spawn(move || {
                    let who = reviewer(&format!("a/{number}"), &["dba"]);
                    if number % 2 == 0 {
                        board.approve(id, &who, Word::default(), NOW).is_ok()
                    } else {
                        board.deny(id, &who, Word::default(), NOW).is_ok()
                    }
                })
            })
            .collect();
        let outcome = runtime.block_on(ticket.outcome());
        let wins = deciders.into_iter().map(|decider| usize::from(decider.join().unwrap())).sum::<usize>();
        let expired = usize::from(outcome == Outcome::Expired);
        assert_eq!(wins + expired, 1, "{outcome:?}");
        assert!(board.is_empty());
    }
}

#[test]
fn ids_can_be_typed() {
    let board = board(10);
    let id = board.inner.lock().free_id();
    assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    assert_eq!("OIL234".parse::<ApprovalId>().unwrap().to_string(), "011234");
    for bad in ["", "12345", "1234567", "12345u", "1234 6"] {
        assert_eq!(bad.parse::<ApprovalId>(), Err(InvalidApprovalId), "{bad}");
    }
}

#[tokio::test]
async fn a_quorum_needs_different_people() {
    let board = board(10);
    let mut held = held(&["dba"]);
    held.rule.groups[0].quorum = 2;
    let ticket = board.submit(held, MINUTE).unwrap();
    let ann = reviewer("a/ann", &["dba"]);
    let first = board.approve(ticket.id(), &ann, Word::default(), NOW).unwrap();
    assert_eq!(first, Progress { approved: false, missing: vec!["dba".into()] });
    assert_eq!(board.get(ticket.id()).unwrap().approvals_of("dba"), 1);
    assert_eq!(board.approve(ticket.id(), &ann, Word::default(), NOW), Err(Refused::Again("a/ann".into())));
    assert!(board.approve(ticket.id(), &reviewer("a/bob", &["dba"]), Word::default(), NOW).unwrap().approved);
    assert_eq!(ticket.outcome().await.by().as_deref(), Some("a/ann, a/bob"));
}

#[tokio::test]
async fn who_lost_the_right_before_the_decision_does_not_count() {
    let gone = Arc::new(Mutex::new(false));
    let board = ApprovalBoard::new(10, {
        let gone = Arc::clone(&gone);
        Box::new(move |reviewer| reviewer.subject != "ann" || !*gone.lock())
    });
    let mut held = held(&["dba"]);
    held.rule.groups[0].quorum = 2;
    let ticket = board.submit(held, MINUTE).unwrap();
    board.approve(ticket.id(), &reviewer("a/ann", &["dba"]), Word::default(), NOW).unwrap();
    *gone.lock() = true;
    let second = board.approve(ticket.id(), &reviewer("a/bob", &["dba"]), Word::default(), NOW).unwrap();
    assert!(!second.approved, "of the two, one counts");
    assert!(board.approve(ticket.id(), &reviewer("a/eve", &["dba"]), Word::default(), NOW).unwrap().approved);
    assert_eq!(ticket.outcome().await.by().as_deref(), Some("a/bob, a/eve"));
}

#[tokio::test]
async fn a_second_group_speaks_for_the_first_once_it_has_waited_long_enough() {
    let board = board(10);
    let mut held = held(&["dba"]);
    held.submitted = NOW;
    held.rule.groups[0].escalation = Some(Escalation { group: "leads".into(), after: Duration::from_secs(30) });
    let ticket = board.submit(held, MINUTE).unwrap();
    let lead = reviewer("a/lee", &["leads"]);
    let early = board.approve(ticket.id(), &lead, Word::default(), NOW.after(Duration::from_secs(29))).unwrap_err();
    assert!(matches!(early, Refused::NotReviewer { .. }), "{early}");
    let late = NOW.after(Duration::from_secs(30));
    let stranger = board.approve(ticket.id(), &reviewer("a/sue", &["sales"]), Word::default(), late).unwrap_err();
    assert!(matches!(stranger, Refused::NotReviewer { .. }), "{stranger}");
    assert!(board.approve(ticket.id(), &lead, Word::default(), late).unwrap().approved);
}

#[tokio::test]
async fn the_shorter_of_both_waits_counts() {
    let board = board(10);
    let mut held = held(&["dba"]);
    held.rule.expires = Some(Duration::from_millis(20));
    let ticket = board.submit(held.clone(), MINUTE).unwrap();
    assert_eq!(ticket.expires(), Timestamp::from_seconds(100).after(Duration::from_millis(20)));
    assert_eq!(ticket.outcome().await.step(), ApprovalStep::Expired);
    held.rule.expires = Some(MINUTE * 10);
    assert_eq!(board.submit(held, MINUTE).unwrap().expires(), Timestamp::from_seconds(160));
}

#[tokio::test]
async fn nobody_decides_on_what_they_answer_for_under_any_of_their_names() {
    let board = board(10);
    let ann = reviewer("a/ann", &["dba"]);
    for (claim, names) in [
        ("sponsor", "ann@example.com"),
        ("sponsors", "bob@example.com, ann@example.com"),
        ("owner", "ann"),
        ("owners", "x ann"),
        ("created_by", "a/ann"),
    ] {
        let mut held = held(&["dba"]);
        Arc::make_mut(&mut held.principal).claims.insert(claim.into(), names.into());
        let ticket = board.submit(held, MINUTE).unwrap();
        let refused = board.approve(ticket.id(), &ann, Word::default(), NOW).unwrap_err();
        assert_eq!(refused, Refused::Sponsor { by: "a/ann".into(), principal: "dev/ci".into(), claim }, "{names}");
        assert_eq!(board.deny(ticket.id(), &ann, Word::default(), NOW).unwrap_err(), refused);
        assert!(
            board.approve(ticket.id(), &reviewer("a/annabel", &["dba"]), Word::default(), NOW).unwrap().approved,
            "not a part of a name"
        );
    }
    // The same person, asking under another identity.
    let mut held = held(&["dba"]);
    Arc::make_mut(&mut held.principal).aliases = vec!["ann@example.com".into()];
    let ticket = board.submit(held, MINUTE).unwrap();
    assert_eq!(board.approve(ticket.id(), &ann, Word::default(), NOW), Err(Refused::Own("dev/ci".into())));
}

type Change = fn(&mut HeldRequest);

/// Held, where policy allows every width; `change` makes it another.
fn wide_held(change: impl FnOnce(&mut HeldRequest)) -> HeldRequest {
    let mut held = held(&["dba"]);
    held.rule.widths = Widths { session: true, window: Some(MINUTE) };
    change(&mut held);
    held
}

/// Approves a held request for `width`.
fn approved(board: &Arc<ApprovalBoard>, held: HeldRequest, width: Width) -> ApprovalId {
    let ticket = board.submit(held, MINUTE).unwrap();
    assert!(board.approve(ticket.id(), &reviewer("a/ann", &["dba"]), wide(width), NOW).unwrap().approved);
    ticket.id()
}

#[tokio::test]
async fn an_approval_for_the_session_covers_the_same_shape_in_that_session() {
    let board = board(10);
    let id =
        approved(&board, wide_held(|held| held.statement = Bytes::from_static(b"DELETE FROM t WHERE id = 1")), Width::Session);
    let same = |change: Change| {
        wide_held(|held| {
            held.statement = Bytes::from_static(b"DELETE FROM t WHERE id = 2");
            change(held);
        })
    };
    let outcome = board.covered(&same(|_| ())).expect("it is covered");
    assert_eq!(outcome.reason(), Some(format!("under approval {id} (session)")));
    let others: [(&str, Change); 8] = [
        ("another shape", |held| held.statement = Bytes::from_static(b"DELETE FROM t WHERE id > 2")),
        ("no statement", |held| held.statement = Bytes::from_static(b"DELETE FROM t WHERE name = 'x")),
        ("another session", |held| held.session = SessionId([8; 16])),
        ("another principal", |held| Arc::make_mut(&mut held.principal).subject = "cd".into()),
        ("another database", |held| Arc::make_mut(&mut held.target).database = "other".into()),
        ("another login", |held| Arc::make_mut(&mut held.target).upstream_user = "other".into()),
        ("another policy set", |held| held.policy_version = "v2".into()),
        ("another policy that asks", |held| held.rule.policies.push("more".into())),
    ];
    for (what, change) in others {
        assert!(board.covered(&same(change)).is_none(), "{what}");
    }
    // The same text, which means another table by now.
    let moved = same(|held| {
        let object = proxy_core::Object { kind: proxy_core::ObjectKind::Table, path: vec!["other".into(), "t".into()] };
        let operation = proxy_core::Operation { action: "delete".into(), object, has_where: Some(true) };
        Arc::make_mut(&mut held.facts).operations.push(operation);
    });
    assert!(board.covered(&moved).is_none());
    board.session_ended(SessionId([8; 16]));
    assert_eq!(board.standing().len(), 1);
    board.session_ended(SessionId([7; 16]));
    assert!(board.covered(&same(|_| ())).is_none() && board.standing().is_empty());
}

#[tokio::test]
async fn an_approval_for_a_time_covers_what_the_same_policies_hold_until_it_is_over_or_taken_back() {
    let board = board(10);
    let other = || {
        wide_held(|held| {
            (held.session, held.statement) = (SessionId([8; 16]), Bytes::from_static(b"DELETE FROM u"));
        })
    };
    let id = approved(&board, wide_held(|_| ()), Width::Window(MINUTE));
    assert_eq!(board.standing()[0].until, Some(NOW.after(MINUTE)));
    assert!(board.covered(&other()).is_some());
    assert!(board.covered(&wide_held(|held| held.rule.policies.push("more".into()))).is_none());
    board.session_ended(SessionId([7; 16]));
    assert!(board.covered(&other()).is_some(), "it is for the principal, not for a session");
    board.revoke(id).unwrap();
    assert!(board.covered(&other()).is_none());
    assert_eq!(board.revoke(id), Err(Refused::NotStanding(id)));
    approved(&board, wide_held(|_| ()), Width::Window(Duration::from_millis(5)));
    std::thread::sleep(Duration::from_millis(10));
    assert!(board.covered(&other()).is_none() && board.standing().is_empty());
}

#[tokio::test]
async fn no_approval_is_wider_than_policy_and_all_its_reviewers_allow() {
    let board = board(10);
    let ann = reviewer("a/ann", &["dba"]);
    let ticket = submit(&board, &["dba"]);
    for width in [Width::Session, Width::Window(Duration::from_secs(1))] {
        let refused = board.approve(ticket.id(), &ann, wide(width), NOW).unwrap_err();
        assert_eq!(refused, Refused::Width { asked: width, allowed: "once".into() });
        assert_eq!(board.may_decide(ticket.id(), &ann, width, NOW).unwrap_err(), refused);
    }
    let ticket = board.submit(wide_held(|_| ()), MINUTE).unwrap();
    let too_long = board.approve(ticket.id(), &ann, wide(Width::Window(MINUTE * 2)), NOW).unwrap_err();
    assert_eq!(too_long.to_string(), "the policies allow no approval for 2m: once, session, a time up to 1m");
    let second = Duration::from_secs(1);
    for (one, other, both) in [
        (Width::Session, Width::Session, Width::Session),
        (Width::Session, Width::Once, Width::Once),
        (Width::Session, Width::Window(MINUTE), Width::Once),
        (Width::Window(MINUTE), Width::Window(second), Width::Window(second)),
    ] {
        let ticket = board.submit(wide_held(|held| held.rule.groups[0].quorum = 2), MINUTE).unwrap();
        board.approve(ticket.id(), &ann, wide(one), NOW).unwrap();
        board.approve(ticket.id(), &reviewer("a/bob", &["dba"]), wide(other), NOW).unwrap();
        let found = board.standing();
        assert_eq!(found.first().map_or(Width::Once, |standing| standing.width), both, "{one} and {other}");
        found.iter().for_each(|standing| board.revoke(standing.id).unwrap());
    }
}

#[tokio::test]
async fn a_standing_approval_ends_with_the_right_of_one_who_gave_it() {
    let gone = Arc::new(Mutex::new(false));
    let board = ApprovalBoard::new(10, {
        let gone = Arc::clone(&gone);
        Box::new(move |_| !*gone.lock())
    });
    approved(&board, wide_held(|_| ()), Width::Window(MINUTE));
    assert!(board.covered(&wide_held(|_| ())).is_some());
    *gone.lock() = true;
    assert!(board.covered(&wide_held(|_| ())).is_none());
}
