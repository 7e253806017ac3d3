//! The Cedar schema: which principals, resources, actions and circumstances policies may speak of.
//!
//! Its text, with explanations, is `schema/sallyport.cedarschema`; `sallyport policy schema` prints it.

use cedar_policy::{CedarSchemaError, Schema};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// The schema's text.
pub const SCHEMA: &str = include_str!("../schema/sallyport.cedarschema");

/// Every action of the schema, in the schema's order. An action's place is its bit in [`ActionSet`].
pub const ACTIONS: [&str; 20] = [
    "connect",
    "select",
    "copy_out",
    "insert",
    "update",
    "delete",
    "truncate",
    "copy_in",
    "lock",
    "call",
    "ddl",
    "grant",
    "maintain",
    "set_role",
    "set",
    "replicate",
    "listen",
    "notify",
    "unknown",
    "unmask",
];

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ActionSet(u32);

impl ActionSet {
    /// All of them.
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// Adds the action at `at` of [`ACTIONS`].
    pub(crate) fn insert(&mut self, at: usize) {
        self.0 |= u32::try_from(at).ok().and_then(|at| 1u32.checked_shl(at)).unwrap_or(0);
    }

    /// Those of both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the action at `at` is in it.
    pub(crate) fn contains(self, at: usize) -> bool {
        u32::try_from(at).ok().and_then(|at| 1u32.checked_shl(at)).is_some_and(|bit| self.0 & bit != 0)
    }
}

/// The place of an action in [`ACTIONS`]; `None`: there is no such action.
#[must_use]
pub(crate) fn action_index(name: &str) -> Option<usize> {
    ACTIONS.iter().position(|action| *action == name)
}

/// The schema, parsed, with what the engine asks of it often.
#[derive(Debug, Clone)]
pub(crate) struct ParsedSchema {
    /// Cedar's own form.
    pub(crate) schema: Schema,
    /// For each action or group: the actions in it.
    pub(crate) members: BTreeMap<String, ActionSet>,
    /// Pairs of action and resource type that the schema knows.
    applies: BTreeSet<(usize, String)>,
}

impl ParsedSchema {
    /// Parses [`SCHEMA`].
    ///
    /// # Errors
    /// Cedar's: the embedded schema is broken. A test keeps that from being shipped.
    pub(crate) fn embedded() -> Result<Self, Box<CedarSchemaError>> {
        let schema = Schema::from_str(SCHEMA).map_err(Box::new)?;
        let mut members: BTreeMap<String, ActionSet> = BTreeMap::new();
        let mut applies = BTreeSet::new();
        let entities = schema.action_entities().ok();
        for action in schema.actions() {
            let name = action.id().unescaped();
            let Some(at) = action_index(name) else { continue };
            members.entry(name.to_owned()).or_default().insert(at);
            let ancestors = entities.as_ref().and_then(|entities| entities.ancestors(action)).into_iter().flatten();
            for group in ancestors {
                members.entry(group.id().unescaped().to_owned()).or_default().insert(at);
            }
            for resource in schema.resources_for_action(action).into_iter().flatten() {
                applies.insert((at, resource.to_string()));
            }
        }
        Ok(Self { schema, members, applies })
    }

    /// Whether the schema lets `action` be done to a resource of type `resource`.
    pub(crate) fn applies(&self, action: usize, resource: &str) -> bool {
        self.applies.contains(&(action, resource.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{ACTIONS, ParsedSchema, action_index};

    #[test]
    fn the_schema_parses_and_lists_the_actions() {
        let parsed = ParsedSchema::embedded().expect("the schema is valid");
        let mut declared: Vec<String> = parsed.schema.actions().map(|action| action.id().unescaped().to_owned()).collect();
        declared.retain(|name| !["read", "write", "administer"].contains(&name.as_str()));
        declared.sort();
        let mut listed: Vec<String> = ACTIONS.iter().map(|name| (*name).to_owned()).collect();
        listed.sort();
        assert_eq!(declared, listed);
    }

    #[test]
    fn groups_contain_their_actions() {
        let parsed = ParsedSchema::embedded().expect("the schema is valid");
        let write = parsed.members.get("write").expect("a group");
        assert!(write.contains(action_index("delete").expect("an action")));
        assert!(!write.contains(action_index("select").expect("an action")));
        assert!(parsed.applies(action_index("select").expect("an action"), "Table"));
        assert!(!parsed.applies(action_index("unmask").expect("an action"), "Table"));
    }
}
