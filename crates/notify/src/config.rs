//! What a channel is told: plain data. The caller reads it from wherever it is.

use crate::email::EmailConfig;
use crate::limits;
use crate::notice::{Kind, Notice};
use crate::slack::SlackConfig;
use crate::teams::TeamsConfig;
use crate::webhook::WebhookConfig;
use std::path::PathBuf;
use std::time::Duration;

/// One channel.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// Its name, of `a-z`, `0-9`, `-` and `_`: in metrics, logs and the spool.
    pub name: String,
    /// Where messages go.
    pub to: Destination,
    /// Which messages.
    pub filter: Filter,
    /// Whether messages contain the text of statements. Whoever can read the channel can read them.
    pub statement: bool,
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// A PEM file of CAs that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

impl ChannelConfig {
    /// A channel for everything, without the text of statements, to public addresses.
    #[must_use]
    pub fn new(name: impl Into<String>, to: Destination) -> Self {
        let (filter, reach) = (Filter::default(), Reach::default());
        Self { name: name.into(), to, filter, statement: false, reach, ca: None }
    }
}

/// Where messages go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A program: JSON, signed.
    Webhook(WebhookConfig),
    /// A channel of Slack's.
    Slack(SlackConfig),
    /// A channel or chat of Microsoft Teams.
    Teams(TeamsConfig),
    /// People's mailboxes.
    Email(EmailConfig),
}

/// Which notices a channel gets: those that every list admits. An empty list admits all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// These kinds.
    pub kinds: Vec<Kind>,
    /// Those that ask one of these groups. What asks no group, such as the use of break-glass, is admitted.
    pub groups: Vec<String>,
    /// Those of these connections.
    pub connections: Vec<String>,
}

impl Filter {
    /// Whether a notice passes.
    #[must_use]
    pub fn admits(&self, notice: &Notice) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&notice.kind);
        let asked = || notice.groups.iter().any(|group| self.groups.contains(&group.name));
        let group = self.groups.is_empty() || notice.groups.is_empty() || asked();
        kind && group && (self.connections.is_empty() || self.connections.contains(&notice.connection))
    }
}

/// Which addresses a channel may connect to, besides public ones. Addresses at which clouds tell a machine who it is are
/// refused whatever is set here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Addresses of private networks (RFC 1918, RFC 6598, RFC 4193).
    pub private: bool,
    /// This host, without TLS too.
    pub loopback: bool,
}

/// How delivery goes about it; the same for all channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Time for one attempt.
    pub send_timeout: Duration,
    /// First wait before another attempt; doubled each time, and shortened at random by up to a half.
    pub retry_first: Duration,
    /// Longest such wait.
    pub retry_max: Duration,
    /// Attempts before a notice is a dead letter.
    pub attempts_max: u32,
    /// Age at which it is one, however often it was tried.
    pub age_max: Duration,
    /// Notices of one channel that wait at once.
    pub pending_max: usize,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            send_timeout: limits::SEND_TIMEOUT,
            retry_first: limits::RETRY_FIRST,
            retry_max: limits::RETRY_MAX,
            attempts_max: limits::ATTEMPTS_MAX,
            age_max: limits::AGE_MAX,
            pending_max: limits::PENDING_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Group;
    use proxy_core::Timestamp;

    #[test]
    fn a_filter_admits_what_every_list_admits() {
        let dba = vec![Group { name: "dba".into(), missing: 1 }];
        let new = |kind| Notice { connection: "shop".into(), ..Notice::new(kind, "a", Timestamp(0), Timestamp(0)) };
        let asked = Notice { groups: dba, ..new(Kind::ApprovalRequested) };
        let used = new(Kind::BreakGlassUsed);
        assert!(Filter::default().admits(&asked));
        let groups = |name: &str| Filter { groups: vec![name.into()], ..Filter::default() };
        assert!(groups("dba").admits(&asked) && !groups("security").admits(&asked));
        assert!(groups("security").admits(&used), "it asks nobody, so everybody is told");
        let kinds = Filter { kinds: vec![Kind::ApprovalRequested], ..Filter::default() };
        assert!(kinds.admits(&asked) && !kinds.admits(&used));
        let connections = Filter { connections: vec!["other".into()], ..Filter::default() };
        assert!(!connections.admits(&asked));
    }
}
