//! Decisions of one session, in the order of its requests.

use crate::cache::Cache;
use crate::changes::{Boundary, CatalogChanges};
use crate::engine::{Active, Shared};
use crate::evaluate::{CONNECT, Circumstances, Outcome, Subject, on_connection, required};
use crate::large_objects;
use crate::limits::{CACHED_BYTES_MAX, CACHED_KEY_MAX, OPERATIONS_MAX, SESSION_DECISIONS_MAX};
use crate::masks::MaskView;
use crate::profile::{Profile, ProfileKey, Stamp, hour, profile};
use crate::refresh::{self, Refresh};
use crate::set::LoadedPolicy;
use crate::sql::{self, Analysis, SqlState};
use crate::verdict::{Asked, Judgement, judge};
use bytes::Bytes;
use masking::Refusal;
use proxy_core::pipeline::{Approval, ApprovalRule, NotReady, SessionFacts};
use proxy_core::{
    Decision, DenyReason, Disclosure, Facts, Operation, Request, RequestId, RequestKind, SessionAuthorizer, Statement, Timestamp,
    Verdict,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// First byte of a key that stands for all statements of one shape.
const BY_SHAPE: u8 = b'n';
/// First byte of a key that stands for one text.
const BY_TEXT: u8 = b't';

/// What a cache knows of a statement key.
#[derive(Debug, Clone)]
pub(crate) enum Remembered {
    /// Statements of this key differ by their literals: look under the exact text.
    ByText,
    /// They do not.
    Decided(Arc<Decided>),
}

/// A statement that was decided.
#[derive(Debug)]
pub(crate) struct Decided {
    /// What it is made of: one, or all that a name may stand for.
    analyses: Vec<Arc<Analysis>>,
    /// Without an approval.
    plain: Decision,
    /// With the approval that a hold asks for.
    approved: Option<Decision>,
    /// Whether it depends on what the session did before, and the state's generation that it was decided in.
    state: Option<u64>,
    /// What it does to a transaction.
    transaction: Boundary,
    /// Whether the catalogue is old when it has run.
    changes_catalog: bool,
}

/// What a session's decisions depend on, and what it remembers.
pub(crate) struct Decider {
    shared: Arc<Shared>,
    session: SessionFacts,
    source: IpAddr,
    active: Arc<Active>,
    /// The schemas that the session searched when it began, if that is known.
    search_path: Option<Vec<String>>,
    /// [`Shared::generation`] when `active` was taken.
    seen_policies: u64,
    /// The catalogue source's generation when the stamp's catalogue was taken.
    seen_catalogs: u64,
    stamp: Stamp,
    profile: Arc<Profile>,
    state: SqlState,
    /// The state's generation while nothing was done that changes how statements resolve.
    pristine: u64,
    /// Decisions that depend on what this session did. Most sessions have none.
    own: Option<Box<Cache<Remembered>>>,
    own_stamp: Stamp,
    changes: CatalogChanges,
    refresh: Refresh,
    key: Vec<u8>,
}

impl Decider {
    pub(crate) fn new(shared: Arc<Shared>, session: &SessionFacts) -> Self {
        let (active, seen_policies) = shared.active();
        let source = source_address(&session.source);
        let seen_catalogs = shared.catalogs.generation();
        let catalog = shared.catalogs.current(&session.target);
        let state = SqlState::new(&session.settings, catalog.as_deref());
        let stamp = Stamp { catalog, masks: active.masks_generation, hour: 0 };
        let search_path = stamp.catalog.as_ref().map(|catalog| catalog.search_path.clone());
        let profile =
            profile(ProfileKey::new(shared.id, &active.set, session, source, search_path.clone()), &active.set, session);
        Self {
            search_path,
            pristine: state.generation(),
            session: session.clone(),
            own: None,
            own_stamp: Stamp::default(),
            changes: CatalogChanges::default(),
            refresh: Refresh::default(),
            key: Vec::new(),
            shared,
            source,
            active,
            seen_policies,
            seen_catalogs,
            stamp,
            profile,
            state,
        }
    }

    /// Takes up a new policy set, new mask rules, a new catalogue, a new hour.
    fn renew(&mut self, now: Timestamp) {
        if self.shared.generation() != self.seen_policies {
            (self.active, self.seen_policies) = self.shared.active();
            let path = self.search_path.clone();
            let key = ProfileKey::new(self.shared.id, &self.active.set, &self.session, self.source, path);
            self.profile = profile(key, &self.active.set, &self.session);
            self.stamp.masks = self.active.masks_generation;
            self.own = None;
        }
        let catalogs = self.shared.catalogs.generation();
        if catalogs != self.seen_catalogs {
            self.seen_catalogs = catalogs;
            self.stamp.catalog = self.shared.catalogs.current(&self.session.target);
        }
        self.stamp.hour = hour(&self.active.set, now);
    }

    /// Has the request wait for a newer catalogue.
    fn refresh(&mut self, now: Timestamp, request: RequestId) -> NotReady {
        self.refresh.start(&*self.shared.catalogs, &self.session.target, (request, self.changes.epoch), now)
    }

    /// A statement that came as text.
    fn sql(
        &mut self,
        now: Timestamp,
        request: &Request,
        text: &Bytes,
        approval: Option<&Approval>,
    ) -> Result<Decision, NotReady> {
        let settled = !self.changes.is_unsettled();
        let lexed = self.make_key(text);
        if settled && let Some(found) = self.recall(text) {
            return Ok(self.settle(request, &found, approval));
        }
        let analysis = Arc::new(sql::analyze_bytes(text, self.stamp.catalog.as_deref(), &self.state));
        self.wait_for_catalog(now, request.id, &analysis)?;
        let decided = Arc::new(self.decide_analyses(now, std::str::from_utf8(text).ok(), vec![analysis]));
        if settled && lexed && !self.is_blind() {
            self.remember(text, &decided);
        }
        Ok(self.settle(request, &decided, approval))
    }

    /// Writes the statement's key; `false`: it has none.
    fn make_key(&mut self, text: &[u8]) -> bool {
        self.key.clear();
        self.key.push(BY_SHAPE);
        let Ok(lexed) = sql::fingerprint(text, &mut self.key) else { return false };
        if lexed.literals_matter || self.active.reads_statement {
            self.key_by_text(text);
        }
        true
    }

    /// Writes the key of exactly this text.
    fn key_by_text(&mut self, text: &[u8]) {
        self.key.clear();
        self.key.push(BY_TEXT);
        self.key.extend_from_slice(text);
    }

    /// The decision that was made before on the statement whose key was written.
    fn recall(&mut self, text: &[u8]) -> Option<Arc<Decided>> {
        match self.look_up()? {
            Remembered::Decided(decided) => Some(decided),
            Remembered::ByText => {
                self.key_by_text(text);
                match self.look_up()? {
                    Remembered::Decided(decided) => Some(decided),
                    Remembered::ByText => None,
                }
            }
        }
    }

    fn look_up(&mut self) -> Option<Remembered> {
        let generation = self.state.generation();
        if generation != self.pristine
            && let Some(own) = &mut self.own
        {
            if !self.own_stamp.same(&self.stamp) {
                own.clear();
            } else if let Some(found) = own.get(&self.key).filter(|found| found.holds(generation)) {
                return Some(found.clone());
            }
        }
        let mut memory = self.profile.memory.lock();
        memory.renew(&self.stamp);
        // What was decided in a pristine state holds in all of them: they differ by nothing.
        let pristine = generation == self.pristine;
        memory.decisions.get(&self.key).filter(|found| pristine || found.is_stateless()).cloned()
    }

    fn remember(&mut self, text: &[u8], decided: &Arc<Decided>) {
        let [analysis] = decided.analyses.as_slice() else { return };
        // A name that is not in the catalogue, or that no statement was made under, may be there the next time.
        if analysis.unresolved || analysis.depends_on_statements || self.key.len() > CACHED_KEY_MAX {
            return;
        }
        if analysis.literals_matter && self.key.first() == Some(&BY_SHAPE) {
            self.put(Remembered::ByText, decided.state.is_some());
            if text.len() >= CACHED_KEY_MAX {
                return;
            }
            self.key_by_text(text);
        }
        self.put(Remembered::Decided(decided.clone()), decided.state.is_some());
    }

    fn put(&mut self, remembered: Remembered, stateful: bool) {
        if stateful && self.state.generation() != self.pristine {
            let own = self.own.get_or_insert_with(|| Box::new(Cache::new(SESSION_DECISIONS_MAX, CACHED_BYTES_MAX)));
            if !self.own_stamp.same(&self.stamp) {
                own.clear();
                self.own_stamp = self.stamp.clone();
            }
            own.insert(&self.key, remembered);
            return;
        }
        let mut memory = self.profile.memory.lock();
        memory.renew(&self.stamp);
        memory.decisions.insert(&self.key, remembered);
    }

    /// A statement or cursor that was made in SQL, by its name.
    fn named(&mut self, now: Timestamp, request: RequestId, cursor: bool, name: &[u8]) -> Result<Decided, NotReady> {
        let (kind, known) = match std::str::from_utf8(name) {
            Ok(text) if cursor => ("cursor", self.state.cursor(text)),
            Ok(text) => ("prepared statement", self.state.prepared(text)),
            Err(_) => ("name", None),
        };
        let Some(analyses) = known else {
            let mut facts = Facts::default();
            facts.add_unknown(format!("{kind} \"{}\" was not made in this session", String::from_utf8_lossy(name)));
            return Ok(self.decide_facts(now, &facts, None, Ok(Disclosure::default())));
        };
        // The server looks their names up again.
        let renewed = analyses.iter().map(|analysis| sql::renewed(analysis, self.stamp.catalog.as_deref(), &self.state));
        let analyses: Vec<Arc<Analysis>> = renewed.map(Arc::new).collect();
        for analysis in &analyses {
            self.wait_for_catalog(now, request, analysis)?;
        }
        Ok(self.decide_analyses(now, None, analyses))
    }

    /// Whether it cannot be told which columns are masked.
    fn is_blind(&self) -> bool {
        self.stamp.catalog.is_none() && self.active.masks.covers(&self.session.target.connection)
    }

    /// Waits for a newer catalogue if the analysis needs one.
    fn wait_for_catalog(&mut self, now: Timestamp, request: RequestId, analysis: &Analysis) -> Result<(), NotReady> {
        if self.refresh.is_unfinished(request) {
            return Err(self.refresh(now, request));
        }
        let names = !analysis.relations.is_empty() || !analysis.functions.is_empty() || analysis.unresolved;
        let blind = self.is_blind();
        if names && (self.changes.stale || blind) {
            match self.refresh.outcome(&*self.shared.catalogs, &self.session.target, (self.changes.epoch, !blind), now) {
                refresh::Outcome::None => return Err(self.refresh(now, request)),
                refresh::Outcome::Loaded => self.changes.stale = false,
                // It stays as it was: what is masked is not read now.
                refresh::Outcome::Failed => {}
            }
        }
        let looked = self.refresh.was_for(request);
        if analysis.unresolved && !looked && self.shared.may_refresh(now, &self.session.target, &unresolved_name(analysis)) {
            return Err(self.refresh(now, request));
        }
        Ok(())
    }

    /// Decides a request that is all of `analyses`: one, or those that a name may stand for.
    fn decide_analyses(&mut self, now: Timestamp, statement: Option<&str>, analyses: Vec<Arc<Analysis>>) -> Decided {
        let facts = merged(&analyses);
        let disclosed = self.mask_view(now).disclose(&analyses, &self.state, self.changes.is_unsettled());
        let (disclosure, redefines) = match disclosed {
            Ok((disclosure, redefines)) => (Ok(disclosure), redefines),
            Err(refusal) => (Err(refusal), false),
        };
        let stateful = analyses.iter().any(|analysis| analysis.depends_on_state);
        let mut decided = self.decide_facts(now, &facts, statement, disclosure);
        decided.state = (stateful || analyses.len() != 1).then(|| self.state.generation());
        decided.transaction = analyses.iter().map(|analysis| Boundary::of(analysis)).fold(Boundary::None, Boundary::and_then);
        decided.changes_catalog = redefines || analyses.iter().any(|analysis| analysis.changes_catalog);
        decided.analyses = analyses;
        decided
    }

    fn decide_facts(
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
    fn with_unread_text(&self, facts: &Facts, statement: Option<&str>) -> Facts {
        let mut facts = facts.clone();
        let opening = facts.operations.iter().all(|operation| operation.action == CONNECT) && !facts.operations.is_empty();
        if statement.is_none() && self.active.reads_statement && !opening {
            facts.add_unknown("a policy reads the statement's text, and this request has none");
        }
        facts
    }

    fn judge(&self, now: Timestamp, subject: &Subject, facts: &Facts, statement: &str) -> Judgement {
        let operations = required(facts);
        if operations.len() > OPERATIONS_MAX {
            let what = format!("a request that does {} things, more than {OPERATIONS_MAX}", operations.len());
            return refused(what, "split it into several");
        }
        let circumstances = Circumstances { unknown: unknowns(facts), ..self.circumstances(now, &facts.kinds, statement) };
        let outcomes = if self.active.reads_operations_alone {
            self.outcomes(subject, &operations, &circumstances)
        } else {
            subject.decide(&operations, &circumstances)
        };
        judge(self.asked(facts), &operations, &outcomes)
    }

    /// Cedar's answers to `operations`, those that it gave before from memory.
    fn outcomes(&self, subject: &Subject, operations: &[Operation], circumstances: &Circumstances<'_>) -> Vec<Outcome> {
        let keys: Vec<Vec<u8>> = operations.iter().map(operation_key).collect();
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

    fn asked<'a>(&'a self, facts: &'a Facts) -> Asked<'a> {
        Asked { set: &self.active.set, principal: &self.session.principal, target: &self.session.target, facts }
    }

    fn circumstances<'a>(&'a self, now: Timestamp, kinds: &'a [String], statement: &'a str) -> Circumstances<'a> {
        Circumstances { kinds, unknown: Vec::new(), statement, application: &self.session.application, source: self.source, now }
    }

    /// Makes decisions of a judgement and of what may come back.
    fn decided(&self, judgement: Judgement, facts: Facts, disclosure: Result<Disclosure, Refusal>) -> Decided {
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
    fn settle(&mut self, request: &Request, decided: &Decided, approval: Option<&Approval>) -> Decision {
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
    fn take_up(&mut self, request: &Request, decided: &Decided) {
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

    // ---- Masking ------------------------------------------------------------------------------------

    /// What is masked for this principal under the stamp.
    fn mask_view(&self, now: Timestamp) -> Arc<MaskView> {
        let mut memory = self.profile.memory.lock();
        memory.renew(&self.stamp);
        if let Some(view) = &memory.masks {
            return view.clone();
        }
        let circumstances = self.circumstances(now, &[], "");
        let sees = |class: &str| self.profile.subject.as_ref().is_ok_and(|subject| subject.unmasks(class, &circumstances));
        let view = Arc::new(self.shared.mask_view(&self.active, &self.session.target, self.stamp.catalog.as_ref(), sees));
        memory.masks = Some(view.clone());
        view
    }

    // ---- Other statements ---------------------------------------------------------------------------

    /// A function that is called by its number.
    fn function(&mut self, now: Timestamp, request: RequestId, oid: u32) -> Result<Decided, NotReady> {
        let found = self.stamp.catalog.as_ref().and_then(|catalog| catalog.function(oid));
        let found = found.map(|function| (function.schema.clone(), function.name.clone()));
        let large_object = || large_objects::name(oid).map(|name| ("pg_catalog".to_owned(), name.to_owned()));
        let Some((schema, name)) = found.or_else(large_object) else {
            let mut facts = Facts { kinds: vec!["CALL".to_owned()], ..Facts::default() };
            facts.add_unknown(format!("function number {oid} is not in the catalogue"));
            return Ok(self.decide_facts(now, &facts, None, Ok(Disclosure::default())));
        };
        // The same function, called in the words of SQL, has the same facts and the same masking.
        let statement = format!("SELECT {}.{}()", quoted(&schema), quoted(&name));
        let analysis = Arc::new(sql::analyze(&statement, self.stamp.catalog.as_deref(), &self.state));
        self.wait_for_catalog(now, request, &analysis)?;
        Ok(self.decide_analyses(now, None, vec![analysis]))
    }

    /// A request whose facts the protocol layer knows.
    fn facts(&self, now: Timestamp, request: &Request, facts: &Facts, text: &[u8]) -> Decided {
        let mut facts = facts.clone();
        if request.kind == RequestKind::Connect {
            facts.add(on_connection(CONNECT));
        }
        let replicates = facts.operations.iter().any(|operation| operation.action == "replicate");
        let disclosure = if replicates && !self.mask_view(now).hides_nothing() {
            Err(Refusal {
                message: "a replication stream would carry columns that are masked".to_owned(),
                remedy: "ask for the action unmask on the classes of this connection".to_owned(),
            })
        } else {
            Ok(Disclosure::default())
        };
        self.decide_facts(now, &facts, std::str::from_utf8(text).ok(), disclosure)
    }
}

// ---- For explanations -----------------------------------------------------------------------------------

impl Decider {
    /// The policy with this id in the set that the last decision was made by.
    pub(crate) fn policy(&self, id: &str) -> Option<&LoadedPolicy> {
        self.active.set.policy(id)
    }

    /// The classes that are masked for this principal.
    pub(crate) fn hidden_classes(&self, now: Timestamp) -> Vec<String> {
        self.mask_view(now).hidden()
    }

    /// The decision on opening the session.
    pub(crate) fn opening(&self, now: Timestamp) -> Decision {
        let mut facts = Facts::default();
        facts.add(on_connection(CONNECT));
        self.decide_facts(now, &facts, None, Ok(Disclosure::default())).plain
    }
}

impl SessionAuthorizer for Decider {
    fn decide(&mut self, now: Timestamp, request: &Request, approval: Option<&Approval>) -> Result<Decision, NotReady> {
        self.renew(now);
        let decided = match &request.statement {
            Statement::Sql(text) => return self.sql(now, request, text, approval),
            Statement::Named { cursor, name } => self.named(now, request.id, *cursor, name)?,
            Statement::Function(oid) => self.function(now, request.id, *oid)?,
            Statement::Facts { facts, text } => self.facts(now, request, facts, text),
        };
        Ok(self.settle(request, &decided, approval))
    }

    fn completed(&mut self, request: RequestId, succeeded: bool) {
        self.changes.completed(request, succeeded);
    }

    fn still_connected(&mut self, now: Timestamp) -> Result<(), DenyReason> {
        self.renew(now);
        match self.opening(now).verdict {
            // An approval of the opening was for the session, not for a moment of it.
            Verdict::Allow | Verdict::Hold(_) => Ok(()),
            Verdict::Deny(reason) => Err(reason),
        }
    }
}

impl std::fmt::Debug for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decider").field("session", &self.session.id).finish_non_exhaustive()
    }
}

impl Remembered {
    /// Whether it holds in a session whose state has this generation.
    fn holds(&self, generation: u64) -> bool {
        match self {
            Self::ByText => true,
            Self::Decided(decided) => decided.state.is_none_or(|state| state == generation),
        }
    }

    /// Whether it holds whatever a session did before.
    fn is_stateless(&self) -> bool {
        match self {
            Self::ByText => true,
            Self::Decided(decided) => decided.state.is_none(),
        }
    }
}

/// Whether `approval` is what `rule` asks for: from all the groups, and under the same policy set.
fn satisfies(approval: &Approval, rule: &ApprovalRule, decision: &Decision) -> bool {
    approval.policy_version == decision.policy_version && rule.reviewers.iter().all(|group| approval.reviewers.contains(group))
}

fn refused(what: impl Into<String>, remedy: &str) -> Judgement {
    let reason = DenyReason { policy: None, what: what.into(), remedy: remedy.to_owned() };
    Judgement { verdict: Verdict::Deny(reason), policies: Vec::new(), once_approved: Vec::new() }
}

/// The whole of an operation, every part with its length.
fn operation_key(operation: &Operation) -> Vec<u8> {
    let kind = operation.object.kind.as_str();
    let mut key = vec![match operation.has_where {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }];
    for part in [operation.action.as_str(), kind].into_iter().chain(operation.object.path.iter().map(String::as_str)) {
        key.extend_from_slice(&(part.len() as u64).to_le_bytes());
        key.extend_from_slice(part.as_bytes());
    }
    key
}

fn unknowns(facts: &Facts) -> Vec<String> {
    facts.unknown.iter().map(|unknown| unknown.what.clone()).collect()
}

/// All that `analyses` do, together.
fn merged(analyses: &[Arc<Analysis>]) -> Facts {
    let mut facts = Facts::default();
    for analysis in analyses {
        analysis.facts.operations.iter().cloned().for_each(|operation| facts.add(operation));
        analysis.facts.unknown.iter().for_each(|unknown| facts.add_unknown(unknown.what.clone()));
        facts.kinds.extend(analysis.facts.kinds.iter().cloned());
        facts.attributes.extend(analysis.facts.attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    facts
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The peer's address for policies. What is not an address is none: 0.0.0.0, which no network contains but
/// that of all addresses. An IPv4 address in IPv6's clothes is the IPv4 address that policies name.
fn source_address(source: &str) -> IpAddr {
    let bare = source.split('%').next().unwrap_or(source);
    bare.parse::<IpAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical())
}

/// A name for the relations that an analysis did not find.
fn unresolved_name(analysis: &Analysis) -> String {
    let names = analysis.relations.iter().map(|relation| format!("{}.{}", relation.schema, relation.name));
    names.collect::<Vec<_>>().join(",")
}
