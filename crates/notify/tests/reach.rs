//! Where messages may go, and that secrets stay where they are.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Names, Receiver, Reply, SECRET, notice, rig_with, try_rig, webhook};
use notify::email::{EmailConfig, EmailTls};
use notify::guard::AddressClass;
use notify::slack::{SlackConfig, SlackDestination};
use notify::teams::TeamsConfig;
use notify::webhook::WebhookConfig;
use notify::{ChannelConfig, ConfigError, Destination, Reach, Secret, SendError, StartError, What};
use std::net::IpAddr;

fn hook(url: &str, reach: Reach) -> ChannelConfig {
    let config = WebhookConfig { url: Secret::new(url), secrets: vec![Secret::new(SECRET)] };
    ChannelConfig { reach, ..ChannelConfig::new("hook", Destination::Webhook(config)) }
}

async fn dead(config: ChannelConfig, names: Names) -> SendError {
    let rig = rig_with(vec![config], names, |_| {});
    rig.notifier.notify(&notice());
    match rig.log.wait_for(|_| true).await.what {
        What::Dead { error, .. } => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_is_refused_for_where_it_leads() {
    let receiver = Receiver::start([]).await;
    let port = receiver.port();
    for (address, class) in [
        ("127.0.0.1", AddressClass::Loopback),
        ("::ffff:127.0.0.1", AddressClass::Loopback),
        ("10.0.0.1", AddressClass::Private),
        ("192.168.1.1", AddressClass::Private),
        ("fd00::1", AddressClass::Private),
        ("64:ff9b::a00:1", AddressClass::Private),
        ("169.254.169.254", AddressClass::Metadata),
        ("fe80::1", AddressClass::LinkLocal),
        ("0.0.0.0", AddressClass::Reserved),
    ] {
        let names = || Names(vec![("hooks.example", vec![address.parse().unwrap()])]);
        let config = hook(&format!("https://hooks.example:{port}/x"), Reach::default());
        assert_eq!(dead(config, names()).await, SendError::Address(class), "{address}");
        let email = EmailConfig {
            host: "hooks.example".into(),
            port,
            tls: EmailTls::StartTls,
            hello: "gate.example".into(),
            login: None,
            from: "gate@example.com".into(),
            to: vec!["ops@example.com".into()],
        };
        let config = ChannelConfig::new("mail", Destination::Email(email));
        assert_eq!(dead(config, names()).await, SendError::Address(class), "{address} by SMTP");
        // The address itself, without a name.
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let config = hook(&format!("https://{host}:{port}/x"), Reach::default());
        assert_eq!(dead(config, Names::none()).await, SendError::Address(class), "{host}");
    }
    assert!(receiver.got().is_empty());
}

#[tokio::test]
async fn a_name_with_one_forbidden_address_is_refused_as_a_whole() {
    let addresses: Vec<IpAddr> = ["93.184.215.14", "169.254.169.254"].map(|ip| ip.parse().unwrap()).to_vec();
    let names = Names(vec![("hooks.example", addresses)]);
    let all = Reach { private: true, loopback: true };
    assert_eq!(dead(hook("https://hooks.example/", all), names).await, SendError::Address(AddressClass::Metadata));
}

#[tokio::test]
async fn without_tls_messages_go_to_this_host_alone() {
    // The flag lets the address pass, and the name leads elsewhere.
    let names = Names(vec![("localhost", vec!["10.0.0.1".parse().unwrap()])]);
    let all = Reach { private: true, loopback: true };
    assert!(matches!(dead(hook("http://localhost:9/", all), names).await, SendError::Address(_)));
    let refused = |config| match try_rig(vec![config], Names::none(), |_| {}) {
        Err(StartError::Channel { why, .. }) => why,
        other => panic!("{:?}", other.is_ok()),
    };
    assert_eq!(refused(hook("http://127.0.0.1:9/", Reach::default())), ConfigError::Url);
    let receiver = Receiver::start([]).await;
    assert_eq!(refused(ChannelConfig { reach: Reach::default(), ..webhook(&receiver) }), ConfigError::Url);
}

#[tokio::test]
async fn tls_is_checked_against_the_name_and_the_configured_ca() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, ca) = common::tls::acceptor("hooks.example", folder.path());
    let receiver = Receiver::start_tls(acceptor).await;
    let names = || {
        let here = vec!["127.0.0.1".parse().unwrap()];
        Names(vec![("hooks.example", here.clone()), ("other.example", here)])
    };
    let local = Reach { loopback: true, private: false };
    let config = |host: &str, ca| ChannelConfig { ca, ..hook(&format!("https://{host}:{}/x", receiver.port()), local) };
    let good = rig_with(vec![config("hooks.example", Some(ca.clone()))], names(), |_| {});
    good.notifier.notify(&notice());
    assert_eq!(good.log.wait_for(|_| true).await.what, What::Sent { attempts: 1 });
    let host = receiver.got()[0].headers["host"].to_str().unwrap().to_owned();
    assert_eq!(host, format!("hooks.example:{}", receiver.port()));
    for bad in [config("other.example", Some(ca)), config("hooks.example", None)] {
        let rig = rig_with(vec![bad], names(), |_| {});
        rig.notifier.notify(&notice());
        let what = rig.log.wait_for(|_| true).await.what;
        assert!(matches!(&what, What::Retried { error: SendError::Tls(_), .. }), "{what:?}");
    }
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_at_the_start() {
    let refused = |channels: Vec<ChannelConfig>| match try_rig(channels, Names::none(), |_| {}) {
        Err(StartError::Channel { why, .. }) => why,
        _ => panic!("it started"),
    };
    let good = || hook("https://hooks.example/", Reach::default());
    for name in ["", "../x", "Ops", "a b", &"x".repeat(65)] {
        assert!(matches!(refused(vec![ChannelConfig { name: name.into(), ..good() }]), ConfigError::Name(_)), "{name}");
    }
    assert_eq!(refused(vec![good(), good()]), ConfigError::Twice("hook".into()));
    let many = (0..51).map(|n| ChannelConfig { name: format!("c{n}"), ..good() }).collect();
    assert_eq!(refused(many), ConfigError::TooMany);
    let ca = tempfile::NamedTempFile::new().unwrap();
    let path = Some(ca.path().to_owned());
    assert!(matches!(refused(vec![ChannelConfig { ca: path, ..good() }]), ConfigError::Ca(_)));
    let email = |change: fn(&mut EmailConfig)| {
        let mut email = EmailConfig {
            host: "mail.example".into(),
            port: 587,
            tls: EmailTls::StartTls,
            hello: "gate.example".into(),
            login: None,
            from: "gate@example.com".into(),
            to: vec!["ops@example.com".into()],
        };
        change(&mut email);
        refused(vec![ChannelConfig::new("mail", Destination::Email(email))])
    };
    assert_eq!(email(|email| email.tls = EmailTls::None), ConfigError::Plain);
    assert!(matches!(email(|email| email.hello = "gate\r\nMAIL FROM:<a@b>".into()), ConfigError::Host(_)));
    assert!(matches!(email(|email| email.from = "a@b\r\nBcc: c@d".into()), ConfigError::Mailbox(_)));
    assert!(matches!(email(|email| email.to = vec!["nobody".into()]), ConfigError::Mailbox(_)));
    assert_eq!(email(|email| email.to.clear()), ConfigError::Recipients);
    assert_eq!(email(|email| email.to = vec!["a@example.com".into(); 51]), ConfigError::Recipients);
}

#[tokio::test]
async fn secrets_are_in_no_error_event_or_debug_form() {
    let receiver = Receiver::start(vec![Reply::Status(400); 9]).await;
    let path = "/services/T1/B1/hunter2";
    let secret = || receiver.url(path);
    let local = |name: &str, to| common::local(name, to);
    let bot = SlackDestination::Bot {
        token: Secret::new("xoxb-hunter2"),
        channel: "C1".into(),
        api: Some(format!("http://{}/", receiver.address.unwrap())),
    };
    let login = Some(("gate".to_owned(), Secret::new("hunter2")));
    let email = EmailConfig {
        host: "127.0.0.1".into(),
        port: receiver.port(),
        tls: EmailTls::None,
        hello: "gate.example".into(),
        login,
        from: "gate@example.com".into(),
        to: vec!["ops@example.com".into()],
    };
    let key = Secret::new("whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==");
    let channels = vec![
        local("hook", Destination::Webhook(WebhookConfig { url: secret(), secrets: vec![key] })),
        local("slack", Destination::Slack(SlackConfig { to: SlackDestination::Webhook(secret()), buttons: true })),
        local("bot", Destination::Slack(SlackConfig { to: bot, buttons: true })),
        local("teams", Destination::Teams(TeamsConfig { url: secret() })),
        local("mail", Destination::Email(email)),
    ];
    let mut seen = format!("{channels:?}");
    let rig = rig_with(channels, Names::none(), |setup| seen.push_str(&format!("{setup:?}")));
    rig.notifier.notify(&notice());
    let ended = |what: &What| matches!(what, What::Dead { .. } | What::Retried { .. });
    common::until("five failures", || {
        Some(rig.log.all()).filter(|all| all.iter().filter(|event| ended(&event.what)).count() >= 5)
    })
    .await;
    seen.push_str(&format!("{:?} {:?} {:?}", rig.notifier, rig.log.all(), rig.graves.0.lock()));
    for event in rig.log.all() {
        if let What::Dead { error, .. } | What::Retried { error, .. } = event.what {
            seen.push_str(&error.to_string());
        }
    }
    assert!(!seen.contains("hunter2") && !seen.contains("aHVudGVyM"), "{seen}");
}
