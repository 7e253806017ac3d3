//! Views: the classes of their columns, through their definitions.

use super::{Mark, MaskPlan, is_system};
use crate::class::ClassSet;
use crate::grammar;
use crate::lineage::{Analyzer, Candidates, Resolve, Taint, Why};
use hashbrown::HashMap;
use pg_query::protobuf::{Node, ParseResult};
use proxy_core::Catalog;
use proxy_core::catalog::RelationKind;
use std::sync::Arc;

/// Longest definition that is parsed, in bytes. A longer one counts as not followed.
const DEFINITION_MAX: usize = 1 << 20;

/// Names in a definition are qualified, save those of `pg_catalog`.
struct Qualified<'c>(&'c Catalog);

impl Resolve for Qualified<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Candidates {
        let found = self.0.find(schema.unwrap_or("pg_catalog"), name).map(|relation| relation.oid);
        Candidates { known: found.into_iter().collect(), temporary: false, unknown: found.is_none() }
    }
}

/// Marks the columns of views that hold something of a classified column. `declared` is what patterns say.
pub(super) fn mark(plan: &mut MaskPlan, declared: &HashMap<(u32, i16), Mark>) {
    let catalog = plan.catalog.clone();
    let views = catalog.relations().iter().filter(|relation| {
        !is_system(relation)
            && match relation.kind {
                RelationKind::View | RelationKind::MaterializedView => true,
                RelationKind::Table | RelationKind::ForeignTable | RelationKind::Sequence | RelationKind::Composite => false,
            }
    });
    let views = views.map(|view| (view, view.definition.as_deref().and_then(parse))).collect::<Vec<_>>();
    // Each round carries classes one view further; classes are only ever added, so it ends.
    let rounds = views.len() + 1;
    for _ in 0..rounds {
        let mut changed = false;
        for (view, tree) in &views {
            let taints = match tree {
                Some(tree) => outputs(plan, &catalog, tree),
                None => Outputs { columns: Vec::new(), rest: Some(Taint::anything(Why::ViewComputes)) },
            };
            for (at, column) in view.columns.iter().enumerate() {
                let taint = taints.at(at);
                let key = (view.oid, column.number);
                let says = declared.get(&key).copied();
                if let Some(mark) = combine(says, taint)
                    && plan.marks.insert(key, mark) != Some(mark)
                {
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
        plan.index();
    }
}

/// What a view's column is, by what a pattern says of it and what its definition gives.
fn combine(declared: Option<Mark>, taint: Taint) -> Option<Mark> {
    let says = declared.map_or(ClassSet::EMPTY, Mark::classes);
    // "Anything" is answered by saying what it is.
    let answered = if says.is_empty() { ClassSet::EMPTY } else { says | ClassSet::ANYTHING };
    let computed = taint.computed.without(answered);
    let all = says | taint.direct | computed;
    if !computed.is_empty() {
        return Some(Mark::Opaque(all, Why::ViewComputes));
    }
    (!all.is_empty()).then_some(Mark::Class(all))
}

struct Outputs {
    columns: Vec<Taint>,
    rest: Option<Taint>,
}

impl Outputs {
    fn at(&self, at: usize) -> Taint {
        match (self.columns.get(at), self.rest) {
            // With columns of unknown number before or after it, any could be meant.
            (_, Some(rest)) => self.columns.iter().fold(rest, |all, taint| all.or(*taint)).through(Why::ViewComputes),
            (Some(taint), None) => *taint,
            (None, None) => Taint::anything(Why::ViewComputes),
        }
    }
}

fn parse(definition: &str) -> Option<ParseResult> {
    let bounded = definition.len() <= DEFINITION_MAX;
    bounded.then(|| grammar::parse(definition, 0).ok()).flatten()
}

fn outputs(plan: &MaskPlan, catalog: &Arc<Catalog>, tree: &ParseResult) -> Outputs {
    let statement: Option<&Node> = match &tree.stmts[..] {
        [only] => only.stmt.as_deref(),
        _ => None,
    };
    let Some(statement) = statement else {
        return Outputs { columns: Vec::new(), rest: Some(Taint::anything(Why::ViewComputes)) };
    };
    let names = Qualified(catalog);
    let mut analyzer = Analyzer::new(plan, &names);
    let columns = analyzer.query(statement, None);
    // A column of a view that is refused stays so in a view on it.
    let opaque = |taint: Taint| {
        let refused = taint.source.and_then(|(oid, column)| plan.mark(oid, column));
        match refused {
            Some(Mark::Opaque(..)) => taint.through(Why::ViewComputes),
            Some(Mark::Class(_)) | None => taint,
        }
    };
    Outputs { columns: columns.list.iter().map(|column| opaque(column.taint)).collect(), rest: columns.rest }
}
