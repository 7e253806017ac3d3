//! A file's values in lines that do not depend on layout or comments: what the digest is over, and what a
//! difference is shown in.

use aws_lc_rs::digest::{SHA256, digest};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// One `path = value` line for each value, sorted.
pub(super) fn lines(table: &DeTable<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    walk("", table, &mut lines);
    lines.sort();
    lines
}

fn walk(path: &str, table: &DeTable<'_>, lines: &mut Vec<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => walk(&path, inner, lines),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for (number, item) in items.iter().enumerate() {
                    match item.get_ref() {
                        DeValue::Table(inner) => walk(&format!("{path}[{}]", label(inner, number)), inner, lines),
                        other => lines.push(format!("{path}[{number}] = {}", show(other))),
                    }
                }
            }
            other => lines.push(format!("{path} = {}", show(other))),
        }
    }
}

/// What tells one table of a list from the others, so that moving it is no difference.
fn label(table: &DeTable<'_>, number: usize) -> String {
    ["name", "address", "class", "url"]
        .iter()
        .find_map(|key| table.get(*key).and_then(|value| value.get_ref().as_str()))
        .map_or_else(|| number.to_string(), str::to_owned)
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(at) => at.to_string(),
        DeValue::Array(items) => {
            format!("[{}]", items.iter().map(|item| show(item.get_ref())).collect::<Vec<_>>().join(", "))
        }
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

/// SHA-256 over the lines, hexadecimal.
pub(super) fn digest_of(lines: &[String]) -> String {
    let sum = digest(&SHA256, lines.join("\n").as_bytes());
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What changed: `+ path = value`, `- path = value`, `~ path = old → new`.
#[must_use]
pub fn difference(old: &[String], new: &[String]) -> Vec<String> {
    let split = |lines: &[String]| -> BTreeMap<String, Vec<String>> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let (path, value) = line.split_once(" = ").unwrap_or((line, ""));
            map.entry(path.to_owned()).or_default().push(value.to_owned());
        }
        map
    };
    let (old, new) = (split(old), split(new));
    let mut out = Vec::new();
    for (path, was) in &old {
        match new.get(path) {
            Some(is) if is == was => {}
            Some(is) => out.push(format!("~ {path} = {} → {}", was.join(" "), is.join(" "))),
            None => out.push(format!("- {path} = {}", was.join(" "))),
        }
    }
    out.extend(new.iter().filter(|(path, _)| !old.contains_key(*path)).map(|(path, is)| format!("+ {path} = {}", is.join(" "))));
    out.sort_by(|a, b| a.get(2..).cmp(&b.get(2..)));
    out
}
