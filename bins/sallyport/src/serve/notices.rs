//! The channels of `[[notify]]`, as configured.

use crate::cli::Failure;
use crate::config::{Config, Notify, NotifyTo, Secret, SecretError};
use crate::metrics::{Counter, Metrics, family};
use control_plane::notices::Notices;
use notify::email::EmailConfig;
use notify::slack::{SlackConfig, SlackDestination};
use notify::teams::TeamsConfig;
use notify::webhook::WebhookConfig;
use notify::{
    ChannelConfig, Delivery, Destination, Event, Events, FileDeadLetters, Filter, Notifier, Reach, Setup, What, limits,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What becomes of messages, as the metrics have it.
const OUTCOMES: [&str; 4] = ["sent", "retried", "dead", "dropped"];

/// The channels; `None`: there is none.
///
/// # Errors
/// One cannot be used: which, and why. What was not delivered before the last stop cannot be read.
pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Notices>>, Failure> {
    if config.notify.is_empty() {
        return Ok(None);
    }
    let failed = |why: &dyn std::fmt::Display| Failure::finding(format!("messages cannot be sent: {why}"));
    let channels = config
        .notify
        .iter()
        .map(|channel| self::channel(channel).map_err(|why| failed(&format!("[[notify]] {}: {why}", channel.name))));
    let folder = config.control_dir().join("notices");
    let dead = FileDeadLetters::open(&folder, limits::DEAD_FILE_MAX).map_err(|error| failed(&error))?;
    let dead = Arc::new(dead);
    let notifier = Notifier::start(Setup {
        channels: channels.collect::<Result<_, _>>()?,
        delivery: Delivery::default(),
        spool: Some(folder.join("spool")),
        dead: Arc::clone(&dead) as _,
        events: Arc::new(Counted::new(config, metrics)),
        resolver: Arc::new(notify::SystemResolver),
        clock: proxy_io::clock::now,
        runtime: tokio::runtime::Handle::current(),
    });
    let notifier = notifier.map_err(|error| failed(&error))?;
    let signing = config.notify.iter().filter_map(|channel| match &channel.to {
        NotifyTo::Slack { signing_secret, .. } => signing_secret.as_ref(),
        NotifyTo::Webhook { .. } | NotifyTo::Teams { .. } | NotifyTo::Email { .. } => None,
    });
    let signing = signing.map(text).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    let url = config.login.as_ref().map(|login| login.url.clone());
    let notices = Notices::new(notifier, dead, url, &signing).map_err(|error| failed(&error))?;
    Ok(Some(Arc::new(notices)))
}

fn channel(channel: &Notify) -> Result<ChannelConfig, SecretError> {
    let to = match &channel.to {
        NotifyTo::Webhook { url, secrets } => {
            Destination::Webhook(WebhookConfig { url: text(url)?, secrets: secrets.iter().map(text).collect::<Result<_, _>>()? })
        }
        NotifyTo::Slack { url, bot, signing_secret } => Destination::Slack(SlackConfig {
            to: match (url, bot) {
                (Some(url), _) => SlackDestination::Webhook(text(url)?),
                (None, Some((token, channel))) => {
                    SlackDestination::Bot { token: text(token)?, channel: channel.clone(), api: None }
                }
                // The configuration has one of them.
                (None, None) => SlackDestination::Webhook(notify::Secret::new("")),
            },
            buttons: signing_secret.is_some(),
        }),
        NotifyTo::Teams { url } => Destination::Teams(TeamsConfig { url: text(url)? }),
        NotifyTo::Email { host, port, tls, login, sender, recipients } => Destination::Email(EmailConfig {
            host: host.clone(),
            port: *port,
            tls: *tls,
            hello: control_plane::machine::host_name().unwrap_or_else(|| "localhost".to_owned()),
            login: login.as_ref().map(|(user, password)| Ok((user.clone(), text(password)?))).transpose()?,
            from: sender.clone(),
            to: recipients.clone(),
        }),
    };
    Ok(ChannelConfig {
        name: channel.name.clone(),
        to,
        filter: Filter { kinds: channel.kinds.clone(), groups: channel.groups.clone(), connections: channel.connections.clone() },
        statement: channel.statement,
        reach: Reach { private: channel.private, loopback: channel.loopback },
        ca: channel.ca.clone(),
    })
}

fn text(secret: &Secret) -> Result<notify::Secret, SecretError> {
    // What is not text is no address and no secret of these: the channel says so.
    secret.get().map(|bytes| notify::Secret::new(String::from_utf8_lossy(bytes.expose()).trim_end()))
}

/// Counts what becomes of messages, and says what went wrong.
struct Counted(BTreeMap<String, [Counter; 4]>);

impl Counted {
    fn new(config: &Config, metrics: &Arc<Metrics>) -> Self {
        let counters = |name: &String| OUTCOMES.map(|outcome| metrics.counter(&family::NOTICES, &[name.as_str(), outcome]));
        Self(config.notify.iter().map(|channel| (channel.name.clone(), counters(&channel.name))).collect())
    }
}

impl Events for Counted {
    fn event(&self, event: &Event) {
        let (channel, request) = (&*event.channel, event.request.as_str());
        let outcome = match &event.what {
            What::Sent { .. } => 0,
            What::Retried { attempts, error, .. } => {
                tracing::info!(channel, request, attempts, %error, "a message was not delivered, and is sent again");
                1
            }
            What::Dead { attempts, error, kept, .. } => {
                tracing::error!(channel, request, attempts, kept, %error, "a message was given up: `sallyport notices list`");
                2
            }
            What::Dropped => {
                tracing::error!(channel, request, "a message was thrown away: too many wait");
                3
            }
            What::Unspooled(kind) => {
                tracing::error!(channel, request, %kind, "a message cannot be kept on the disk: a restart would lose it");
                return;
            }
        };
        if let Some(counter) = self.0.get(channel).and_then(|counters| counters.get(outcome)) {
            counter.inc();
        }
    }
}
