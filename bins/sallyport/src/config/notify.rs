//! `[[notify]]`: who is told when something waits or is decided.

use super::parse::{bad_reference, plain_name, secret};
use super::reader::{Section, Source, nearest};
use super::secret::FORMS;
use super::{Notify, NotifyTo};
use notify::Kind;
use notify::email::EmailTls;

/// What each kind of channel needs, and may have, besides what all have.
const KINDS: [(&str, &[&str], &[&str]); 4] = [
    ("webhook", &["url", "secrets"], &[]),
    ("slack", &[], &["url", "token", "channel", "signing_secret"]),
    ("teams", &["url"], &[]),
    ("email", &["server", "sender", "recipients"], &["tls", "user", "password"]),
];

const SPECIFIC: [&str; 11] =
    ["url", "secrets", "token", "channel", "signing_secret", "server", "tls", "user", "password", "sender", "recipients"];

pub(super) fn notify(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Notify> {
    let name = section.required("name").filter(|name| plain_name(section, name));
    let words = KINDS.map(|(word, _, _)| (word, word));
    let kind = section.required("kind").and_then(|_| section.one_of("kind", &words))?;
    let (_, needed, optional) = KINDS.into_iter().find(|(word, _, _)| *word == kind)?;
    for key in needed.iter().filter(|key| !section.has(key)) {
        section.missing(key);
    }
    for key in SPECIFIC.iter().filter(|key| section.has(key) && !needed.contains(key) && !optional.contains(key)) {
        section.problem(key, format!("`{key}` makes no sense for kind = \"{kind}\""), "remove it");
    }
    let to = match kind {
        "webhook" => webhook(section, source),
        "slack" => slack(section, source),
        "teams" => secret(section, "url", source).map(|url| NotifyTo::Teams { url }),
        _ => email(section, source),
    };
    let kinds = kinds(section);
    Some(Notify {
        name: name?,
        to: to?,
        kinds,
        groups: section.strings("groups").unwrap_or_default(),
        connections: section.strings("connections").unwrap_or_default(),
        statement: section.boolean("statement").unwrap_or(false),
        private: section.boolean("private").unwrap_or(false),
        loopback: section.boolean("loopback").unwrap_or(false),
        ca: section.path("ca"),
    })
}

fn webhook(section: &Section<'_, '_>, source: &Source<'_>) -> Option<NotifyTo> {
    let mut secrets = Vec::new();
    for text in section.strings("secrets").unwrap_or_default() {
        match source.secret(&text) {
            Ok(secret) => secrets.push(secret),
            Err(invalid) => bad_reference(section, "secrets", &invalid, FORMS),
        }
    }
    Some(NotifyTo::Webhook { url: secret(section, "url", source)?, secrets })
}

fn slack(section: &Section<'_, '_>, source: &Source<'_>) -> Option<NotifyTo> {
    let signing_secret = if section.has("signing_secret") { Some(secret(section, "signing_secret", source)?) } else { None };
    match (section.has("url"), section.has("token")) {
        (true, false) => Some(NotifyTo::Slack { url: Some(secret(section, "url", source)?), bot: None, signing_secret }),
        (false, true) => {
            let bot = (secret(section, "token", source), section.required("channel"));
            let (Some(token), Some(channel)) = bot else { return None };
            Some(NotifyTo::Slack { url: None, bot: Some((token, channel)), signing_secret })
        }
        (true, true) | (false, false) => {
            let remedy = "give `url`, an incoming webhook's, or a bot's `token` and its `channel`";
            section.problem("kind", "a channel of Slack's needs one way to be spoken to", remedy);
            None
        }
    }
}

fn email(section: &Section<'_, '_>, source: &Source<'_>) -> Option<NotifyTo> {
    let words = [("starttls", EmailTls::StartTls), ("implicit", EmailTls::Implicit), ("none", EmailTls::None)];
    let tls = section.one_of("tls", &words).unwrap_or(EmailTls::StartTls);
    let server = section.string("server").and_then(|text| {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse::<u16>().ok()?)));
        if parts.is_none() {
            section.problem("server", format!("`server` is not HOST:PORT: {text:?}"), "for example \"smtp.example.com:587\"");
        }
        parts
    });
    let login = match (section.string("user"), section.has("password")) {
        (Some(user), true) => Some((user, secret(section, "password", source)?)),
        (None, false) => None,
        _ => {
            section.problem("user", "`user` and `password` belong together", "give both, or neither");
            None
        }
    };
    let (sender, recipients) = (section.string("sender"), section.strings("recipients"));
    let (host, port) = server?;
    Some(NotifyTo::Email { host, port, tls, login, sender: sender?, recipients: recipients? })
}

fn kinds(section: &Section<'_, '_>) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for name in section.strings("kinds").unwrap_or_default() {
        match Kind::named(&name) {
            Some(kind) => kinds.push(kind),
            None => {
                let known = Kind::ALL.map(Kind::as_str);
                let remedy = match nearest(&name, known.into_iter()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("kinds are {}", known.join(", ")),
                };
                section.problem("kinds", format!("`kinds` has {name:?}, which is no kind of message"), remedy);
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problems, parse};
    use std::path::Path;

    fn read(channel: &str) -> Result<Config, Problems> {
        let listener = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n";
        parse(&format!("{listener}[[notify]]\nname = \"people\"\n{channel}"), Path::new("/etc/sallyport.toml"))
    }

    #[test]
    fn channels_of_all_kinds() {
        for good in [
            "kind = \"webhook\"\nurl = \"env:URL\"\nsecrets = \"env:SECRET\"",
            "kind = \"slack\"\nurl = \"env:URL\"\nsigning_secret = \"env:S\"\nstatement = true",
            "kind = \"slack\"\ntoken = \"env:TOKEN\"\nchannel = \"C123\"\ngroups = [\"dba\"]",
            "kind = \"teams\"\nurl = \"file:url\"\nkinds = [\"approval.requested\", \"break_glass.used\"]",
            "kind = \"email\"\nserver = \"smtp.example.com:587\"\nsender = \"a@example.com\"\nrecipients = \"b@example.com\"",
        ] {
            let config = read(good).unwrap_or_else(|problems| panic!("{good}\n{problems}"));
            assert_eq!(config.notify.len(), 1);
        }
    }

    #[test]
    fn a_channel_that_cannot_work_is_refused() {
        for (bad, said) in [
            ("kind = \"webhook\"\nsecrets = \"env:S\"", "needs `url`"),
            ("kind = \"webhook\"\nurl = \"https://h/secret\"\nsecrets = \"env:S\"", "not a reference"),
            ("kind = \"webhook\"\nurl = \"env:URL\"\nsecrets = [\"whsec_hunter2\"]", "not a reference"),
            ("kind = \"teams\"\nurl = \"env:URL\"\ntoken = \"env:T\"", "makes no sense for kind = \"teams\""),
            ("kind = \"slack\"", "one way to be spoken to"),
            ("kind = \"email\"\nserver = \"smtp\"\nsender = \"a@b\"\nrecipients = \"c@d\"", "not HOST:PORT"),
            ("kind = \"teams\"\nurl = \"env:URL\"\nkinds = \"approval.request\"", "did you mean \"approval.requested\""),
            ("kind = \"pigeon\"", "webhook"),
        ] {
            let text = read(bad).unwrap_err().to_string();
            assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
        }
    }
}
