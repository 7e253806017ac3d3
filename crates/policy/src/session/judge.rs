//! From facts to a decision: Cedar, masking and approvals together.

use super::Decider;
use super::memory::Decided;
use crate::changes::Boundary;
use crate::evaluate::{CONNECT, Circumstances, Outcome, Subject, on_connection, required};
use crate::limits::OPERATIONS_MAX;
use crate::masks::MaskView;
use crate::verdict::{Asked, Judgement, judge};
use masking::Refusal;
use proxy_core::pipeline::{Approval, ApprovalRule};
use proxy_core::{Decision, DenyReason, Disclosure, Facts, Operation, Request, RequestKind, Timestamp, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Decider {
    /// A request whose facts the protocol layer knows.
    pub(super) fn facts(&self, now: Timestamp, request: &Request, facts: &Facts, text: &[u8]) -> Decided {
        let mut facts = facts.clone();
        if request.kind == RequestKind::Connect {
            facts.add(on_connection(CONNECT));
        }
        let replicates = facts.operations.iter().any(|operation| operation.action == "replicate");
        let disclosure = if replicates && !self.mask_view(now, &facts, std::str::from_utf8(text).ok()).hides_nothing() {
            Err(Refusal {
                message: "a replication stream would carry columns that are masked".to_owned(),
                remedy: "ask for the action unmask on the classes of this connection".to_owned(),
            })
        } else {
            Ok(Disclosure::default())
        };
        self.decide_facts(now, &facts, std::str::from_utf8(text).ok(), disclosure)
    }

    /// A request that the gateway refuses unread: no policy is asked.
    pub(super) fn gateway_refused(&self, refusal: &proxy_core::Refusal) -> Decided {
        let mut facts = Facts::default();
        facts.add_unknown(&refusal.message);
        self.decided(refused(refusal.to_string(), &refusal.hint), facts, Ok(Disclosure::default()))
    }

    pub(super) fn decide_facts(
        &self,
        now: Timestamp,
        facts: &Facts,
        statement: Option<&str>,
        disclosure: Result<Disclosure, Refusal>,
    ) -> Decided {
        let facts = self.with_unread_text(facts, statement);
        let judgement = match &self.profile.subject {
            Ok(subject) => self.judge(now, subject, &facts, statement.unwrap_or("")),
            Err(error) => {
                refused(format!("the policies cannot be evaluated: {error}"), "report this to those who run the gateway")
            }
        };
        self.decided(judgement, facts, disclosure)
    }

    /// A policy reads the statement's text, and there is none: then it is not known what the policy would say.
    pub(super) fn with_unread_text(&self, facts: &Facts, statement: Option<&str>) -> Facts {
        let mut facts = facts.clone();
        let opening = facts.operations.iter().all(|operation| operation.action == CONNECT) && !facts.operations.is_empty();
        if statement.is_none() && self.active.reads_statement && !opening {
            facts.add_unknown("a policy reads the statement's text, and this request has none");
        }
        facts
    }

    pub(super) fn judge(&self, now: Timestamp, subject: &Subject, facts: &Facts, statement: &str) -> Judgement {
        let operations = required(facts);
        if operations.len() > OPERATIONS_MAX {
            let what = format!("a request that does {} things, more than {OPERATIONS_MAX}", operations.len());
            return refused(what, "split it into several");
        }
        let circumstances = self.circumstances(now, facts, statement);
        let outcomes = if self.active.reads_statement {
            subject.decide(&operations, &circumstances)
        } else {
            self.outcomes(subject, &operations, &circumstances)
        };
        judge(self.asked(facts), &operations, &outcomes)
    }

    /// Cedar's answers to `operations`, those that it gave before from memory.
    pub(super) fn outcomes(
        &self,
        subject: &Subject,
        operations: &[Operation],
        circumstances: &Circumstances<'_>,
    ) -> Vec<Outcome> {
        let read = if self.active.reads_operations_alone { None } else { Some(circumstances.facts) };
        let keys: Vec<Vec<u8>> = operations.iter().map(|operation| operation_key(operation, read)).collect();
        let mut known: Vec<Option<Outcome>> = {
            let mut memory = self.profile.memory.lock();
            memory.renew(&self.stamp);
            keys.iter().map(|key| memory.outcomes.get(key).cloned()).collect()
        };
        let asked = operations.iter().zip(&known).filter(|(_, known)| known.is_none());
        let asked: Vec<Operation> = asked.map(|(operation, _)| operation.clone()).collect();
        let mut answers = subject.decide(&asked, circumstances).into_iter();
        let mut memory = self.profile.memory.lock();
        for (slot, key) in known.iter_mut().zip(&keys).filter(|(slot, _)| slot.is_none()) {
            *slot = answers.next();
            if let Some(outcome) = slot {
                memory.outcomes.insert(key, outcome.clone());
            }
        }
        let missing = || Outcome::Failed { policy: None, error: "an operation was not decided".to_owned() };
        known.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()
    }

    pub(super) fn asked<'a>(&'a self, facts: &'a Facts) -> Asked<'a> {
        Asked { set: &self.active.set, principal: &self.session.principal, target: &self.session.target, facts }
    }

    fn circumstances<'a>(&'a self, now: Timestamp, facts: &'a Facts, statement: &'a str) -> Circumstances<'a> {
        Circumstances { facts, statement, application: &self.session.application, source: self.source, now }
    }

    /// Makes decisions of a judgement and of what may come back.
    pub(super) fn decided(&self, judgement: Judgement, facts: Facts, disclosure: Result<Disclosure, Refusal>) -> Decided {
        let (verdict, policies, disclosure) = match (judgement.verdict, disclosure) {
            (Verdict::Deny(reason), _) => (Verdict::Deny(reason), judgement.policies, Disclosure::default()),
            // Nobody can approve what would show columns that are to be masked: it is refused at once.
            (Verdict::Allow | Verdict::Hold(_), Err(refusal)) => {
                let reason = DenyReason { policy: None, what: refusal.message, remedy: refusal.remedy };
                (Verdict::Deny(reason), Vec::new(), Disclosure::default())
            }
            (verdict, Ok(disclosure)) => (verdict, judgement.policies, disclosure),
        };
        let plain = Decision {
            verdict,
            policies: policies.into(),
            policy_version: self.active.set.version().clone(),
            facts: Arc::new(facts),
            disclosure,
        };
        let approved = matches!(plain.verdict, Verdict::Hold(_)).then(|| {
            let policies = plain.policies.iter().cloned().chain(judgement.once_approved);
            let policies: BTreeSet<Arc<str>> = policies.collect();
            Decision { verdict: Verdict::Allow, policies: policies.into_iter().collect(), ..plain.clone() }
        });
        Decided { analyses: Vec::new(), plain, approved, state: None, transaction: Boundary::None, changes_catalog: false }
    }

    /// Chooses the decision that holds with or without the approval, and takes up what the request does to
    /// the session if it is to be forwarded.
    pub(super) fn settle(&mut self, request: &Request, decided: &Decided, approval: Option<&Approval>) -> Decision {
        let chosen = match (&decided.approved, &decided.plain.verdict) {
            (Some(approved), Verdict::Hold(rule))
                if approval.is_some_and(|approval| satisfies(approval, rule, &decided.plain)) =>
            {
                approved
            }
            (Some(_) | None, _) => &decided.plain,
        };
        let forwarded = match chosen.verdict {
            Verdict::Allow => true,
            // Preparing what would be held runs nothing.
            Verdict::Hold(_) => request.kind == RequestKind::Prepare,
            Verdict::Deny(_) => false,
        };
        if forwarded {
            self.take_up(request, decided);
        }
        chosen.clone()
    }

    /// What a forwarded request changes in this session.
    pub(super) fn take_up(&mut self, request: &Request, decided: &Decided) {
        if let (Some(name), [analysis]) = (&request.prepared_as, decided.analyses.as_slice()) {
            self.state.register_prepared(&String::from_utf8_lossy(name), analysis.clone());
        }
        if request.kind != RequestKind::Prepare {
            for analysis in &decided.analyses {
                self.state.apply(analysis);
            }
            self.changes.forwarded(request.id, decided.changes_catalog, decided.transaction);
        }
    }

    /// What is masked for this principal under the stamp, in a request with these facts and this text.
    pub(super) fn mask_view(&self, now: Timestamp, facts: &Facts, statement: Option<&str>) -> Arc<MaskView> {
        let alike = self.active.reads_operations_alone;
        let mut memory = self.profile.memory.lock();
        memory.renew(&self.stamp);
        if let Some(view) = memory.masks.as_ref().filter(|_| alike) {
            return view.clone();
        }
        let circumstances = self.circumstances(now, facts, statement.unwrap_or(""));
        // Where a policy reads a text and there is none, nothing is seen in clear.
        let unread = statement.is_none() && self.active.reads_statement;
        let sees =
            |class: &str| !unread && self.profile.subject.as_ref().is_ok_and(|subject| subject.unmasks(class, &circumstances));
        let view = Arc::new(self.shared.mask_view(&self.active, &self.session.target, self.stamp.catalog.as_ref(), sees));
        memory.masks = alike.then(|| view.clone());
        view
    }
}

/// Whether `approval` is what `rule` asks for: from all the groups, and under the same policy set.
fn satisfies(approval: &Approval, rule: &ApprovalRule, decision: &Decision) -> bool {
    approval.policy_version == decision.policy_version
        && rule.names().all(|name| approval.reviewers.iter().any(|group| group == name))
}

fn refused(what: impl Into<String>, remedy: &str) -> Judgement {
    let reason = DenyReason { policy: None, what: what.into(), remedy: remedy.to_owned() };
    Judgement { verdict: Verdict::Deny(reason), policies: Vec::new(), once_approved: Vec::new() }
}

/// The whole of an operation, and what policies read of the request that it is part of: every part with its length.
fn operation_key(operation: &Operation, read: Option<&Facts>) -> Vec<u8> {
    let Operation { action, object, has_where } = operation;
    let mut key = Vec::new();
    let mut list = |parts: &mut dyn Iterator<Item = &str>| {
        for part in parts {
            key.extend_from_slice(&(part.len() as u64).to_le_bytes());
            key.extend_from_slice(part.as_bytes());
        }
        // No part is as long as this.
        key.extend_from_slice(&u64::MAX.to_le_bytes());
    };
    let limited = match has_where {
        None => "",
        Some(false) => "no",
        Some(true) => "yes",
    };
    list(&mut [limited, action, object.kind.as_str()].into_iter());
    list(&mut object.path.iter().map(String::as_str));
    if let Some(Facts { operations: _, unknown, kinds, attributes }) = read {
        list(&mut kinds.iter().map(String::as_str));
        list(&mut unknown.iter().map(|unknown| unknown.what.as_str()));
        list(&mut attributes.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    }
    key
}
