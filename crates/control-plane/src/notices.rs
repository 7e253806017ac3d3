//! Who is told of what waits and of what was decided: from the board to the channels of [`notify`], and what comes back of Slack's
//! buttons.

use crate::approvals::{Pending, Told};
use crate::view;
use notify::slack::{Answerer, Verifier};
use notify::{ConfigError, FileDeadLetters, Group, Kind, Notice, Notifier, Secret, SystemResolver, limits};
use proxy_core::record::ApprovalStep;
use proxy_io::clock::now;
use std::sync::Arc;

/// What the control plane has of its channels.
pub struct Notices {
    pub(crate) notifier: Notifier,
    pub(crate) dead: Arc<FileDeadLetters>,
    /// Where the pages are, for links: an origin.
    url: Option<String>,
    pub(crate) slack: Option<Slack>,
}

/// What comes of Slack's buttons.
pub(crate) struct Slack {
    pub(crate) verifier: Verifier,
    pub(crate) answerer: Answerer,
}

impl Notices {
    /// `slack`: the secrets by which Slack signs what comes of buttons; empty: there are none.
    ///
    /// # Errors
    /// [`ConfigError`]: a secret is none.
    pub fn new(
        notifier: Notifier,
        dead: Arc<FileDeadLetters>,
        url: Option<String>,
        slack: &[Secret],
    ) -> Result<Self, ConfigError> {
        let slack = match slack {
            [] => None,
            secrets => {
                let (verifier, answerer) = (Verifier::new(secrets)?, Answerer::new(Arc::new(SystemResolver))?);
                Some(Slack { verifier, answerer })
            }
        };
        Ok(Self { notifier, dead, url, slack })
    }

    /// The page of a request; empty: there are no pages.
    pub(crate) fn link(&self, id: &str) -> String {
        self.url.as_ref().map(|url| format!("{url}/approvals/{id}")).unwrap_or_default()
    }

    /// Waits until what was told is in the spool.
    pub async fn close(&self) {
        self.notifier.close().await;
    }
}

/// As much of a statement as a message can have, and a little more, so that it is seen to be cut: this is in the way of the
/// session's event loop, and a statement can be megabytes.
fn beginning(statement: &[u8]) -> String {
    const BYTES_MAX: usize = 4 * (limits::STATEMENT_MAX + 1);
    String::from_utf8_lossy(statement.get(..BYTES_MAX).unwrap_or(statement)).into_owned()
}

impl Told for Notices {
    fn told(&self, pending: &Pending, step: ApprovalStep, by: Option<&str>, reason: Option<&str>) {
        let (held, id) = (&pending.held, pending.id.to_string());
        let kind = match step {
            ApprovalStep::Requested => Kind::ApprovalRequested,
            ApprovalStep::Approved => Kind::ApprovalApproved,
            ApprovalStep::Denied => Kind::ApprovalDenied,
            ApprovalStep::Expired => Kind::ApprovalExpired,
            ApprovalStep::Withdrawn => Kind::ApprovalWithdrawn,
        };
        let time = if step == ApprovalStep::Requested { held.submitted } else { now() };
        let missing = |group: &proxy_core::pipeline::ReviewGroup| Group {
            name: group.name.clone(),
            missing: group.quorum.max(1).saturating_sub(u32::try_from(pending.approvals_of(&group.name)).unwrap_or(u32::MAX)),
        };
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let owner = held.principal.claims.iter().find(|(name, _)| crate::approvals::names_sponsors(name));
        self.notifier.notify(&Notice {
            principal: held.principal.id(),
            issuer: Some(held.principal.issuer.clone()),
            application: held.principal.application.clone(),
            connection: held.target.connection.clone(),
            owner: owner.map(|(_, name)| name.clone()),
            action: view::operations(&held.facts).join(", "),
            groups: held.rule.groups.iter().map(missing).collect(),
            decided_by: given(by),
            reason: given(reason),
            expires: (step == ApprovalStep::Requested).then_some(pending.expires),
            link: self.link(&id),
            digest: Some(held.digest.clone()),
            statement: Some(beginning(&held.statement)),
            ..Notice::new(kind, id, held.submitted, time)
        });
    }
}
