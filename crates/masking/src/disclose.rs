//! What one principal is shown of one request.

use crate::class::ClassSet;
use crate::lineage::{CopyFlow, Flows, Untraced, Why};
use crate::plan::{Mark, MaskPlan};
use bytes::Bytes;
use proxy_core::catalog::Relation;
use proxy_core::results::CopyFormat;
use proxy_core::{ColumnRule, CopyShape, Disclosure, Origin, ResultRules};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The first number of an object that is not built in.
const FIRST_USER_OID: u32 = crate::transform::oid::FIRST_USER;

/// Why a request is refused, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What would be shown, and how.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// How a COPY … TO STDOUT is written; from the statement's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOut {
    /// The stream's format.
    pub format: CopyFormat,
    /// `COPY (query)`: the query's text, without the parentheses.
    pub query: Option<Bytes>,
}

/// What else [`disclose`] must know of the session and the statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Circumstances {
    /// The request's COPY … TO STDOUT.
    pub copy: Option<CopyOut>,
    /// The session has changed what names mean ([`Flows::redefines`]) in a transaction that has not ended, or whose
    /// catalogue was not loaded since: the plan may be wrong for it.
    pub catalog_stale: bool,
}

/// What a principal from whom the classes `hidden` are hidden is shown of a request with these `flows`.
///
/// # Errors
/// [`Refusal`]: it would show a hidden class in a way that cannot be masked.
pub fn disclose(
    plan: &Arc<MaskPlan>,
    hidden: &BTreeSet<String>,
    flows: &Flows,
    circumstances: &Circumstances,
) -> Result<Disclosure, Refusal> {
    let hidden = plan.class_set(hidden);
    if hidden.is_empty() || plan.is_empty() {
        return Ok(Disclosure::default());
    }
    let hidden = hidden | ClassSet::ANYTHING;
    if let Some(untraced) = flows.untraced.iter().find(|untraced| untraced.classes.meets(hidden)) {
        return Err(refusal(plan, hidden, untraced));
    }
    // What is only read is refused when it arrives, which knows better what a name meant. What acts is refused before.
    if let Some(opaque) = flows.opaque.iter().find(|opaque| flows.acts && opaque.classes.meets(hidden)) {
        return Err(refusal(plan, hidden, opaque));
    }
    if circumstances.catalog_stale && flows.depends_on_catalog {
        return Err(Refusal {
            message: "views, functions or names have changed that are not in the gateway's catalogue yet".to_owned(),
            remedy: "commit, and try again".to_owned(),
        });
    }
    let rules = HiddenRules { plan: plan.clone(), hidden, temporary: flows.temporary };
    let copy = copy_shape(&rules, flows, circumstances)?;
    let shown = flows.touched.meets(hidden);
    let withhold_messages = flows.quoted.meets(hidden);
    let rules: Option<Arc<dyn ResultRules>> = if shown { Some(Arc::new(rules)) } else { None };
    Ok(Disclosure { rules, withhold_messages, copy })
}

fn refusal(plan: &MaskPlan, hidden: ClassSet, untraced: &Untraced) -> Refusal {
    let classes = plan.class_names(untraced.classes.intersection(hidden));
    let class = classes.first().map(String::as_str);
    let what = &untraced.what;
    let subject = match (what.is_empty(), class) {
        (false, Some(class)) => format!("{what} (class {class:?})"),
        (true, Some(class)) => format!("a column of class {class:?}"),
        (false, None) => what.clone(),
        (true, None) => "this request".to_owned(),
    };
    let unmask = match class {
        Some(class) => format!("ask for the action unmask on DataClass::{class:?}"),
        None => "ask for the action unmask on the classes of this connection".to_owned(),
    };
    let (message, remedy) = words(untraced.why, &subject);
    let remedy = if remedy.is_empty() { unmask } else { format!("{remedy}, or {unmask}") };
    Refusal { message, remedy }
}

/// What is wrong, and what to do instead.
fn words(why: Why, subject: &str) -> (String, &'static str) {
    const PLAIN: &str = "select the column as it is (it comes back masked)";
    let (text, remedy) = match why {
        Why::Expression => ("is masked, and is used in an expression here, whose value cannot be masked", PLAIN),
        Why::WholeRow => ("is masked, and is part of a row taken as one value here", "name the columns"),
        Why::SetOperation => ("is masked, and goes through UNION, INTERSECT, EXCEPT or a recursive query here", PLAIN),
        Why::MergedColumn => {
            ("is masked, and may be merged by a join with USING or NATURAL here", "join with ON and name the table")
        }
        Why::Values => ("is masked, and goes through VALUES here", PLAIN),
        Why::FromFunction => ("is masked, and is given to a function in FROM here", PLAIN),
        Why::UnknownName => ("is masked, and a name in this statement could mean it", "qualify the names"),
        Why::ViewComputes => ("is computed in a view from masked columns", "classify the view's column to say what it holds"),
        Why::Generated => ("is generated from a table's columns, some of which are masked", "classify it to say what it holds"),
        Why::UnsafeFunction => ("is a function that may return masked columns", "declare it in safe_functions"),
        Why::UnknownRelation => {
            ("is not in the gateway's catalogue, so it cannot be told what is masked", "try again once it is committed")
        }
        Why::Statistics => ("holds samples of columns, some of which are masked", ""),
        Why::Written => ("is masked, and would be copied to where it is not", "write it into a column of the same class"),
        Why::Kept => ("is masked, and would be given to a function that may keep or send it", ""),
        Why::ServerFile => ("is masked, and would be written to a file or program on the server", "COPY it TO STDOUT"),
        Why::NewName => ("is masked by its name, and would get another", ""),
        Why::Code => ("is code that could read masked columns", ""),
        Why::OtherWay => ("could open another way to masked columns", ""),
        Why::UnknownStored => {
            ("is not known to the gateway, so it cannot be told what it shows", "make it in this session, in SQL")
        }
        Why::ChangedBefore => ("changes what names mean and uses them in one batch", "send the statements one by one"),
        Why::TooComplex => ("is too large or too deeply nested to tell what it shows", "split it"),
        Why::UnknownKind => ("is of a kind that is not known, so it cannot be told what it shows", ""),
    };
    (format!("{subject} {text}"), remedy)
}

/// The shape of the request's COPY … TO STDOUT.
fn copy_shape(rules: &HiddenRules, flows: &Flows, circumstances: &Circumstances) -> Result<CopyShape, Refusal> {
    if flows.copies.is_empty() || !flows.touched.meets(rules.hidden) {
        return Ok(CopyShape::Pass);
    }
    let refused = |message: &str, remedy: &str| Refusal { message: message.to_owned(), remedy: remedy.to_owned() };
    let ([flow], Some(out)) = (&flows.copies[..], &circumstances.copy) else {
        return Err(refused(
            "a COPY that shows masked columns is not alone in its batch, or its form is not known",
            "send it by itself",
        ));
    };
    match flow {
        CopyFlow::Query => {
            let Some(query) = out.query.clone() else {
                return Err(refused("the query of a COPY that shows masked columns is not known", "select instead"));
            };
            Ok(CopyShape::Describe { query, format: out.format.clone() })
        }
        CopyFlow::Relation { candidates, columns } => {
            let relation = match candidates.known[..] {
                [oid] if !candidates.temporary && !candidates.unknown => rules.plan.catalog().relation(oid),
                _ => None,
            };
            let relation =
                relation.ok_or_else(|| refused("the table of this COPY could be one of several", "qualify its name"))?;
            let shape = copied(rules, relation, columns);
            let (rules, types) =
                shape.ok_or_else(|| refused("a column of this COPY is not in the gateway's catalogue", "try again"))?;
            Ok(CopyShape::Columns { rules, format: out.format.clone(), types })
        }
    }
}

/// Rules and types of the columns that COPY of a table writes: the named ones, or all that are not generated.
fn copied(rules: &HiddenRules, relation: &Relation, names: &[String]) -> Option<(Vec<ColumnRule>, Vec<u32>)> {
    let columns = if names.is_empty() {
        relation.columns.iter().filter(|column| !column.generated).collect::<Vec<_>>()
    } else {
        let find = |name: &String| relation.columns.iter().find(|column| column.name == *name);
        names.iter().map(find).collect::<Option<Vec<_>>>()?
    };
    let rule = |number, type_id| rules.column(Origin { table: relation.oid, column: number, type_id });
    Some((columns.iter().map(|c| rule(c.number, c.type_id)).collect(), columns.iter().map(|c| c.type_id).collect()))
}

/// The rules of one principal: classified columns of hidden classes are masked, or refused where they cannot be.
#[derive(Debug)]
struct HiddenRules {
    plan: Arc<MaskPlan>,
    /// With *anything*.
    hidden: ClassSet,
    /// The statement reads temporary tables, which are not in the catalogue.
    temporary: bool,
}

impl HiddenRules {
    fn refuse(text: &str) -> ColumnRule {
        ColumnRule::Refuse(text.into())
    }
}

impl ResultRules for HiddenRules {
    fn column(&self, origin: Origin) -> ColumnRule {
        // An expression: that it carries nothing hidden was found before the statement was forwarded.
        if origin.table == 0 {
            return ColumnRule::Pass;
        }
        let Some(relation) = self.plan.catalog().relation(origin.table) else {
            return if origin.table < FIRST_USER_OID || self.temporary {
                ColumnRule::Pass
            } else {
                Self::refuse("the server's catalogue has changed since it was loaded; try again")
            };
        };
        match origin.column {
            0 if self.plan.relation_classes(origin.table).meets(self.hidden) => {
                Self::refuse("a whole row holds masked columns; name the columns")
            }
            ..=0 => ColumnRule::Pass,
            number => match self.plan.mark(origin.table, number) {
                Some(mark) if !mark.classes().meets(self.hidden) => ColumnRule::Pass,
                Some(Mark::Class(classes)) => match self.plan.mask(classes.intersection(self.hidden)) {
                    Some(mask) => ColumnRule::Mask(mask.clone()),
                    None => Self::refuse("a masked column has no mask; report this"),
                },
                Some(Mark::Opaque(classes, why)) => {
                    let what = self.plan.column_name((origin.table, number)).unwrap_or_default();
                    let refusal = refusal(&self.plan, self.hidden, &Untraced { classes, why, what });
                    Self::refuse(&format!("{}; {}", refusal.message, refusal.remedy))
                }
                None if relation.columns.iter().any(|column| column.number == number) => ColumnRule::Pass,
                None => Self::refuse("the server's catalogue has changed since it was loaded; try again"),
            },
        }
    }
}

#[cfg(test)]
#[path = "disclose_tests.rs"]
mod tests;
