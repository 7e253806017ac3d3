//! Asks Cedar: one principal on one target, one operation at a time.

use crate::names::{self, TargetNames};
use crate::schema::{ACTIONS, action_index};
use crate::set::{LoadedPolicy, PolicySet};
use crate::sql::{SENSITIVE, STATEMENT_COUNT};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PrincipalConstraint, Request, ResourceConstraint,
    RestrictedExpression,
};
use proxy_core::{Facts, Object, ObjectKind, Operation, Principal, Target, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// A principal on a target under one policy set: what is the same for every request.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) set: Arc<PolicySet>,
    pub(crate) names: TargetNames,
    pub(crate) target: Target,
    principal: EntityUid,
    roles: BTreeSet<EntityUid>,
    /// Actions, principal, roles, connection, database.
    base: Entities,
    /// For each action, the policies whose scope this principal and target can match. Made when first asked.
    slices: Vec<OnceLock<cedar_policy::PolicySet>>,
}

/// What is particular to one request.
#[derive(Debug, Clone)]
pub(crate) struct Circumstances<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) statement: &'a str,
    pub(crate) application: &'a str,
    pub(crate) source: IpAddr,
    pub(crate) now: Timestamp,
}

/// Cedar's answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// These policies permit it.
    Allowed(Vec<Arc<str>>),
    /// These `@approval` policies alone forbid it; `permits` permit it once they are satisfied.
    Held { policies: Vec<Arc<str>>, permits: Vec<Arc<str>> },
    /// These policies forbid it; none: nothing permits it.
    Refused(Vec<Arc<str>>),
    /// It could not be evaluated, by this policy's fault if it is named.
    Failed { policy: Option<Arc<str>>, error: String },
}

impl Outcome {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed { policy: None, error: error.to_string() }
    }
}

/// The action by which opening a session is decided, and every request that touches no object.
pub(crate) const CONNECT: &str = "connect";
/// The action for what could not be told.
pub(crate) const UNKNOWN: &str = "unknown";

/// An operation on the target as a whole.
pub(crate) fn on_connection(action: &str) -> Operation {
    Operation { action: action.to_owned(), object: Object { kind: ObjectKind::Connection, path: Vec::new() }, has_where: None }
}

/// The operations that must be allowed for a request: those of its facts, `unknown` if something in it is
/// not known, and `connect` if there is none at all.
pub(crate) fn required(facts: &Facts) -> Vec<Operation> {
    let mut operations = facts.operations.clone();
    if !facts.unknown.is_empty() && !operations.iter().any(|operation| operation.action == UNKNOWN) {
        operations.push(on_connection(UNKNOWN));
    }
    if operations.is_empty() {
        operations.push(on_connection(CONNECT));
    }
    operations
}

impl Subject {
    /// # Errors
    /// In words: an entity cannot be built. Then nothing is allowed.
    pub(crate) fn new(set: Arc<PolicySet>, principal: &Principal, target: &Target) -> Result<Self, String> {
        let names = TargetNames::new(target);
        let uid = names::principal(principal).map_err(|error| error.to_string())?;
        let mut roles = BTreeSet::new();
        let mut entities = Vec::new();
        for role in &principal.roles {
            let role = names::uid("Role", role).map_err(|error| error.to_string())?;
            if roles.insert(role.clone()) {
                entities.push(Entity::new_no_attrs(role, Default::default()));
            }
        }
        entities.push(principal_entity(&set, principal, &uid, &roles).map_err(|error| error.to_string())?);
        entities.extend(outer_entities(&names, target)?);
        let base = set
            .schema
            .schema
            .action_entities()
            .and_then(|actions| actions.add_entities(entities, None))
            .map_err(|error| error.to_string())?;
        let slices = ACTIONS.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { set, names, target: target.clone(), principal: uid, roles, base, slices })
    }

    /// Decides `operations`, each by itself, in their order.
    pub(crate) fn decide(&self, operations: &[Operation], circumstances: &Circumstances<'_>) -> Vec<Outcome> {
        let entities = match self.entities(operations.iter().map(|operation| &operation.object)) {
            Ok(entities) => entities,
            Err(error) => return operations.iter().map(|_| Outcome::failed(&error)).collect(),
        };
        operations.iter().map(|operation| self.operation(operation, &entities, circumstances)).collect()
    }

    /// Whether `class` may be seen in clear. Where it cannot be told, it may not.
    pub(crate) fn unmasks(&self, class: &str, circumstances: &Circumstances<'_>) -> bool {
        let Ok(uid) = names::uid("DataClass", class) else { return false };
        let Ok(database) = names::uid("Database", &self.names.database) else { return false };
        let Ok(entity) = self.entity(&uid, [("name", class)], [database]) else { return false };
        let Ok(entities) = self.base.clone().add_entities([entity], None) else { return false };
        matches!(self.ask("unmask", &uid, None, &entities, circumstances), Outcome::Allowed(_))
    }

    fn operation(&self, operation: &Operation, entities: &Entities, circumstances: &Circumstances<'_>) -> Outcome {
        let kind = operation.object.kind.as_str();
        let known = action_index(&operation.action).is_some_and(|at| self.set.schema.applies(at, kind));
        if !known {
            return Outcome::failed(format!("the policy schema has no action {} on {kind}", operation.action));
        }
        match self.object_uid(&operation.object) {
            Ok(uid) => self.ask(&operation.action, &uid, operation.has_where, entities, circumstances),
            Err(error) => Outcome::failed(error),
        }
    }

    fn ask(
        &self,
        action: &str,
        resource: &EntityUid,
        has_where: Option<bool>,
        entities: &Entities,
        circumstances: &Circumstances<'_>,
    ) -> Outcome {
        let answer = |approved: bool| self.answer(action, resource, (approved, has_where), entities, circumstances);
        let first = match answer(false) {
            Ok((true, permits)) => return Outcome::Allowed(permits),
            Ok((false, forbids)) => forbids,
            Err(failed) => return failed,
        };
        let asks = |id: &Arc<str>| self.set.policy(id).is_some_and(|policy| policy.approval.is_some());
        if first.is_empty() || !first.iter().all(asks) {
            return Outcome::Refused(first);
        }
        match answer(true) {
            Ok((true, permits)) => Outcome::Held { policies: first, permits },
            // Approved or not, it would be refused: asking for an approval would be of no use.
            Ok((false, forbids)) => Outcome::Refused(forbids),
            Err(failed) => failed,
        }
    }

    /// Whether it is allowed, and the policies that determined that, sorted.
    fn answer(
        &self,
        action: &str,
        resource: &EntityUid,
        (approved, has_where): (bool, Option<bool>),
        entities: &Entities,
        circumstances: &Circumstances<'_>,
    ) -> Result<(bool, Vec<Arc<str>>), Outcome> {
        let at = action_index(action).ok_or_else(|| Outcome::failed(format!("no action {action}")))?;
        let slice = self.slices.get(at).ok_or_else(|| Outcome::failed(format!("no action {action}")))?;
        let policies = slice.get_or_init(|| self.slice(at));
        let context = context(action, approved, has_where, circumstances).map_err(Outcome::failed)?;
        let uid = names::uid("Action", action).map_err(Outcome::failed)?;
        let request = Request::new(self.principal.clone(), uid, resource.clone(), context, None).map_err(Outcome::failed)?;
        let response = Authorizer::new().is_authorized(&request, policies, entities);
        let id = |id: &cedar_policy::PolicyId| {
            self.set.policy(id.as_ref()).map_or_else(|| Arc::from(id.as_ref()), |policy| policy.id.clone())
        };
        let allowed = response.decision() == Decision::Allow;
        // Cedar leaves out a policy that fails. A forbid that is left out would let through what it forbids;
        // a permit that is left out permits nothing, which needs telling only where nothing else decided.
        let silent = response.diagnostics().reason().next().is_none();
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            let forbids = self.set.policy(error.policy_id().as_ref()).is_none_or(|policy| policy.forbids);
            if forbids || silent {
                return Err(Outcome::Failed { policy: Some(id(error.policy_id())), error: error.inner().to_string() });
            }
        }
        let mut reasons: Vec<Arc<str>> = response.diagnostics().reason().map(id).collect();
        reasons.sort();
        Ok((allowed, reasons))
    }

    /// The policies whose scope can match this principal, this target and the action at `at`: a policy
    /// whose scope does not match has no say, so leaving it out changes no answer.
    fn slice(&self, at: usize) -> cedar_policy::PolicySet {
        let mut slice = cedar_policy::PolicySet::new();
        for policy in self.set.policies() {
            if policy.actions.contains(at) && self.can_match(policy) {
                // Ids are unique within a set.
                let _ = slice.add(policy.cedar.clone());
            }
        }
        slice
    }

    fn can_match(&self, policy: &LoadedPolicy) -> bool {
        let principal = match &policy.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => *uid == self.principal,
            PrincipalConstraint::In(uid) => *uid == self.principal || self.roles.contains(uid),
            PrincipalConstraint::Is(kind) => kind == self.principal.type_name(),
            PrincipalConstraint::IsIn(kind, uid) => {
                kind == self.principal.type_name() && (*uid == self.principal || self.roles.contains(uid))
            }
        };
        principal
            && match &policy.resource {
                ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
                ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                    self.can_hold(uid)
                }
            }
    }

    /// Whether an object of this target can be, or be in, `uid`.
    fn can_hold(&self, uid: &EntityUid) -> bool {
        let id = uid.id().unescaped();
        let below = |outer: &str| id.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        match uid.type_name().basename() {
            "Connection" => id == self.names.connection,
            "Database" => id == self.names.database,
            "Schema" | "Table" | "Function" => below(&self.names.database),
            "Namespace" | "KubeResource" => below(&self.names.connection),
            "Host" => id == self.names.connection || below(&self.names.connection),
            _ => true,
        }
    }

    fn object_uid(&self, object: &Object) -> Result<EntityUid, String> {
        names::uid(object.kind.as_str(), &self.names.object(object)).map_err(|error| error.to_string())
    }

    /// The base entities with those of `objects` and what they are in.
    fn entities<'a>(&self, objects: impl Iterator<Item = &'a Object>) -> Result<Entities, String> {
        let mut added: BTreeMap<EntityUid, Entity> = BTreeMap::new();
        for object in objects {
            for entity in self.object_entities(object)? {
                added.entry(entity.uid()).or_insert(entity);
            }
        }
        if added.is_empty() {
            return Ok(self.base.clone());
        }
        self.base.clone().add_entities(added.into_values(), None).map_err(|error| error.to_string())
    }

    fn object_entities(&self, object: &Object) -> Result<Vec<Entity>, String> {
        let bad = |error: names::BadName| error.to_string();
        let uid = self.object_uid(object)?;
        let first = object.path.first().map_or("", String::as_str);
        let name = object.path.get(1).map_or("", String::as_str);
        let database = || names::uid("Database", &self.names.database).map_err(bad);
        let connection = || names::uid("Connection", &self.names.connection).map_err(bad);
        match object.kind {
            ObjectKind::Connection | ObjectKind::Database => Ok(Vec::new()),
            ObjectKind::Schema => Ok(vec![self.entity(&uid, [("name", first)], [database()?])?]),
            ObjectKind::Table | ObjectKind::Function => {
                let schema = names::uid("Schema", &self.names.schema(first)).map_err(bad)?;
                let outer = self.entity(&schema, [("name", first)], [database()?])?;
                Ok(vec![outer, self.entity(&uid, [("name", name), ("schema", first)], [schema])?])
            }
            ObjectKind::Namespace => Ok(vec![self.entity(&uid, [("name", first)], [connection()?])?]),
            ObjectKind::KubeResource => {
                let namespace = names::uid("Namespace", &self.names.namespace(first)).map_err(bad)?;
                let outer = self.entity(&namespace, [("name", first)], [connection()?])?;
                let last = object.path.get(2).map_or("", String::as_str);
                let attributes = [("namespace", first), ("kind", name), ("name", last)];
                Ok(vec![outer, self.entity(&uid, attributes, [namespace])?])
            }
            ObjectKind::Host => Ok(vec![self.entity(&uid, [("path", first)], [connection()?])?]),
        }
    }

    /// An entity with the target's tags and owner.
    fn entity<'a>(
        &'a self,
        uid: &EntityUid,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
        parents: impl IntoIterator<Item = EntityUid>,
    ) -> Result<Entity, String> {
        tagged(&self.target, uid, attributes, parents)
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn tagged<'a>(
    target: &'a Target,
    uid: &EntityUid,
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    parents: impl IntoIterator<Item = EntityUid>,
) -> Result<Entity, String> {
    let owner = target.owner.as_deref().map(|owner| ("owner", owner));
    let attributes = attributes.into_iter().chain(owner).map(|(name, value)| (name.to_owned(), text(value)));
    let tags = target.tags.iter().map(|(name, value)| (name.clone(), text(value)));
    Entity::new_with_tags(uid.clone(), attributes, parents, tags).map_err(|error| error.to_string())
}

/// The principal, with those of its claims that policies read: others cannot change an answer, and some
/// (when the token was issued, its id) change with every token.
fn principal_entity(
    set: &PolicySet,
    principal: &Principal,
    uid: &EntityUid,
    roles: &BTreeSet<EntityUid>,
) -> Result<Entity, String> {
    let optional = [("tenant", &principal.tenant), ("application", &principal.application)];
    let optional = optional.into_iter().filter_map(|(name, value)| value.as_deref().map(|value| (name, value)));
    let mut attributes: Vec<(String, RestrictedExpression)> = [("issuer", &*principal.issuer), ("subject", &*principal.subject)]
        .into_iter()
        .chain(optional)
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect();
    attributes.push(("roles".to_owned(), RestrictedExpression::new_set(principal.roles.iter().map(|role| text(role)))));
    let tags = read_claims(set, principal).map(|(name, value)| (name.to_owned(), text(value)));
    Entity::new_with_tags(uid.clone(), attributes, roles.iter().cloned(), tags).map_err(|error| error.to_string())
}

/// The claims that policies of `set` read.
pub(crate) fn read_claims<'a>(set: &'a PolicySet, principal: &'a Principal) -> impl Iterator<Item = (&'a str, &'a str)> {
    let claims = principal.claims.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    claims.filter(|(name, _)| set.reads().tag(name))
}

fn outer_entities(names: &TargetNames, target: &Target) -> Result<[Entity; 2], String> {
    let connection = names::uid("Connection", &names.connection).map_err(|error| error.to_string())?;
    let database = names::uid("Database", &names.database).map_err(|error| error.to_string())?;
    let attributes = [
        ("name", &*target.connection),
        ("address", &*target.address),
        ("database", &*target.database),
        ("upstream_user", &*target.upstream_user),
    ];
    Ok([tagged(target, &connection, attributes, [])?, tagged(target, &database, [("name", &*target.database)], [connection])?])
}

/// Hour (0 to 23) and weekday (1 Monday to 7 Sunday), UTC.
fn hour_and_weekday(now: Timestamp) -> (i64, i64) {
    let seconds = now.seconds();
    let day = seconds.div_euclid(86_400);
    // 1970-01-01 was a Thursday.
    (seconds.rem_euclid(86_400) / 3_600, (day + 3).rem_euclid(7) + 1)
}

fn context(
    action: &str,
    approved: bool,
    has_where: Option<bool>,
    circumstances: &Circumstances<'_>,
) -> Result<Context, cedar_policy::ContextCreationError> {
    let (hour, weekday) = hour_and_weekday(circumstances.now);
    let facts = circumstances.facts;
    let attribute = |name: &str| facts.attributes.get(name).map_or("", String::as_str);
    let listed = attribute(SENSITIVE).split(',').filter(|name| !name.is_empty());
    let mut pairs = vec![
        ("approved".to_owned(), RestrictedExpression::new_bool(approved)),
        ("kinds".to_owned(), RestrictedExpression::new_set(facts.kinds.iter().map(|kind| text(kind)))),
        ("statements".to_owned(), RestrictedExpression::new_long(attribute(STATEMENT_COUNT).parse().unwrap_or(1))),
        ("sensitive_catalog".to_owned(), RestrictedExpression::new_set(listed.map(text))),
        ("statement".to_owned(), text(circumstances.statement)),
        ("application".to_owned(), text(circumstances.application)),
        ("source".to_owned(), RestrictedExpression::new_ip(circumstances.source.to_string())),
        ("hour".to_owned(), RestrictedExpression::new_long(hour)),
        ("weekday".to_owned(), RestrictedExpression::new_long(weekday)),
    ];
    match action {
        // Where the protocol could not tell, the rows count as not limited.
        "update" | "delete" => {
            pairs.push(("has_where".to_owned(), RestrictedExpression::new_bool(has_where.unwrap_or(false))));
        }
        UNKNOWN => {
            let unknown = facts.unknown.iter().map(|unknown| text(&unknown.what));
            pairs.push(("unknown".to_owned(), RestrictedExpression::new_set(unknown)));
        }
        _ => {}
    }
    Context::from_pairs(pairs)
}

#[cfg(test)]
mod tests {
    use super::hour_and_weekday;
    use proxy_core::Timestamp;

    #[test]
    fn hours_and_weekdays() {
        assert_eq!(hour_and_weekday(Timestamp::from_seconds(0)), (0, 4), "a Thursday");
        // 2026-11-24 11:34:57 UTC, a Tuesday.
        assert_eq!(hour_and_weekday(Timestamp::from_seconds(1_795_520_097)), (11, 2));
        assert_eq!(hour_and_weekday(Timestamp::from_seconds(-1)), (23, 3));
    }
}
