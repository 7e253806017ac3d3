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
            other => walker.columns_of(other).iter().any(|column| self.is_column(column)),
        }
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

/// `x = x`, `x <> x`, `x IS NOT DISTINCT FROM x` and their like: the same column on both sides.
pub(super) fn compares_alike(expression: &AExpr) -> bool {
    let compares = matches!(
        AExprKind::try_from(expression.kind),
        Ok(AExprKind::AexprOp | AExprKind::AexprDistinct | AExprKind::AexprNotDistinct | AExprKind::AexprLike)
    );
    let side = |side: &'_ Option<Box<Node>>| side.as_deref().and_then(column).map(<[Node]>::to_vec);
    let (Some(left), Some(right)) = (side(&expression.lexpr), side(&expression.rexpr)) else { return false };
    compares && left.last() == right.last() && left.len().min(right.len()) > 0 && same_column(&left, &right)
}

/// Whether two references name one column: by the same parts, or one of them without its qualifier.
fn same_column(left: &[Node], right: &[Node]) -> bool {
    left.iter().rev().zip(right.iter().rev()).all(|(left, right)| left == right)
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
