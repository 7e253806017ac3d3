//! Names in the grammar's trees.

use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, ColumnRef, Node};

/// The text of a name node.
pub(super) fn string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(&string.sval),
        _ => None,
    }
}

/// The texts of a list of name nodes; a node that is none is left out.
pub(super) fn strings(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(string).collect()
}

/// Schema and name of a function or operator. `None`: not one or two (or with the database, three) parts.
pub(super) fn qualified(nodes: &[Node]) -> Option<(Option<&str>, &str)> {
    match strings(nodes)[..] {
        [name] => Some((None, name)),
        [schema, name] | [_, schema, name] => Some((Some(schema), name)),
        _ => None,
    }
}

/// The column names of an alias.
pub(super) fn alias_columns(alias: &Alias) -> Vec<&str> {
    strings(&alias.colnames)
}

/// Whether a reference ends in `*`.
pub(super) fn is_star(reference: &ColumnRef) -> bool {
    matches!(reference.fields.last().and_then(|field| field.node.as_ref()), Some(NodeEnum::AStar(_)))
}

/// The name that the server gives an output column without AS: `FigureColname` of `parse_target.c`. `None`: not certain.
pub(super) fn output_name(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(reference) => reference.fields.iter().rev().find_map(string),
        NodeEnum::AIndirection(indirection) => {
            let name = indirection.indirection.iter().rev().find_map(string);
            name.or_else(|| output_name(indirection.arg.as_deref()?))
        }
        NodeEnum::FuncCall(call) => call.funcname.last().and_then(string),
        NodeEnum::CollateClause(collate) => output_name(collate.arg.as_deref()?),
        NodeEnum::CoalesceExpr(_) => Some("coalesce"),
        NodeEnum::AArrayExpr(_) => Some("array"),
        NodeEnum::RowExpr(_) => Some("row"),
        // Casts, CASE, sub-selects …: their rules are longer, and a wrong name would be worse than none.
        _ => None,
    }
}
