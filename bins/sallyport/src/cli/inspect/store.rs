//! `sallyport inspect STORE [ENTRY]`: what an audit store has, and one of its leaves byte by byte.
//!
//! Nothing is changed, and a gateway may be writing meanwhile. As files are read, the log does not say that it was read.

use crate::cli::output::Tone;
use crate::cli::{Failure, Output};
use audit_store::{EntryFilter, LeafField, Reader, Standing, leaf_fields, open_read_only};
use control_plane::units::show_time;
use control_plane::view::{self, printable, summary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Entries that are shown of the log's end.
const LAST: usize = 5;

/// The store's folder, if that is one, or a gateway's data folder.
pub(super) fn find(path: &Path) -> Option<PathBuf> {
    [path.to_owned(), path.join("audit")].into_iter().find(|folder| folder.join("CURRENT").is_file())
}

pub(super) fn run(folder: &Path, entry: Option<u64>, output: &Output) -> Result<(), Failure> {
    let reader = open_read_only(folder)?;
    match entry {
        Some(index) => leaf(&reader, index, output),
        None => store(&reader, folder, output),
    }
}

fn store(reader: &Reader, folder: &Path, output: &Output) -> Result<(), Failure> {
    let standing = reader.standing()?;
    let mut last = reader.latest(None, &EntryFilter::default(), LAST)?.items;
    last.reverse();
    let last: Vec<Value> = last.iter().map(view::entry).collect();
    if output.json() {
        return output.value(&json!({ "store": folder, "standing": standing, "last": last }));
    }
    for (name, fact) in facts(&standing) {
        output.line(format!("{} {fact}", output.paint(Tone::Quiet, &format!("{name:>10}"))));
    }
    let list = |title: &str, lines: Vec<String>| {
        output.line(output.paint(Tone::Quiet, &format!("{title:>10}")));
        lines.iter().for_each(|line| output.line(format!("           {line}")));
    };
    list(
        "families",
        standing.families.iter().map(|of| format!("{:12} {:>14} bytes  {:>12} keys", of.name, of.bytes, of.keys)).collect(),
    );
    list("kinds", standing.kinds.iter().map(|(kind, count)| format!("{kind:16} {count:>12}")).collect());
    list("last", last.iter().map(|entry| format!("{:>10}  {}", entry["index"], printable(&summary(entry)))).collect());
    Ok(())
}

fn facts(standing: &Standing) -> Vec<(&'static str, String)> {
    let bytes: u64 = standing.families.iter().map(|family| family.bytes).sum();
    let time = |time: Option<_>| time.map_or_else(|| "-".to_owned(), show_time);
    let index = standing.index;
    let current = if index.current { "" } else { "; of another version: the gateway makes it anew when it starts" };
    let journal = match (standing.journal.from, standing.journal.behind) {
        (None, 0) => "has nothing that the database's files lack".to_owned(),
        (None, behind) => format!("{behind} entries that stand after missing ones"),
        (Some(from), behind) => format!("{} entries from {from} on; {behind} after missing ones", standing.journal.entries),
    };
    vec![
        ("format", standing.format.clone()),
        ("log", standing.log_id.clone()),
        ("entries", format!("{}, of which {} are known to be on the disk", standing.entries, standing.synced)),
        ("from", time(standing.first)),
        ("to", time(standing.last)),
        ("files", format!("{bytes} bytes")),
        ("index", format!("sessions up to entry {}, segments up to {}{current}", index.indexed, index.segments)),
        ("journal", journal),
    ]
}

fn leaf(reader: &Reader, index: u64, output: &Output) -> Result<(), Failure> {
    let leaf = reader.leaf(index)?;
    let leaf =
        leaf.ok_or_else(|| Failure::finding(format!("there is no entry {index}; the log has {}", reader.len().unwrap_or(0))))?;
    let fields = leaf_fields(&leaf).map_err(|error| Failure::finding(format!("entry {index}: {error}")))?;
    let entry = reader.entry(index)?;
    if output.json() {
        let shown = fields.iter().map(|field| {
            let mut value = json!(field);
            value["hex"] = json!(hex(&leaf, field.offset, field.length, usize::MAX));
            value
        });
        let fields: Vec<Value> = shown.collect();
        return output
            .value(&json!({ "index": index, "length": leaf.len(), "fields": fields, "entry": entry.as_ref().map(view::entry) }));
    }
    output.line(format!("entry {index}, {} bytes", leaf.len()));
    if let Some(entry) = &entry {
        output.line(output.paint(Tone::Quiet, &printable(&summary(&view::entry(entry)))));
    }
    output.line(line(&leaf, 0, 1, "version"));
    let kind = entry.as_ref().map_or("", |entry| entry.kind().as_str());
    output.line(line(&leaf, 1, 1, &format!("kind: {kind}")));
    for field in &fields {
        output.line(field_line(&leaf, field));
    }
    for withheld in entry.iter().flat_map(|entry| &entry.withheld) {
        let (name, length) = (withheld.field, withheld.length);
        output.line(match withheld.sealed {
            true => format!("{name}: sealed; it is {length} bytes long"),
            false => format!("{name}: removed; it was {length} bytes long"),
        });
    }
    Ok(())
}

fn field_line(leaf: &[u8], field: &LeafField) -> String {
    let indent = "  ".repeat(field.depth);
    // Of a message, the bytes of its fields stand at those.
    let content = if field.value.is_empty() { String::new() } else { format!(": {}", printable(&view::one_line(&field.value))) };
    line(leaf, field.offset, field.length, &format!("{indent}{} {}{content}", field.number, field.name))
}

/// Most bytes of a field that are shown as such.
const HEX_MAX: usize = 8;

fn line(leaf: &[u8], offset: usize, length: usize, what: &str) -> String {
    format!("{offset:06x}  {length:>5}  {:18} {what}", hex(leaf, offset, length, HEX_MAX))
}

fn hex(leaf: &[u8], offset: usize, length: usize, most: usize) -> String {
    let bytes = leaf.get(offset..offset.saturating_add(length)).unwrap_or_default();
    let shown: String = bytes.iter().take(most).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > most { format!("{shown}…") } else { shown }
}
