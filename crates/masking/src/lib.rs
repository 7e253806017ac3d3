//! Which result columns are sensitive, and what they look like to those who may not see them.
//!
//! ```text
//! config ──▶ MaskRules ──build(connection, catalogue)──▶ MaskPlan      (table, column) → class
//! statement's tree ──flows(plan, names)──▶ Flows         what could leave, and how; remembered with the statement
//! Flows ──disclose(plan, hidden classes)──▶ Disclosure   rules for the session, or a refusal with its remedy
//! ```
//!
//! [`disclose`] is called for each request, and cheap; [`flows`] for each new statement; [`MaskPlan::build`] for each
//! new catalogue. Nothing here does I/O.
//!
//! Start reading at [`lineage`], which says what is found and what is not.

mod class;
pub mod detect;
mod disclose;
pub mod grammar;
pub mod lineage;
mod pattern;
mod plan;
mod rules;
#[cfg(test)]
mod shop;
mod transform;

pub use class::{CLASSES_MAX, ClassSet};
pub use disclose::{Circumstances, CopyOut, Refusal, disclose};
pub use lineage::{Candidates, CatalogResolver, Flows, Resolve, Untraced, Why, flows, is_built_in};
pub use plan::MaskPlan;
pub use rules::{
    Classify, HASH_SECRET_MIN, MaskRules, MaskSpec, MaskWith, PATTERNS_MAX, RuleProblem, Suspicious, suggested_class,
};
