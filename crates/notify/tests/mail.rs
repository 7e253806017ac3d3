//! E-mail, as a server gets it.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::smtp::{Options, Server, Session};
use common::{Names, Rig, STATEMENT, denied, hostile, notice, rig_with};
use notify::email::{EmailConfig, EmailTls};
use notify::{ChannelConfig, Destination, Reach, Secret, SendError, What};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn config(server: &Server, tls: EmailTls) -> EmailConfig {
    EmailConfig {
        host: "mail.example".into(),
        port: server.address.port(),
        tls,
        hello: "gate.example".into(),
        login: None,
        from: "Sallyport <sallyport@example.com>".into(),
        to: vec!["Ops <ops@example.com>".into(), "dba@example.com".into()],
    }
}

fn rig(config: EmailConfig, statement: bool, ca: Option<PathBuf>) -> Rig {
    let names = Names(vec![("mail.example", vec!["127.0.0.1".parse().unwrap()])]);
    let reach = Reach { loopback: true, private: false };
    let channel = ChannelConfig { reach, statement, ca, ..ChannelConfig::new("mail", Destination::Email(config)) };
    rig_with(vec![channel], names, |_| {})
}

async fn plain(statement: bool, notices: &[notify::Notice]) -> Vec<Session> {
    let server = Server::start(Options::default()).await;
    let rig = rig(config(&server, EmailTls::None), statement, None);
    notices.iter().for_each(|notice| rig.notifier.notify(notice));
    rig.log.wait_for_sent(notices.len()).await;
    server.wait_for(notices.len()).await
}

/// The header of that name, unfolded. There must be one.
fn header(message: &str, name: &str) -> String {
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    let head = head.replace("\r\n ", " ");
    let prefix = format!("{name}: ");
    let values: Vec<_> = head.split("\r\n").filter_map(|line| line.strip_prefix(&prefix)).collect();
    assert_eq!(values.len(), 1, "{name} in {head}");
    values[0].to_owned()
}

/// The parts of a message of two, decoded.
fn parts(message: &str) -> Vec<(String, String)> {
    let content = header(message, "Content-Type");
    assert!(content.starts_with("multipart/alternative"), "{content}");
    let boundary = content.split("boundary=").nth(1).unwrap().trim_matches('"').to_owned();
    let pieces: Vec<_> = message.split(&format!("--{boundary}")).collect();
    assert_eq!(pieces.len(), 4, "two parts, what is before and what is after");
    pieces[1..3].iter().map(|piece| decode(piece.trim_start_matches("\r\n"))).collect()
}

fn decode(part: &str) -> (String, String) {
    let body = part.split_once("\r\n\r\n").unwrap().1.trim_end_matches("\r\n");
    let text = match header(part, "Content-Transfer-Encoding").as_str() {
        "base64" => String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap(),
        "quoted-printable" => unquote(body),
        "7bit" => body.to_owned(),
        other => panic!("{other}"),
    };
    (header(part, "Content-Type"), text.replace("\r\n", "\n"))
}

fn unquote(text: &str) -> String {
    let (text, mut out) = (text.replace("=\r\n", ""), Vec::new());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

fn verbs(session: &Session) -> Vec<(bool, &str)> {
    session.commands.iter().map(|(tls, line)| (*tls, line.split([' ', ':']).next().unwrap())).collect()
}

#[tokio::test]
async fn a_message_has_text_and_html_and_answers_nobody() {
    let session = plain(false, &[notice()]).await.remove(0);
    let message = session.message.unwrap();
    assert_eq!(header(&message, "From"), "Sallyport <sallyport@example.com>");
    assert_eq!(header(&message, "To"), "Ops <ops@example.com>, dba@example.com");
    assert_eq!(header(&message, "Subject"), "[sallyport] Approval requested: 7k2m9x on shop");
    assert_eq!(header(&message, "Auto-Submitted"), "auto-generated");
    assert_eq!(header(&message, "Date"), "Sat, 28 Nov 2026 10:00:00 +0000");
    let parts = parts(&message);
    assert!(parts[0].0.starts_with("text/plain") && parts[1].0.starts_with("text/html"));
    for (_, text) in &parts {
        for fact in ["ci-deployer", "keeper (2 missing)", "https://gate.example/approvals/7k2m9x", "carries no authority"] {
            assert!(text.contains(fact), "{fact} in {text}");
        }
        assert!(!text.contains(STATEMENT));
    }
    assert!(parts[1].1.contains("<a href=\"https://gate.example/approvals/7k2m9x\">Review</a>"));
    let commands: Vec<_> = session.commands.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(commands[0], "EHLO gate.example");
    assert!(commands.contains(&"RCPT TO:<ops@example.com>") && commands.contains(&"RCPT TO:<dba@example.com>"), "{commands:?}");
}

#[tokio::test]
async fn a_decision_appears_beneath_its_request() {
    let sessions = plain(true, &[notice(), denied("7k2m9x"), denied("7k2m9x"), notice_of_other()]).await;
    let messages: Vec<_> = sessions.iter().map(|session| session.message.clone().unwrap()).collect();
    let first = header(&messages[0], "Message-ID");
    assert!(first.starts_with('<') && first.ends_with("@example.com>"));
    assert_eq!(header(&messages[1], "References"), first);
    assert_eq!(header(&messages[1], "In-Reply-To"), first);
    assert_ne!(header(&messages[1], "Message-ID"), first);
    assert_eq!(header(&messages[1], "Message-ID"), header(&messages[2], "Message-ID"), "told twice, it is one message");
    assert_ne!(header(&messages[3], "Message-ID"), first);
    assert!(parts(&messages[0])[0].1.contains(&format!("    {STATEMENT}\n")), "configured");
    assert!(parts(&messages[1])[0].1.contains("Decided by: bob@example.com"));
}

#[tokio::test]
async fn two_uses_of_break_glass_are_two_messages_of_one_conversation() {
    let used = common::notice_of(notify::Kind::BreakGlassUsed, "s1");
    let again = notify::Notice { time: proxy_core::Timestamp(used.time.0 + 1), ..used.clone() };
    let sessions = plain(false, &[used, again]).await;
    let messages: Vec<_> = sessions.iter().map(|session| session.message.clone().unwrap()).collect();
    assert_ne!(header(&messages[0], "Message-ID"), header(&messages[1], "Message-ID"));
    assert_eq!(header(&messages[0], "References"), header(&messages[1], "References"));
}

fn notice_of_other() -> notify::Notice {
    common::notice_of(notify::Kind::ApprovalRequested, "other1")
}

#[tokio::test]
async fn no_header_and_no_command_can_be_injected() {
    let session = plain(true, &[hostile()]).await.remove(0);
    let mut expected = vec![(false, "EHLO"), (false, "MAIL"), (false, "RCPT"), (false, "RCPT"), (false, "DATA"), (false, "QUIT")];
    expected.dedup_by(|a, b| a.1 == b.1 && a.1 != "RCPT");
    assert_eq!(verbs(&session), expected);
    let message = session.message.unwrap();
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_ascii_lowercase().lines().any(|line| line.starts_with("bcc")), "{head}");
    assert!(header(&message, "Subject").len() < 2_000);
    let parts = parts(&message);
    assert!(parts[0].1.contains("    Bcc: eve@evil.example\n"), "the statement's lines are indented");
    for line in parts[0].1.lines().filter(|line| line.contains("evil")) {
        assert!(line.starts_with("    ") || line.contains(": ") || line.starts_with("Approval requested"), "{line}");
    }
    assert!(!parts[1].1.contains("<script") && !parts[1].1.contains("<at>") && parts[1].1.contains("&lt;script&gt;"));
    assert!(!message.bytes().any(|byte| byte == 0));
}

#[tokio::test]
async fn starttls_comes_before_anything_else_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, ca) = common::tls::acceptor("mail.example", folder.path());
    let server = Server::start(Options { tls: Some(acceptor), starttls: true, ..Options::default() }).await;
    let login = Some(("gate".to_owned(), Secret::new("hunter2")));
    let rig = rig(EmailConfig { login, ..config(&server, EmailTls::StartTls) }, false, Some(ca));
    rig.notifier.notify(&notice());
    rig.log.wait_for_sent(1).await;
    let session = server.wait_for(1).await.remove(0);
    let verbs = verbs(&session);
    assert_eq!(verbs[..4], [(false, "EHLO"), (false, "STARTTLS"), (true, "EHLO"), (true, "AUTH")]);
    assert!(verbs[2..].iter().all(|(tls, _)| *tls) && session.message.is_some());
    assert_eq!(session.commands[3].1, format!("AUTH PLAIN {}", STANDARD.encode("\0gate\0hunter2")));
}

#[tokio::test]
async fn tls_from_the_start_works_and_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, ca) = common::tls::acceptor("mail.example", folder.path());
    let server = Server::start(Options { tls: Some(acceptor), implicit: true, ..Options::default() }).await;
    let trusting = rig(config(&server, EmailTls::Implicit), false, Some(ca));
    trusting.notifier.notify(&notice());
    trusting.log.wait_for_sent(1).await;
    assert!(server.wait_for(1).await[0].commands.iter().all(|(tls, _)| *tls));
    let strict = rig(config(&server, EmailTls::Implicit), false, None);
    strict.notifier.notify(&notice());
    let retried = strict.log.wait_for(|_| true).await;
    assert!(matches!(retried.what, What::Retried { error: SendError::Tls(_), .. }));
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let server = Server::start(Options::default()).await;
    let rig = rig(config(&server, EmailTls::StartTls), false, None);
    rig.notifier.notify(&notice());
    let retried = rig.log.wait_for(|_| true).await;
    assert!(matches!(retried.what, What::Retried { error: SendError::NoStartTls, .. }));
    let session = server.wait_for(1).await.remove(0);
    assert_eq!(verbs(&session), [(false, "EHLO")]);
}

#[tokio::test]
async fn what_is_said_before_tls_is_not_heard_within_it() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, ca) = common::tls::acceptor("mail.example", folder.path());
    let options =
        Options { tls: Some(acceptor), starttls: true, injected: "250-evil\r\n250 AUTH LOGIN\r\n", ..Options::default() };
    let server = Server::start(options).await;
    let rig = rig(config(&server, EmailTls::StartTls), false, Some(ca));
    rig.notifier.notify(&notice());
    // The injected bytes are where TLS should be: the handshake fails.
    let retried = rig.log.wait_for(|_| true).await;
    assert!(matches!(retried.what, What::Retried { error: SendError::Tls(_), .. }), "{retried:?}");
    assert!(server.wait_for(1).await.iter().all(|session| session.message.is_none()));
}

#[tokio::test]
async fn a_temporary_refusal_is_tried_again_and_a_final_one_is_not() {
    let options = Options::default();
    options.rcpt.lock().push("451 greylisted, hunter2\r\n");
    let server = Server::start(options.clone()).await;
    let rig = rig(config(&server, EmailTls::None), false, None);
    rig.notifier.notify(&notice());
    let sent = rig.log.wait_for(|what| matches!(what, What::Sent { .. })).await;
    assert_eq!(sent.what, What::Sent { attempts: 2 });
    assert!(matches!(rig.log.all()[0].what, What::Retried { error: SendError::Smtp(451), .. }));
    options.rcpt.lock().push("550 no such user\r\n");
    rig.notifier.notify(&denied("7k2m9x"));
    let dead = rig.log.wait_for(|what| matches!(what, What::Dead { .. })).await;
    assert!(matches!(dead.what, What::Dead { error: SendError::Smtp(550), attempts: 1, .. }));
}

#[tokio::test]
async fn an_endless_greeting_is_cut_off() {
    for tls in [EmailTls::None, EmailTls::StartTls] {
        for greeting in ["220-x\r\n".repeat(1 << 16), "2".repeat(1 << 20)] {
            let server = Server::start(Options { greeting: Some(greeting), ..Options::default() }).await;
            let rig = rig(config(&server, tls), false, None);
            rig.notifier.notify(&notice());
            let start = Instant::now();
            let retried = rig.log.wait_for(|_| true).await;
            assert!(start.elapsed() < Duration::from_secs(2), "it is not read either: {:?}", start.elapsed());
            let What::Retried { error, .. } = &retried.what else { panic!("{retried:?}") };
            assert!(matches!(error, SendError::Protocol | SendError::Unreachable(_)), "{error:?}");
        }
    }
}
