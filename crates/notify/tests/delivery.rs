//! Attempts, order, restarts, and what is given up.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Names, Receiver, Reply, STATEMENT, denied, notice, notice_of, quick, rig, rig_with, spooled, webhook};
use notify::{DeadLetters, Delivery, FileDeadLetters, Filter, Kind, Redelivered, SendError, What};
use proxy_core::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn is_dead(what: &What) -> bool {
    matches!(what, What::Dead { .. })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).map(|list| list.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

fn requests(receiver: &Receiver) -> Vec<String> {
    let name = |got: &common::Got| {
        let json = got.json();
        format!("{} {}", json["data"]["request"].as_str().unwrap(), json["type"].as_str().unwrap().split('.').nth(1).unwrap())
    };
    receiver.got().iter().map(name).collect()
}

#[tokio::test]
async fn a_receiver_that_fails_is_asked_again() {
    let receiver = Receiver::start([Reply::Status(500), Reply::Status(503)]).await;
    let rig = rig(vec![webhook(&receiver)]);
    rig.notifier.notify(&notice());
    let sent = rig.log.wait_for(|what| matches!(what, What::Sent { .. })).await;
    assert_eq!((sent.what, sent.kind, sent.request.as_str()), (What::Sent { attempts: 3 }, Kind::ApprovalRequested, "7k2m9x"));
    let all = rig.log.all();
    assert!(matches!(&all[0].what, What::Retried { attempts: 1, error: SendError::Status { status: 500, .. }, .. }));
    assert_eq!(receiver.got().len(), 3);
}

#[tokio::test]
async fn what_cannot_succeed_is_not_tried_again() {
    for status in [400, 401, 404, 410, 301, 307] {
        let receiver = Receiver::start([Reply::Header(status, "location", "/elsewhere".into())]).await;
        let rig = rig(vec![webhook(&receiver)]);
        rig.notifier.notify(&notice());
        let dead = rig.log.wait_for(is_dead).await;
        let What::Dead { attempts, error, kept, .. } = dead.what else { unreachable!() };
        assert_eq!((attempts, kept), (1, true));
        assert_eq!(error, SendError::Status { status, retry_after: None });
        assert_eq!(receiver.got().len(), 1, "a redirect is not followed");
        assert_eq!(rig.graves.0.lock()[0].error, format!("it answered with status {status}"));
    }
}

#[tokio::test]
async fn retry_after_holds_back_the_whole_channel() {
    let receiver = Receiver::start([Reply::Header(429, "retry-after", "1".into())]).await;
    let rig = rig(vec![webhook(&receiver)]);
    rig.notifier.notify(&notice());
    receiver.wait_for(1).await;
    rig.notifier.notify(&notice_of(Kind::ApprovalRequested, "other1"));
    let got = receiver.wait_for(3).await;
    for later in &got[1..] {
        assert!(later.at - got[0].at >= Duration::from_millis(990), "{:?}", later.at - got[0].at);
    }
    let retried = rig.log.wait_for(|what| matches!(what, What::Retried { .. })).await;
    assert!(matches!(retried.what, What::Retried { wait, .. } if wait >= Duration::from_secs(1)));
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_the_time_limit_and_nobody_waits_for_it() {
    let receiver = Receiver::start([Reply::Hang, Reply::Hang, Reply::Hang, Reply::Hang]).await;
    let rig = rig(vec![webhook(&receiver)]);
    let start = Instant::now();
    for n in 0..500 {
        rig.notifier.notify(&notice_of(Kind::ApprovalRequested, &format!("r{n}")));
    }
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    let retried = rig.log.wait_for(|what| matches!(what, What::Retried { .. })).await;
    assert!(matches!(retried.what, What::Retried { error: SendError::TimedOut, .. }));
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read() {
    let receiver = Receiver::start([Reply::Endless]).await;
    let rig = rig(vec![webhook(&receiver)]);
    rig.notifier.notify(&notice());
    assert_eq!(rig.log.wait_for(|_| true).await.what, What::Sent { attempts: 1 });
    let long = Receiver::start([Reply::Header(200, "x-long", "x".repeat(200 << 10))]).await;
    let rig = common::rig(vec![webhook(&long)]);
    rig.notifier.notify(&notice());
    assert!(matches!(rig.log.wait_for(|_| true).await.what, What::Retried { .. }), "nor are endless headers");
}

#[tokio::test]
async fn after_the_last_attempt_it_is_a_dead_letter() {
    let receiver = Receiver::start(vec![Reply::Status(500); 9]).await;
    let rig = rig(vec![webhook(&receiver)]);
    rig.notifier.notify(&notice());
    let dead = rig.log.wait_for(is_dead).await;
    assert!(matches!(dead.what, What::Dead { attempts: 4, kept: true, .. }));
    let letter = rig.graves.0.lock()[0].clone();
    assert_eq!((letter.channel.as_str(), letter.attempts, letter.notice.request.as_str()), ("hook", 4, "7k2m9x"));
    assert_eq!(letter.notice.statement, None, "the channel is not configured to have it");
    assert_eq!(receiver.got().len(), 4);
}

#[tokio::test]
async fn what_is_told_of_one_request_arrives_in_order_and_others_overtake() {
    let receiver = Receiver::start([Reply::Status(500), Reply::Status(200), Reply::Status(500)]).await;
    let rig = rig(vec![webhook(&receiver)]);
    rig.notifier.notify(&notice_of(Kind::ApprovalRequested, "a"));
    rig.notifier.notify(&denied("a"));
    rig.notifier.notify(&notice_of(Kind::ApprovalRequested, "b"));
    rig.log.wait_for_sent(3).await;
    let got = requests(&receiver);
    assert_eq!(got[0..2], ["a requested", "b requested"], "b does not wait for a");
    assert_eq!(got[2..], ["a requested", "a requested", "a denied"], "and a's denial waits for a's request");
}

#[tokio::test]
async fn one_channel_does_not_hold_back_another() {
    let (slow, quick) = (Receiver::start(vec![Reply::Hang; 9]).await, Receiver::start([]).await);
    let mut other = webhook(&quick);
    other.name = "other".into();
    let rig = rig(vec![webhook(&slow), other]);
    rig.notifier.notify(&notice());
    let sent = rig.log.wait_for(|what| matches!(what, What::Sent { .. })).await;
    assert_eq!(&*sent.channel, "other");
    assert!(slow.got().len() <= 1);
}

#[tokio::test]
async fn a_channel_gets_what_its_filter_admits() {
    let receiver = Receiver::start([]).await;
    let mut config = webhook(&receiver);
    config.filter = Filter { kinds: vec![Kind::ApprovalDenied], groups: vec!["lead".into()], connections: vec!["shop".into()] };
    let rig = rig(vec![config]);
    rig.notifier.notify(&notice());
    rig.notifier.notify(&notify::Notice { connection: "other".into(), ..denied("a") });
    rig.notifier.notify(&notify::Notice { groups: vec![notify::Group { name: "dba".into(), missing: 0 }], ..denied("b") });
    rig.notifier.notify(&denied("c"));
    rig.log.wait_for_sent(1).await;
    assert_eq!(requests(&receiver), ["c denied"]);
}

#[tokio::test]
async fn a_full_queue_gives_up_the_new_and_says_so() {
    let receiver = Receiver::start(vec![Reply::Hang; 99]).await;
    let rig = rig_with(vec![webhook(&receiver)], Names::none(), |setup| {
        setup.delivery = Delivery { pending_max: 5, send_timeout: Duration::from_secs(9), ..quick() };
    });
    for n in 0..20 {
        rig.notifier.notify(&notice_of(Kind::ApprovalRequested, &format!("r{n}")));
    }
    // On one thread nothing was taken in yet: five fit into the queue.
    assert_eq!(rig.log.all().iter().filter(|event| event.what == What::Dropped).count(), 15);
    receiver.wait_for(1).await;
    rig.notifier.notify(&notice_of(Kind::ApprovalRequested, "late"));
    let dead = rig.log.wait_for(is_dead).await;
    assert_eq!(dead.request, "late");
    assert!(matches!(dead.what, What::Dead { attempts: 0, error: SendError::QueueFull, kept: true, .. }));
}

#[tokio::test]
async fn undelivered_notices_survive_a_restart_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let down = Receiver::start(vec![Reply::Status(503); 99]).await;
    let rig = rig_with(vec![webhook(&down)], Names::none(), |setup| {
        setup.spool = Some(folder.path().to_owned());
        setup.delivery.attempts_max = 1_000;
        setup.delivery.retry_first = Duration::from_secs(60);
        setup.delivery.retry_max = Duration::from_secs(60);
    });
    for n in 0..20 {
        rig.notifier.notify(&notice_of(Kind::ApprovalRequested, &format!("r{n:02}")));
        rig.notifier.notify(&denied(&format!("r{n:02}")));
    }
    rig.notifier.close().await;
    let spool = files(&folder.path().join("hook"));
    assert_eq!(spool.len(), 40);
    for file in &spool {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(file).unwrap().contains(STATEMENT), "not on the disk either");
    }
    let up = Receiver::start([]).await;
    let rig = spooled(vec![webhook(&up)], folder.path());
    rig.notifier.notify(&notice_of(Kind::ApprovalRequested, "later"));
    rig.log.wait_for_sent(41).await;
    let mut expected: Vec<_> = (0..20).flat_map(|n| [format!("r{n:02} requested"), format!("r{n:02} denied")]).collect();
    expected.push("later requested".to_owned());
    assert_eq!(requests(&up), expected);
    rig.notifier.close().await;
    assert_eq!(files(&folder.path().join("hook")), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_notice_is_on_the_disk_while_it_is_being_sent() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start([Reply::Hang]).await;
    let rig = spooled(vec![webhook(&receiver)], folder.path());
    rig.notifier.notify(&notice());
    receiver.wait_for(1).await;
    assert_eq!(files(&folder.path().join("hook")).len(), 1, "a crash now would not lose it");
}

#[tokio::test]
async fn what_is_too_old_is_not_delivered_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(vec![Reply::Hang; 9]).await;
    let rig = spooled(vec![webhook(&receiver)], folder.path());
    rig.notifier.notify(&notice());
    receiver.wait_for(1).await;
    drop(rig);
    let up = Receiver::start([]).await;
    let rig = rig_with(vec![webhook(&up)], Names::none(), |setup| {
        setup.spool = Some(folder.path().to_owned());
        setup.clock = || Timestamp::from_seconds(common::NOW + 90_000);
    });
    let dead = rig.log.wait_for(is_dead).await;
    assert!(matches!(dead.what, What::Dead { error: SendError::TooOld, .. }));
    rig.notifier.close().await;
    assert!(up.got().is_empty() && files(&folder.path().join("hook")).is_empty());
}

#[tokio::test]
async fn dead_letters_can_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let dead = Arc::new(FileDeadLetters::open(folder.path(), 1 << 20).unwrap());
    let receiver = Receiver::start(vec![Reply::Status(404); 3]).await;
    let rig = rig_with(vec![webhook(&receiver)], Names::none(), |setup| setup.dead = dead.clone());
    for request in ["a", "b", "c"] {
        rig.notifier.notify(&notice_of(Kind::ApprovalRequested, request));
    }
    common::until("three letters", || Some(dead.list().unwrap()).filter(|list| list.len() == 3)).await;
    let mut stray = dead.list().unwrap()[0].clone();
    stray.channel = "gone".into();
    dead.bury(&stray).unwrap();
    let outcome = rig.notifier.redeliver(Arc::clone(&dead), |letter| letter.notice.request != "b").await.unwrap();
    assert_eq!(outcome, Redelivered { queued: 2, no_channel: 1, full: 0 });
    rig.log.wait_for_sent(2).await;
    assert_eq!(requests(&receiver)[3..], ["a requested", "c requested"]);
    assert_eq!(receiver.got()[0].headers["webhook-id"], receiver.got()[3].headers["webhook-id"], "the receiver can tell");
    let left: Vec<_> = dead.list().unwrap().iter().map(notify::DeadLetter::id).collect();
    assert_eq!(left.len(), 2);
    assert!(left[0].starts_with("hook/msg_") && left[1].starts_with("gone/msg_"));
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_kept_stays_in_the_spool() {
    struct Full;
    impl DeadLetters for Full {
        fn bury(&self, _: &notify::DeadLetter) -> Result<u64, notify::DeadLetterError> {
            Err(notify::DeadLetterError { path: PathBuf::new(), kind: std::io::ErrorKind::StorageFull })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start([Reply::Status(404)]).await;
    let rig = rig_with(vec![webhook(&receiver)], Names::none(), |setup| {
        setup.spool = Some(folder.path().to_owned());
        setup.dead = Arc::new(Full);
    });
    rig.notifier.notify(&notice());
    assert!(matches!(rig.log.wait_for(is_dead).await.what, What::Dead { kept: false, .. }));
    rig.notifier.close().await;
    assert_eq!(files(&folder.path().join("hook")).len(), 1);
}
