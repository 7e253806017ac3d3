//! Which circumstances a policy reads: a decision may be remembered only under what it depends on.

use serde_json::Value;
use std::collections::BTreeSet;

/// What a policy, or a set of them, reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reads {
    /// Attributes of `context`, by name.
    pub context: BTreeSet<String>,
    /// The whole `context` in a way that cannot be told apart (compared, put into a record …).
    pub whole_context: bool,
    /// Tags that are asked for by name, of whatever entity.
    pub tags: BTreeSet<String>,
    /// A tag whose name is computed.
    pub any_tag: bool,
}

impl Reads {
    /// Whether `context.NAME` is, or may be, read.
    #[must_use]
    pub fn context(&self, name: &str) -> bool {
        self.whole_context || self.context.contains(name)
    }

    /// Whether the tag `name` is, or may be, read.
    #[must_use]
    pub fn tag(&self, name: &str) -> bool {
        self.any_tag || self.tags.contains(name)
    }

    /// Takes up what another policy reads.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.context.extend(other.context.iter().cloned());
        self.tags.extend(other.tags.iter().cloned());
        self.whole_context |= other.whole_context;
        self.any_tag |= other.any_tag;
    }

    /// What a policy in Cedar's JSON form reads.
    pub(crate) fn of(policy: &Value) -> Self {
        let mut reads = Self::default();
        if let Some(conditions) = policy.get("conditions") {
            reads.walk(conditions);
        }
        reads
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                for (key, inner) in fields {
                    if !self.context_access(key, inner) {
                        self.tag_access(key, inner);
                        self.whole_context |= key == "Var" && inner == "context";
                        self.walk(inner);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// `context.NAME` and `context has NAME`, where that is all there is to it.
    fn context_access(&mut self, key: &str, inner: &Value) -> bool {
        let on_context = matches!(key, "." | "has") && inner.pointer("/left/Var").is_some_and(|name| name == "context");
        let Some(name) = inner.get("attr").and_then(Value::as_str).filter(|_| on_context) else { return false };
        self.context.insert(name.to_owned());
        true
    }

    fn tag_access(&mut self, key: &str, inner: &Value) {
        if matches!(key, "hasTag" | "getTag") {
            match inner.pointer("/right/Value").and_then(Value::as_str) {
                Some(name) => {
                    self.tags.insert(name.to_owned());
                }
                None => self.any_tag = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reads;
    use cedar_policy::Policy;

    fn reads(condition: &str) -> Reads {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let policy = Policy::parse(None, text).expect("valid Cedar");
        Reads::of(&policy.to_json().expect("a JSON form"))
    }

    #[test]
    fn attributes_of_the_context_are_found_wherever_they_stand() {
        let found = reads(r#"context.approved || [1].contains(if context has statement then 1 else 2)"#);
        assert!(found.context("approved") && found.context("statement"));
        assert!(!found.context("hour"));
    }

    #[test]
    fn a_context_that_is_used_whole_counts_as_all_of_it() {
        assert!(reads("context == {approved: true}").context("statement"));
        assert!(reads(r#"{inner: context}.inner.statement like "x*""#).context("statement"));
    }

    #[test]
    fn tags_are_found_by_name_and_computed_ones_count_as_all() {
        let found = reads(r#"principal.hasTag("repo") && principal.getTag("repo") == "x""#);
        assert!(found.tag("repo") && !found.tag("ref"));
        assert!(reads("principal.hasTag(resource.name)").tag("ref"));
    }

    #[test]
    fn a_text_that_looks_like_an_access_does_no_harm() {
        let found = reads(r#"principal.subject == "context.statement""#);
        assert!(!found.context("statement"));
    }
}
