//! What there is to tell, as plain data.

use crate::limits::{FIELD_MAX, GROUPS_MAX, LINK_MAX, STATEMENT_MAX, WORDS_MAX};
use crate::text;
use aws_lc_rs::digest::{Context, SHA256};
use hyper::Uri;
use proxy_core::Timestamp;
use serde::{Deserialize, Serialize};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A statement waits for reviewers.
    #[serde(rename = "approval.requested")]
    ApprovalRequested,
    /// Every group agreed.
    #[serde(rename = "approval.approved")]
    ApprovalApproved,
    /// Somebody refused.
    #[serde(rename = "approval.denied")]
    ApprovalDenied,
    /// Nobody decided in time.
    #[serde(rename = "approval.expired")]
    ApprovalExpired,
    /// The session that waited has ended.
    #[serde(rename = "approval.withdrawn")]
    ApprovalWithdrawn,
    /// Somebody asks for access for a time.
    #[serde(rename = "grant.requested")]
    GrantRequested,
    /// That was decided; [`Notice::granted`] says how.
    #[serde(rename = "grant.decided")]
    GrantDecided,
    /// Somebody went past the policies in an emergency.
    #[serde(rename = "break_glass.used")]
    BreakGlassUsed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ApprovalRequested,
        Self::ApprovalApproved,
        Self::ApprovalDenied,
        Self::ApprovalExpired,
        Self::ApprovalWithdrawn,
        Self::GrantRequested,
        Self::GrantDecided,
        Self::BreakGlassUsed,
    ];

    /// Its name, as in configurations and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApprovalRequested => "approval.requested",
            Self::ApprovalApproved => "approval.approved",
            Self::ApprovalDenied => "approval.denied",
            Self::ApprovalExpired => "approval.expired",
            Self::ApprovalWithdrawn => "approval.withdrawn",
            Self::GrantRequested => "grant.requested",
            Self::GrantDecided => "grant.decided",
            Self::BreakGlassUsed => "break_glass.used",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether somebody is asked to decide.
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Self::ApprovalRequested | Self::GrantRequested)
    }
}

/// A group that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many of its members have yet to approve.
    pub missing: u32,
}

/// What there is to tell. All texts may be somebody else's: they are shortened and escaped for each channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What has happened.
    pub kind: Kind,
    /// Id of the request, grant or session that it is about: notices about one are delivered in their order.
    pub request: String,
    /// When that was submitted: with the id it names a conversation, for ids come again.
    pub asked: Timestamp,
    /// When this happened.
    pub time: Timestamp,
    /// Who asks.
    pub principal: String,
    /// Who vouches for them.
    pub issuer: Option<String>,
    /// The application that the principal is.
    pub application: Option<String>,
    /// To what.
    pub connection: String,
    /// Who answers for the principal.
    pub owner: Option<String>,
    /// What would happen, in a few words: `delete on shop/shop/public.customers`.
    pub action: String,
    /// Who is asked.
    pub groups: Vec<Group>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// For [`Kind::GrantDecided`]: whether it was granted.
    pub granted: Option<bool>,
    /// Why.
    pub reason: Option<String>,
    /// Until when it waits, or holds.
    pub expires: Option<Timestamp>,
    /// The page about it, `https://…/approvals/ID`. It carries no authority: who follows it logs in.
    pub link: String,
    /// Digest of the statement, as it is in the log.
    pub digest: Option<String>,
    /// Text of the statement. Removed before a notice reaches a channel that is not configured to have it.
    pub statement: Option<String>,
}

impl Notice {
    /// A notice with the fields that all have; the others are empty.
    #[must_use]
    pub fn new(kind: Kind, request: impl Into<String>, asked: Timestamp, time: Timestamp) -> Self {
        Self {
            kind,
            request: request.into(),
            asked,
            time,
            principal: String::new(),
            issuer: None,
            application: None,
            connection: String::new(),
            owner: None,
            action: String::new(),
            groups: Vec::new(),
            decided_by: None,
            granted: None,
            reason: None,
            expires: None,
            link: String::new(),
            digest: None,
            statement: None,
        }
    }

    /// Its id: the same for each attempt to deliver it, and for the same event told twice.
    #[must_use]
    pub fn id(&self) -> String {
        format!("msg_{}", self.hash(&[self.kind.as_str(), &self.time.0.to_string()]))
    }

    /// Names the conversation of the request.
    pub(crate) fn conversation(&self) -> String {
        self.hash(&[])
    }

    fn hash(&self, more: &[&str]) -> String {
        let asked = self.asked.0.to_string();
        let mut context = Context::new(&SHA256);
        for part in [self.request.as_str(), asked.as_str(), self.link.as_str()].iter().chain(more) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// In one line: what has happened.
    #[must_use]
    pub fn title(&self) -> String {
        let what = match self.kind {
            Kind::ApprovalRequested => "Approval requested",
            Kind::ApprovalApproved => "Approved",
            Kind::ApprovalDenied => "Denied",
            Kind::ApprovalExpired => "Expired without a decision",
            Kind::ApprovalWithdrawn => "Withdrawn",
            Kind::GrantRequested => "Access requested",
            Kind::GrantDecided if self.granted == Some(true) => "Access granted",
            Kind::GrantDecided => "Access refused",
            Kind::BreakGlassUsed => "Break-glass used",
        };
        format!("{what}: {}", self.request)
    }

    /// Everything but the statement, as pairs to be shown. Empty ones are left out; at most 10 (Slack's limit for fields).
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let groups = self.groups.iter().map(|group| match group.missing {
            0 => group.name.clone(),
            missing => format!("{} ({missing} missing)", group.name),
        });
        let who = match &self.issuer {
            Some(issuer) => format!("{} (by {issuer})", self.principal),
            None => self.principal.clone(),
        };
        let until = if self.kind == Kind::ApprovalRequested { "Waits until" } else { "Until" };
        let facts = [
            ("Principal", who),
            ("Application", self.application.clone().unwrap_or_default()),
            ("Owner", self.owner.clone().unwrap_or_default()),
            ("Connection", self.connection.clone()),
            ("Action", self.action.clone()),
            ("Groups", groups.collect::<Vec<_>>().join(", ")),
            ("Decided by", self.decided_by.clone().unwrap_or_default()),
            ("Reason", self.reason.clone().unwrap_or_default()),
            (until, self.expires.map(text::time).unwrap_or_default()),
            ("Statement digest", self.digest.clone().unwrap_or_default()),
        ];
        facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The link, if it is one that a message may have.
    pub(crate) fn page(&self) -> Option<&str> {
        Some(self.link.as_str()).filter(|link| is_page(link))
    }

    /// The same within the limits, in characters that can be shown, and without the statement unless `statement`.
    pub(crate) fn bounded(&self, statement: bool) -> Self {
        let field = |text: &str| text::line(text, FIELD_MAX);
        let words = |text: &str| text::line(text, WORDS_MAX);
        Self {
            kind: self.kind,
            request: field(&self.request),
            asked: self.asked,
            time: self.time,
            principal: field(&self.principal),
            issuer: self.issuer.as_deref().map(field),
            application: self.application.as_deref().map(field),
            connection: field(&self.connection),
            owner: self.owner.as_deref().map(field),
            action: words(&self.action),
            groups: self
                .groups
                .iter()
                .take(GROUPS_MAX)
                .map(|group| Group { name: field(&group.name), missing: group.missing })
                .collect(),
            decided_by: self.decided_by.as_deref().map(words),
            granted: self.granted,
            reason: self.reason.as_deref().map(words),
            expires: self.expires,
            link: if is_page(&self.link) { self.link.clone() } else { String::new() },
            digest: self.digest.as_deref().map(field),
            statement: self.statement.as_deref().filter(|_| statement).map(|text| text::lines(text, STATEMENT_MAX)),
        }
    }
}

/// Whether a text is an address of http or https that can be put into any message as it is.
fn is_page(link: &str) -> bool {
    let plain = link.bytes().all(|byte| byte.is_ascii_graphic() && !br#"<>"'`\^{}|()[]*"#.contains(&byte));
    let uri = link.parse::<Uri>().ok();
    let has_host = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("https" | "http")) && uri.authority().is_some_and(|name| !name.as_str().contains('@'))
    });
    plain && link.len() <= LINK_MAX && has_host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: Kind, time: i64) -> Notice {
        Notice { link: "https://gate/approvals/a".into(), ..Notice::new(kind, "a", Timestamp(1), Timestamp(time)) }
    }

    #[test]
    fn an_id_is_of_one_event_and_a_conversation_of_one_request() {
        let (asked, again, denied) =
            (notice(Kind::ApprovalRequested, 1), notice(Kind::ApprovalRequested, 1), notice(Kind::ApprovalDenied, 2));
        assert_eq!(asked.id(), again.id());
        assert_ne!(asked.id(), denied.id());
        assert_eq!(asked.conversation(), denied.conversation());
        let later = Notice { asked: Timestamp(9), ..asked.clone() };
        assert_ne!(asked.conversation(), later.conversation(), "ids come again");
    }

    #[test]
    fn kinds_have_one_name() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn a_link_that_is_none_is_left_out() {
        for good in ["https://gate.example/approvals/7k2m9x", "http://localhost:8080/approvals/a?x=1&y=2#z"] {
            assert!(is_page(good), "{good}");
        }
        for bad in
            ["", "javascript:alert(1)", "https://a@gate/", "https://gate/\"><b>", "https://gate/a b", "https://gate/|x>", "/x"]
        {
            assert!(!is_page(bad), "{bad}");
        }
    }

    #[test]
    fn bounds_hold_for_every_text() {
        let long = "x".repeat(100_000);
        let group = Group { name: long.clone(), missing: 1 };
        let all = Notice {
            principal: long.clone(),
            issuer: Some(long.clone()),
            action: long.clone(),
            groups: vec![group; 1_000],
            reason: Some(long.clone()),
            link: format!("https://gate/{long}"),
            statement: Some(long.clone()),
            ..Notice::new(Kind::ApprovalRequested, long, Timestamp(0), Timestamp(0))
        };
        let text = serde_json::to_vec(&all.bounded(true)).unwrap();
        assert!(text.len() < 32 << 10, "{}", text.len());
        assert_eq!(all.bounded(false).statement, None);
        assert_eq!(all.bounded(true), all.bounded(true).bounded(true), "twice is once");
    }
}
