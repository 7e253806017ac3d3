//! From Cedar's answers about single operations to one verdict about the request, in words for the caller.

use crate::approval::{ApprovalTerms, Together};
use crate::evaluate::{CONNECT, Outcome, UNKNOWN};
use crate::set::PolicySet;
use proxy_core::pipeline::ApprovalRule;
use proxy_core::{DenyReason, Facts, Operation, Principal, Target, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was found about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Without an approval.
    pub(crate) verdict: Verdict,
    /// The policies that determined it, sorted.
    pub(crate) policies: Vec<Arc<str>>,
    /// For a hold: the policies that determine that it is allowed once it is approved.
    pub(crate) once_approved: Vec<Arc<str>>,
}

/// Who asks for what: for the wording.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) set: &'a PolicySet,
    pub(crate) principal: &'a Principal,
    pub(crate) target: &'a Target,
    pub(crate) facts: &'a Facts,
}

/// The verdict on a request: allowed if every operation is; refused if any is refused; held otherwise.
pub(crate) fn judge(asked: Asked<'_>, operations: &[Operation], outcomes: &[Outcome]) -> Judgement {
    let pairs = || operations.iter().zip(outcomes);
    let refused = pairs().find(|(_, outcome)| matches!(outcome, Outcome::Refused(_) | Outcome::Failed { .. }));
    if let Some((operation, outcome)) = refused {
        let policies = match outcome {
            Outcome::Refused(policies) => policies.clone(),
            Outcome::Failed { policy, .. } => policy.iter().cloned().collect(),
            Outcome::Allowed(_) | Outcome::Held { .. } => Vec::new(),
        };
        let verdict = Verdict::Deny(asked.reason(operation, outcome));
        return Judgement { verdict, policies, once_approved: Vec::new() };
    }
    let mut asking = BTreeSet::new();
    let mut permitting = BTreeSet::new();
    let mut held = Vec::new();
    for (operation, outcome) in pairs() {
        match outcome {
            Outcome::Allowed(permits) => permitting.extend(permits.iter().cloned()),
            Outcome::Held { policies, permits } => {
                asking.extend(policies.iter().cloned());
                permitting.extend(permits.iter().cloned());
                held.push(operation);
            }
            Outcome::Refused(_) | Outcome::Failed { .. } => {}
        }
    }
    let permitting: Vec<Arc<str>> = permitting.into_iter().collect();
    let Some(first) = held.first() else {
        return Judgement { verdict: Verdict::Allow, policies: permitting, once_approved: Vec::new() };
    };
    let policies: Vec<Arc<str>> = asking.into_iter().collect();
    let terms = policies.iter().filter_map(|id| asked.set.policy(id)?.approval.as_ref());
    let Together { groups, expires, widths } = ApprovalTerms::together(terms);
    let more = match held.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let rule =
        ApprovalRule { policies: policies.clone(), groups, expires, widths, what: format!("{}{more}", asked.describe(first)) };
    Judgement { verdict: Verdict::Hold(rule), policies, once_approved: permitting }
}

impl Asked<'_> {
    /// `delete on table public.orders without WHERE`.
    fn describe(&self, operation: &Operation) -> String {
        let connection = &self.target.connection;
        match operation.action.as_str() {
            CONNECT if self.facts.operations.is_empty() && !self.facts.kinds.is_empty() => {
                format!("{} on connection {connection}", self.facts.kinds.join(", "))
            }
            CONNECT => format!("connect to connection {connection}"),
            UNKNOWN => match self.facts.unknown.as_slice() {
                [] => "a request that is not understood".to_owned(),
                [one] => format!("a request that is not understood: {}", one.what),
                [one, rest @ ..] => format!("a request that is not understood: {} (and {} more)", one.what, rest.len()),
            },
            action => {
                let object = match operation.object.kind {
                    proxy_core::ObjectKind::Connection => format!("connection {connection}"),
                    proxy_core::ObjectKind::Database => format!("database {}", self.target.database),
                    _ => operation.object.to_string(),
                };
                let unlimited = if operation.has_where == Some(false) && matches!(action, "update" | "delete") {
                    " without WHERE"
                } else {
                    ""
                };
                format!("{action} on {object}{unlimited}")
            }
        }
    }

    fn reason(&self, operation: &Operation, outcome: &Outcome) -> DenyReason {
        let what = self.describe(operation);
        match outcome {
            Outcome::Failed { policy, error } => DenyReason {
                policy: policy.clone(),
                what: format!("{what}: the policies cannot be evaluated: {error}"),
                remedy: format!("report this to {}", self.owner()),
            },
            Outcome::Refused(policies) => {
                // An @approval policy alone would have held it: name one that forbids outright, if there is one.
                let found = policies.iter().filter_map(|id| self.set.policy(id));
                match found.min_by_key(|policy| policy.approval.is_some()) {
                    Some(policy) => DenyReason {
                        policy: Some(policy.id.clone()),
                        what,
                        remedy: policy.remedy.clone().unwrap_or_else(|| self.forbidden(policy.description.as_deref())),
                    },
                    None => DenyReason { policy: None, what, remedy: self.not_permitted(operation) },
                }
            }
            Outcome::Allowed(_) | Outcome::Held { .. } => DenyReason { policy: None, what, remedy: String::new() },
        }
    }

    fn owner(&self) -> String {
        let connection = &self.target.connection;
        match &self.target.owner {
            Some(owner) => format!("{owner}, who answers for connection {connection}"),
            None => format!("those who write the policies of connection {connection}"),
        }
    }

    fn forbidden(&self, description: Option<&str>) -> String {
        let description = description.map(|text| format!("{} ", text.trim())).unwrap_or_default();
        format!("{description}Change the request, or ask {}", self.owner())
    }

    fn not_permitted(&self, operation: &Operation) -> String {
        let roles = match self.principal.roles.as_slice() {
            [] => "no role".to_owned(),
            roles => format!("roles {}", roles.join(", ")),
        };
        let kind = self.principal.kind.as_str();
        let remedy = format!(
            "no policy permits the action {} to {kind} {} ({roles}); ask {}",
            operation.action,
            self.principal.id(),
            self.owner()
        );
        if operation.action == UNKNOWN { format!("write the request in simpler terms; {remedy}") } else { remedy }
    }
}
