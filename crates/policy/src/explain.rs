//! One decision with its reasons, for people: `sallyport policy explain`.

use crate::engine::PolicyEngine;
use crate::session::Decider;
use proxy_core::pipeline::{NotReady, SessionFacts};
use proxy_core::{
    CopyShape, Decision, Facts, Principal, Request, RequestId, RequestKind, SessionAuthorizer as _, SessionId, Statement, Target,
    Timestamp, Verdict,
};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// What is to be explained.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who asks.
    pub principal: Arc<Principal>,
    /// On what.
    pub target: Arc<Target>,
    /// From where: an IP address, or empty.
    pub source: String,
    /// Application name.
    pub application: String,
    /// Settings of the session's start.
    pub settings: Vec<(String, String)>,
    /// The statement, in SQL.
    pub statement: String,
    /// When.
    pub now: Timestamp,
}

/// A decision and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The principal's id: `ISSUER/SUBJECT`.
    pub principal: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// `CONNECTION/DATABASE`.
    pub target: String,
    /// The statement.
    pub statement: String,
    /// `allow`, `deny`, `hold`.
    pub verdict: String,
    /// For a denial: what is refused. For a hold: what is to be approved.
    pub what: Option<String>,
    /// For a denial: what to do.
    pub remedy: Option<String>,
    /// For a hold: the groups that must agree.
    pub reviewers: Vec<String>,
    /// The policy set's version.
    pub policy_version: String,
    /// What the statement would do.
    pub facts: Facts,
    /// The policies that determined the decision.
    pub policies: Vec<DeterminingPolicy>,
    /// What may come back.
    pub results: ResultsExplained,
}

/// One of the policies that determined a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeterminingPolicy {
    /// Its id.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// `FILE:LINE`.
    pub place: String,
    /// Its `@description`.
    pub description: Option<String>,
    /// Its text.
    pub text: String,
}

/// What may come back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ResultsExplained {
    /// The classes that this principal sees masked on this target.
    pub masked_classes: Vec<String>,
    /// Whether this statement's columns are looked at one by one: those of a masked class are masked.
    pub checked: bool,
    /// Whether error and notice texts are withheld, since they may quote masked values.
    pub messages_withheld: bool,
    /// For a COPY TO STDOUT that is checked: how.
    pub copy: Option<String>,
}

impl PolicyEngine {
    /// Decides `question` and says why. Whether the principal may `connect` at all is asked
    /// first.
    ///
    /// # Errors
    /// [`NotReady`]: the target's catalogue is to be loaded; ask again when its future resolves.
    pub fn explain(&self, question: &Question) -> Result<Explanation, NotReady> {
        let session = SessionFacts {
            id: SessionId([0; 16]),
            principal: question.principal.clone(),
            target: question.target.clone(),
            source: question.source.clone(),
            application: question.application.clone(),
            settings: question.settings.clone(),
        };
        let mut decider = Decider::new(self.shared.clone(), &session);
        let opening = decider.opening(question.now);
        if matches!(opening.verdict, Verdict::Deny(_)) {
            return Ok(Self::explanation(question, &decider, &opening));
        }
        let request = Request {
            id: RequestId(1),
            kind: RequestKind::Query,
            statement: Statement::Sql(question.statement.clone().into_bytes().into()),
            prepared_as: None,
            portal: None,
            parameters: Vec::new(),
        };
        let decision = decider.decide(question.now, &request, None)?;
        Ok(Self::explanation(question, &decider, &decision))
    }

    fn explanation(question: &Question, decider: &Decider, decision: &Decision) -> Explanation {
        let (what, remedy, reviewers) = match &decision.verdict {
            Verdict::Allow => (None, None, Vec::new()),
            Verdict::Deny(reason) => (Some(reason.what.clone()), Some(reason.remedy.clone()), Vec::new()),
            Verdict::Hold(rule) => (Some(rule.what.clone()), None, rule.names().map(str::to_owned).collect()),
        };
        let policies = decision.policies.iter().filter_map(|id| decider.policy(id));
        let policies = policies.map(|policy| DeterminingPolicy {
            id: policy.id.to_string(),
            effect: if policy.forbids { "forbid" } else { "permit" }.to_owned(),
            place: format!("{}:{}", policy.file.display(), policy.line),
            description: policy.description.clone(),
            text: policy.text.clone(),
        });
        Explanation {
            principal: question.principal.id(),
            roles: question.principal.roles.clone(),
            target: format!("{}/{}", question.target.connection, question.target.database),
            statement: question.statement.clone(),
            verdict: decision.recorded().as_str().to_owned(),
            what,
            remedy,
            reviewers,
            policy_version: decision.policy_version.to_string(),
            facts: (*decision.facts).clone(),
            policies: policies.collect(),
            results: ResultsExplained {
                masked_classes: decider.hidden_classes(question.now, &decision.facts, &question.statement),
                checked: decision.disclosure.rules.is_some(),
                messages_withheld: decision.disclosure.withhold_messages,
                copy: match &decision.disclosure.copy {
                    CopyShape::Pass => None,
                    CopyShape::Columns { rules, .. } => Some(format!("{} columns, each by its rule", rules.len())),
                    CopyShape::Describe { .. } => Some("columns as the server describes the query".to_owned()),
                },
            },
        }
    }
}

impl fmt::Display for Explanation {
    /// A page for the terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = if self.roles.is_empty() { "none".to_owned() } else { self.roles.join(", ") };
        writeln!(f, "principal  {} (roles: {roles})", self.principal)?;
        writeln!(f, "target     {}", self.target)?;
        writeln!(f, "statement  {}", self.statement)?;
        self.write_facts(f)?;
        writeln!(f, "decision   {}{}", self.verdict, self.decision_note())?;
        if let Some(remedy) = &self.remedy {
            writeln!(f, "remedy     {remedy}")?;
        }
        if self.policies.is_empty() {
            writeln!(f, "policies   none: what no policy permits is denied (set {})", self.policy_version)?;
        } else {
            writeln!(f, "policies   set {}", self.policy_version)?;
        }
        for policy in &self.policies {
            writeln!(f, "\n  {} {}, {}", policy.effect, policy.id, policy.place)?;
            for line in policy.text.trim().lines() {
                writeln!(f, "    {line}")?;
            }
        }
        self.write_results(f)
    }
}

impl Explanation {
    fn decision_note(&self) -> String {
        match (&self.what, self.reviewers.as_slice()) {
            (Some(what), []) => format!(": {what}"),
            (Some(what), reviewers) => format!(": {what} waits for {}", reviewers.join(" and ")),
            (None, _) => String::new(),
        }
    }

    fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.facts.operations.is_empty() && self.facts.unknown.is_empty() {
            writeln!(f, "facts      touches no object")?;
        }
        for (at, operation) in self.facts.operations.iter().enumerate() {
            let label = if at == 0 { "facts    " } else { "         " };
            let limited = match operation.has_where {
                Some(true) => ", with WHERE",
                Some(false) => ", without WHERE",
                None => "",
            };
            writeln!(f, "{label}  {} on {}{limited}", operation.action, operation.object)?;
        }
        for unknown in &self.facts.unknown {
            writeln!(f, "unknown    {}", unknown.what)?;
        }
        Ok(())
    }

    fn write_results(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verdict == "deny" {
            return Ok(());
        }
        let results = &self.results;
        match (results.masked_classes.as_slice(), results.checked) {
            ([], _) => writeln!(f, "\nresults    in clear: no class is masked for this principal here"),
            (classes, true) => writeln!(f, "\nresults    columns of {} are masked", classes.join(", ")),
            (classes, false) => {
                writeln!(f, "\nresults    in clear: this statement touches no column of {}", classes.join(", "))
            }
        }?;
        if let Some(copy) = &results.copy {
            writeln!(f, "copy       {copy}")?;
        }
        if results.messages_withheld {
            writeln!(f, "messages   the server's error texts are withheld: they may quote masked values")?;
        }
        Ok(())
    }
}
