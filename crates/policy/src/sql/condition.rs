//! Whether a condition limits what an UPDATE or a DELETE changes.
//!
//! It does if some row of the target could make it false by its values: a column of the target must be in it, and
//! not only compared with itself. So `WHERE true`, `WHERE 1 = 1`, `WHERE 'x' = 'x'`, `WHERE NOT false`,
//! `WHERE id = id`, `WHERE id = 5 OR true`, `WHERE $1` and `WHERE other.id = 1` are no conditions. The values of
//! literals do not matter. `WHERE id > -1`, `id IS NOT NULL OR id IS NULL` and their like are conditions: which
//! values there are is the server's to know.

use super::walk::{Walker, string};
use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, AExprKind, BoolExprType, ColumnRef, Node, RangeVar};
use proxy_core::Catalog;

/// What a condition is about.
pub(super) struct Target<'a> {
    /// The name by which the condition refers to it.
    name: &'a str,
    /// Its columns, where all that it may be are in the catalogue.
    columns: Option<Vec<&'a str>>,
}

impl<'a> Target<'a> {
    pub(super) fn new(var: &'a RangeVar, catalog: Option<&'a Catalog>, oids: &[Option<u32>]) -> Self {
        let name = var.alias.as_ref().map_or(&var.relname, |alias| &alias.aliasname);
        let relations: Option<Vec<_>> = oids.iter().map(|oid| catalog?.relation((*oid)?)).collect();
        let columns = relations.filter(|relations| !relations.is_empty()).map(|relations| {
            relations.iter().flat_map(|relation| relation.columns.iter().map(|column| column.name.as_str())).collect()
        });
        Self { name, columns }
    }

    /// Whether `condition` limits.
    pub(super) fn is_limited_by(&self, condition: Option<&Node>, walker: &Walker<'_>) -> bool {
        condition.and_then(|node| node.node.as_ref()).is_some_and(|node| self.limits(node, walker))
    }

    fn limits(&self, node: &NodeEnum, walker: &Walker<'_>) -> bool {
        match node {
            NodeEnum::BoolExpr(expression) => {
                let mut parts = expression.args.iter().filter_map(|node| node.node.as_ref());
                match BoolExprType::try_from(expression.boolop) {
                    Ok(BoolExprType::OrExpr) => parts.all(|part| self.limits(part, walker)),
                    _ => parts.any(|part| self.limits(part, walker)),
                }
            }
            NodeEnum::CurrentOfExpr(_) => true,
            // `id = t.id`, where no other relation stands between.
            NodeEnum::AExpr(expression) if sides(expression).is_some_and(|(left, right)| self.same_column(left, right)) => false,
            other => walker.columns_of(other).iter().any(|column| self.is_column(column)),
        }
    }

    /// Whether both are one column of the target, with its name before it or not.
    fn same_column(&self, left: &[Node], right: &[Node]) -> bool {
        let bare = |parts: &[Node]| match parts {
            [only] => string(only).map(str::to_owned),
            [qualifier, only] if string(qualifier) == Some(self.name) => string(only).map(str::to_owned),
            _ => None,
        };
        bare(left).is_some_and(|left| bare(right) == Some(left))
    }

    fn is_column(&self, reference: &ColumnRef) -> bool {
        let names: Vec<&str> = reference.fields.iter().filter_map(string).collect();
        match names.as_slice() {
            // `t.*`, or the whole row.
            [only] if *only == self.name => true,
            [only] => match &self.columns {
                Some(columns) => columns.contains(only) || is_system_column(only),
                None => true,
            },
            [.., qualifier, _] => *qualifier == self.name,
            [] => false,
        }
    }
}

fn is_system_column(name: &str) -> bool {
    matches!(name, "ctid" | "xmin" | "xmax" | "cmin" | "cmax" | "tableoid")
}

/// The columns that a comparison compares, if it compares two.
fn sides(expression: &AExpr) -> Option<(&[Node], &[Node])> {
    let compares = matches!(
        AExprKind::try_from(expression.kind),
        Ok(AExprKind::AexprOp | AExprKind::AexprDistinct | AExprKind::AexprNotDistinct | AExprKind::AexprLike)
    );
    if !compares {
        return None;
    }
    Some((column(expression.lexpr.as_deref()?)?, column(expression.rexpr.as_deref()?)?))
}

/// `x = x`, `x <> x`, `x IS NOT DISTINCT FROM x` and their like: the same column, named in the same way.
pub(super) fn compares_alike(expression: &AExpr) -> bool {
    sides(expression).is_some_and(|(left, right)| left == right)
}

/// The column that an expression is, apart from casts.
fn column(node: &Node) -> Option<&[Node]> {
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(reference) => Some(&reference.fields),
        NodeEnum::TypeCast(cast) => column(cast.arg.as_deref()?),
        NodeEnum::CollateClause(collate) => column(collate.arg.as_deref()?),
        _ => None,
    }
}
