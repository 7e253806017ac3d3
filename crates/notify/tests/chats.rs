//! Slack and Teams: what they would accept, and what nobody can make them show.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::{HOSTILE, Receiver, Reply, STATEMENT, denied, hostile, local, notice, rig};
use notify::slack::{SlackConfig, SlackDestination};
use notify::teams::TeamsConfig;
use notify::{ChannelConfig, Destination, Kind, Notice, Secret, SendError, What};
use serde_json::Value;

fn slack(receiver: &Receiver, statement: bool, buttons: bool) -> ChannelConfig {
    let config = SlackConfig { to: SlackDestination::Webhook(receiver.url("/services/T1/B1/x")), buttons };
    ChannelConfig { statement, ..local("slack", Destination::Slack(config)) }
}

fn teams(receiver: &Receiver, statement: bool) -> ChannelConfig {
    let config = TeamsConfig { url: receiver.url("/workflows/1?sig=x") };
    ChannelConfig { statement, ..local("teams", Destination::Teams(config)) }
}

async fn shown(config: impl FnOnce(&Receiver) -> ChannelConfig, notice: &Notice) -> Value {
    let receiver = Receiver::start([]).await;
    let rig = rig(vec![config(&receiver)]);
    rig.notifier.notify(notice);
    let got = receiver.wait_for(1).await.remove(0).json();
    rig.notifier.close().await;
    got
}

/// A text object of Block Kit.
fn check_text(text: &Value, kinds: &[&str], max: usize) {
    let kind = text["type"].as_str().unwrap();
    assert!(kinds.contains(&kind), "{text}");
    let words = text["text"].as_str().unwrap();
    assert!((1..=max).contains(&words.chars().count()), "{} of {max}", words.chars().count());
    match kind {
        "mrkdwn" => assert_eq!(text["verbatim"], true, "Slack must not look for mentions"),
        _ => assert!(text.get("verbatim").is_none()),
    }
}

/// <https://docs.slack.dev/reference/block-kit/blocks>, as far as we use it.
fn check_blocks(message: &Value) {
    assert!(!message["text"].as_str().unwrap().is_empty());
    let blocks = message["blocks"].as_array().unwrap();
    assert!((1..=50).contains(&blocks.len()));
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => check_text(&block["text"], &["plain_text"], 150),
            "section" => {
                let fields = block.get("fields").map(|fields| fields.as_array().unwrap());
                assert!(block.get("text").is_some() || fields.is_some());
                if let Some(text) = block.get("text") {
                    check_text(text, &["mrkdwn", "plain_text"], 3_000);
                }
                if let Some(fields) = fields {
                    assert!((1..=10).contains(&fields.len()));
                    fields.iter().for_each(|field| check_text(field, &["mrkdwn", "plain_text"], 2_000));
                }
            }
            "context" => {
                let elements = block["elements"].as_array().unwrap();
                assert!((1..=10).contains(&elements.len()));
                elements.iter().for_each(|element| check_text(element, &["mrkdwn", "plain_text"], 3_000));
            }
            "actions" => {
                let elements = block["elements"].as_array().unwrap();
                assert!((1..=25).contains(&elements.len()));
                let mut ids = Vec::new();
                for element in elements {
                    assert_eq!(element["type"], "button");
                    check_text(&element["text"], &["plain_text"], 75);
                    let id = element["action_id"].as_str().unwrap();
                    assert!(id.len() <= 255 && !ids.contains(&id));
                    ids.push(id);
                    assert!(element.get("value").is_none_or(|value| value.as_str().unwrap().chars().count() <= 2_000));
                    assert!(element.get("url").is_none_or(|url| url.as_str().unwrap().len() <= 3_000));
                    assert!(element.get("style").is_none_or(|style| ["primary", "danger"].contains(&style.as_str().unwrap())));
                }
            }
            other => panic!("no block that we use: {other}"),
        }
    }
}

fn buttons(message: &Value) -> Vec<Value> {
    let blocks = message["blocks"].as_array().unwrap();
    blocks
        .iter()
        .filter(|block| block["type"] == "actions")
        .flat_map(|block| block["elements"].as_array().unwrap().clone())
        .collect()
}

/// Every text in a value.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|value| texts(value, into)),
        Value::Object(all) => all.values().for_each(|value| texts(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[tokio::test]
async fn a_request_in_slack_has_its_facts_and_three_buttons() {
    let message = shown(|receiver| slack(receiver, false, true), &notice()).await;
    check_blocks(&message);
    assert_eq!(message["blocks"][0]["text"]["text"], "Approval requested: 7k2m9x");
    let text = message.to_string();
    for fact in
        ["ci-deployer", "keeper (2 missing)", "delete on shop/shop/public.customers", "2026-11-28T10:10:00Z", "sha256:9f86d081"]
    {
        assert!(text.contains(fact), "{fact}");
    }
    assert!(!text.contains(STATEMENT), "not configured");
    let buttons = buttons(&message);
    let ids: Vec<_> = buttons.iter().map(|button| button["action_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["sallyport.review", "sallyport.approve", "sallyport.deny"]);
    assert_eq!((&buttons[0]["url"], &buttons[0]["style"]), (&"https://gate.example/approvals/7k2m9x".into(), &"primary".into()));
    assert!(buttons.iter().all(|button| button["value"] == "7k2m9x"));
}

#[tokio::test]
async fn a_decision_in_slack_has_no_buttons_to_decide() {
    let message = shown(|receiver| slack(receiver, true, true), &denied("7k2m9x")).await;
    check_blocks(&message);
    assert_eq!(buttons(&message).len(), 1);
    let text = message.to_string();
    assert!(text.contains("bob@example.com") && text.contains("not on a Friday") && text.contains(STATEMENT));
    let quiet = shown(|receiver| slack(receiver, false, false), &notice()).await;
    assert_eq!(buttons(&quiet).len(), 1, "without an address for interactions there is the link alone");
}

#[tokio::test]
async fn nothing_hostile_is_markup_in_slack() {
    let message = shown(|receiver| slack(receiver, true, true), &hostile()).await;
    check_blocks(&message);
    let mut all = Vec::new();
    texts(&message["blocks"], &mut all);
    texts(&message["text"], &mut all);
    let mut shown = 0;
    for text in all.iter().filter(|text| text.contains("channel")) {
        // `value` comes back to us alone.
        if text.starts_with("<!channel>") && buttons(&message).iter().any(|button| button["value"] == **text) {
            continue;
        }
        shown += 1;
        assert!(!text.contains(['<', '>', '\0', '\u{202e}']), "{text}");
        for entity in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;"].iter().any(|name| entity.starts_with(name)), "{text}");
        }
        for name in ["@here", "@channel", "@everyone"] {
            assert!(!text.contains(name), "{text}");
        }
        // The marks of code are ours alone: one pair, or one fence.
        let marks = text.matches('`').count();
        assert!(marks == 2 || (marks == 6 && text.starts_with("```") && text.ends_with("```")) || marks == 0, "{text}");
    }
    assert!(shown >= 11, "{shown}");
}

#[tokio::test]
async fn every_kind_is_a_message_that_slack_and_teams_accept() {
    for kind in Kind::ALL {
        for mut notice in [common::notice_of(kind, "a"), Notice { kind, ..hostile() }] {
            check_blocks(&shown(|receiver| slack(receiver, true, true), &notice).await);
            check_card(&shown(|receiver| teams(receiver, true), &notice).await);
            notice.link = "javascript:alert(1)".into();
            let message = shown(|receiver| slack(receiver, true, false), &notice).await;
            assert!(buttons(&message).is_empty());
            check_blocks(&message);
        }
    }
    let bare = Notice::new(Kind::BreakGlassUsed, "", notice().asked, notice().time);
    check_blocks(&shown(|receiver| slack(receiver, true, true), &bare).await);
    check_card(&shown(|receiver| teams(receiver, true), &bare).await);
}

#[tokio::test]
async fn a_bot_posts_to_its_channel_and_reads_what_slack_says() {
    let no = Reply::Body(r#"{"ok":false,"error":"ratelimited"}"#.into());
    let yes = Reply::Body(r#"{"ok":true,"ts":"1.2"}"#.into());
    let never = Reply::Body(r#"{"ok":false,"error":"channel_not_found"}"#.into());
    let receiver = Receiver::start([no, yes, never, Reply::Endless]).await;
    let api = Some(format!("http://{}/api/", receiver.address.unwrap()));
    let to = SlackDestination::Bot { token: Secret::new("xoxb-secret"), channel: "C123".into(), api };
    let rig = rig(vec![local("slack", Destination::Slack(SlackConfig { to, buttons: false }))]);
    rig.notifier.notify(&notice());
    let sent = rig.log.wait_for(|what| matches!(what, What::Sent { .. })).await;
    assert_eq!(sent.what, What::Sent { attempts: 2 });
    rig.notifier.notify(&denied("7k2m9x"));
    let dead = rig.log.wait_for(|what| matches!(what, What::Dead { .. })).await;
    assert!(matches!(dead.what, What::Dead { error: SendError::Slack(code), attempts: 1, .. } if code == "channel_not_found"));
    rig.notifier.notify(&common::notice_of(Kind::GrantRequested, "b"));
    rig.log.wait_for(|what| matches!(what, What::Dead { error: SendError::AnswerTooLong, .. })).await;
    let got = receiver.got().remove(0);
    assert_eq!(
        (got.path.as_str(), got.headers["authorization"].as_bytes()),
        ("/api/chat.postMessage", b"Bearer xoxb-secret".as_slice())
    );
    assert_eq!(got.json()["channel"], "C123");
    check_blocks(&got.json());
}

/// Required properties and kinds of <https://adaptivecards.io/schemas/adaptive-card.json> 1.5, as far as we use it.
fn check_card(message: &Value) {
    assert!(serde_json::to_vec(message).unwrap().len() <= 28 * 1_000);
    assert_eq!(message["type"], "message");
    let [attachment] = message["attachments"].as_array().unwrap().as_slice() else { panic!("one card") };
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    assert_eq!(attachment.get("contentUrl"), Some(&Value::Null));
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.5".into()));
    assert!(card["msteams"].get("entities").is_none(), "nobody is mentioned");
    for element in card["body"].as_array().unwrap() {
        match element["type"].as_str().unwrap() {
            "TextBlock" => assert!(!element["text"].as_str().unwrap().is_empty()),
            "FactSet" => {
                let facts = element["facts"].as_array().unwrap();
                assert!(!facts.is_empty());
                assert!(facts.iter().all(|fact| !fact["title"].as_str().unwrap().is_empty() && fact["value"].is_string()));
            }
            "RichTextBlock" => {
                let inlines = element["inlines"].as_array().unwrap();
                assert!(
                    inlines
                        .iter()
                        .all(|run| run["type"] == "TextRun" && run["text"].is_string() && run["fontType"] == "Monospace")
                );
                assert!(!inlines.is_empty());
            }
            other => panic!("no element that we use: {other}"),
        }
    }
    for action in card["actions"].as_array().unwrap() {
        assert_eq!(action["type"], "Action.OpenUrl");
        assert!(action["url"].as_str().unwrap().starts_with("https://") && action["title"].is_string());
    }
}

#[tokio::test]
async fn a_request_in_teams_is_a_card_with_a_link() {
    let message = shown(|receiver| teams(receiver, false), &notice()).await;
    check_card(&message);
    let card = &message["attachments"][0]["content"];
    assert_eq!(card["body"][0]["text"], "Approval requested: 7k2m9x");
    assert_eq!(card["body"][1]["facts"][0]["title"], "Principal");
    assert_eq!(card["actions"][0]["url"], "https://gate.example/approvals/7k2m9x");
    assert_eq!(card["actions"][0]["title"], "Review");
    assert!(!message.to_string().contains(STATEMENT));
    let message = shown(|receiver| teams(receiver, true), &notice()).await;
    assert_eq!(message["attachments"][0]["content"]["body"][2]["inlines"][0]["text"], STATEMENT);
}

#[tokio::test]
async fn nothing_hostile_is_markup_in_teams() {
    let message = shown(|receiver| teams(receiver, true), &hostile()).await;
    check_card(&message);
    let body = message["attachments"][0]["content"]["body"].as_array().unwrap();
    let mut markdown = vec![body[0]["text"].as_str().unwrap()];
    markdown.extend(body[1]["facts"].as_array().unwrap().iter().map(|fact| fact["value"].as_str().unwrap()));
    for text in markdown.into_iter().filter(|text| text.contains("channel")) {
        assert!(!text.contains(['<', '>', '\n', '\0']), "{text}");
        let mut escaped = false;
        for c in text.chars() {
            assert!(escaped || !"*_[]()`~#!|{}".contains(c) || text.ends_with(" missing)"), "{c} in {text}");
            escaped = c == '\\' && !escaped;
        }
    }
    let statement = body[2]["inlines"][0]["text"].as_str().unwrap();
    assert!(statement.starts_with("<!channel>") && HOSTILE.starts_with("<!channel>"), "a run of text is not Markdown");
}

#[tokio::test]
async fn a_statement_that_does_not_fit_into_teams_is_shortened() {
    // Three bytes for each character, and six in JSON for each quotation mark's neighbour.
    let wide = Notice {
        statement: Some("漢\"".repeat(10_000)),
        reason: Some("漢".repeat(9_000)),
        action: "漢".repeat(9_000),
        ..hostile()
    };
    let message = shown(|receiver| teams(receiver, true), &wide).await;
    check_card(&message);
    let statement = message["attachments"][0]["content"]["body"][2]["inlines"][0]["text"].as_str().unwrap().to_owned();
    assert!(statement.ends_with('…') && statement.chars().count() > 100);
}
