//! For `tests/fuzz.py`: reads a catalogue and statements, says what becomes of each.
//!
//! Input lines, tab-separated, newlines in texts as `\n`: `R oid schema name kind definition`, `C oid number name type`,
//! `F oid schema name language`, `K pattern` (a classified column), then `S statement` for each question. Answers, one
//! line each: `refuse REASON`, or `allow MESSAGES-WITHHELD` with the origins that are not passed as `oid.column`.

use masking::{CatalogResolver, Circumstances, Classify, CopyOut, MaskPlan, MaskRules, disclose, flows};
use proxy_core::catalog::{Column, Function, Relation, RelationKind};
use proxy_core::results::CopyFormat;
use proxy_core::{Catalog, SecretBytes};
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::sync::Arc;

fn relation(parts: &[&str]) -> Option<Relation> {
    let [oid, schema, name, kind, definition] = parts else { return None };
    let kind = match *kind {
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        _ => RelationKind::Table,
    };
    let definition = (!definition.is_empty()).then(|| definition.replace("\\n", "\n"));
    let (schema, name) = ((*schema).to_owned(), (*name).to_owned());
    Some(Relation { oid: oid.parse().ok()?, schema, name, kind, columns: Vec::new(), definition, parents: Vec::new() })
}

fn column(parts: &[&str]) -> Option<(u32, Column)> {
    let [oid, number, name, type_id] = parts else { return None };
    let column =
        Column { number: number.parse().ok()?, name: (*name).to_owned(), type_id: type_id.parse().ok()?, generated: false };
    Some((oid.parse().ok()?, column))
}

fn function(parts: &[&str]) -> Option<Function> {
    let [oid, schema, name, language] = parts else { return None };
    let (schema, name, language) = ((*schema).to_owned(), (*name).to_owned(), (*language).to_owned());
    Some(Function { oid: oid.parse().ok()?, schema, name, from_extension: language == "c", language })
}

fn answer(plan: &Arc<MaskPlan>, hidden: &BTreeSet<String>, sql: &str) -> String {
    let Ok(parsed) = pg_query::parse(sql, 0) else { return "refuse unparseable".to_owned() };
    let path = plan.catalog().search_path.clone();
    let resolver = CatalogResolver { catalog: plan.catalog(), search_path: Some(&path), temporary: &[] };
    let found = flows(&parsed.protobuf, plan, &resolver);
    let copy = CopyOut { format: CopyFormat::Binary, query: Some("SELECT 1".into()) };
    match disclose(plan, hidden, &found, &Circumstances { copy: Some(copy), catalog_stale: false }) {
        Err(refusal) => format!("refuse {}", refusal.message),
        Ok(shown) if shown.rules.is_none() => format!("pass {}", shown.withhold_messages),
        Ok(shown) => format!("mask {}", shown.withhold_messages),
    }
}

fn main() -> std::io::Result<()> {
    let (mut relations, mut functions, mut patterns) = (Vec::<Relation>::new(), Vec::new(), Vec::new());
    let mut plan: Option<Arc<MaskPlan>> = None;
    let hidden = BTreeSet::from(["secret".to_owned()]);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let parts = line.split('\t').collect::<Vec<_>>();
        match parts[..] {
            ["R", ..] => relations.extend(relation(&parts[1..])),
            ["C", ..] => {
                let Some((oid, column)) = column(&parts[1..]) else { continue };
                relations
                    .iter_mut()
                    .filter(|relation| relation.oid == oid)
                    .for_each(|relation| relation.columns.push(column.clone()));
            }
            ["F", ..] => functions.extend(function(&parts[1..])),
            ["K", pattern] => patterns.push(pattern.to_owned()),
            ["P"] => {
                let classify = Classify { class: "secret".to_owned(), columns: patterns.clone(), detect: None };
                let rules = MaskRules::new(&[classify], &[], &[], &SecretBytes::new(vec![1; 32])).expect("patterns");
                let path = vec!["public".to_owned()];
                let catalog = Arc::new(Catalog::new(1, 150_000, path, relations.clone(), functions.clone()));
                let made = Arc::new(MaskPlan::build(&rules, "c", &catalog));
                for (name, _, refused) in made.columns() {
                    write!(out, "{name}={} ", if refused { "R" } else { "M" })?;
                }
                writeln!(out)?;
                plan = Some(made);
            }
            ["S", sql] => {
                let plan = plan.as_ref().expect("a plan first");
                writeln!(out, "{}", answer(plan, &hidden, sql))?;
            }
            _ => {}
        }
        out.flush()?;
    }
    Ok(())
}
