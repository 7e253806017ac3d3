//! Decides: Cedar policies over facts, the facts of SQL, and what was decided before.
//!
//! ```text
//!  *.cedar ──set──▶ PolicySet ─┐
//!  SQL ─────sql──▶ Facts ──────┼─ evaluate ─▶ allow | deny | hold ─┐
//!  principal, target ──────────┘                                   ├─ session ─▶ Decision
//!  mask rules, catalogue ───────────────── masking ─▶ Disclosure ──┘   (remembered per statement)
//! ```
//!
//! - [`schema`]: what policies may speak of. [`set`]: a folder of policies, loaded whole or not at all.
//! - [`engine`]: the active set, reloads, and [`proxy_core::Authorizer`]. Start there.
//! - [`session`]: decisions of one session, in order, and what may be remembered of them.
//! - [`explain`]: one decision with its reasons, for people.
//! - [`starter`]: the policies that `sallyport init` writes.
//!
//! A decision is a function of the principal, the target, the request, the session's earlier requests, the
//! policy set, the mask rules, the catalogue, the approval and the hour. No other clock, no randomness.

mod approval;
mod cache;
pub mod catalog_source;
mod changes;
pub mod engine;
mod evaluate;
pub mod explain;
mod large_objects;
pub mod limits;
mod masks;
mod names;
pub mod problem;
mod profile;
pub mod reads;
mod refresh;
pub mod schema;
pub mod session;
pub mod set;
pub mod sql;
pub mod starter;
mod verdict;

pub use approval::ApprovalTerms;
pub use catalog_source::{CatalogSource, NoCatalog};
pub use engine::{Activation, PolicyEngine};
pub use explain::Explanation;
pub use problem::{LoadError, Problem, ProblemKind};
pub use set::{LoadedPolicy, PolicySet};
