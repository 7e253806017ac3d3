//! Reads TOML tables against [`super::keys`], and collects everything that is wrong instead of stopping at
//! the first.

use super::keys::{Key, key, section_keys};
use super::problem::Problem;
use super::secret::{InvalidRef, Secret, SecretRef};
use control_plane::units;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text that is read, and what was found wrong with it.
pub(super) struct Source<'a> {
    text: &'a str,
    /// Paths in the file are relative to this folder.
    pub(super) folder: &'a Path,
    problems: RefCell<Vec<Problem>>,
    /// Secrets of other machines that it names: one for each reference.
    remote: RefCell<Vec<Secret>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path) -> Self {
        Self { text, folder, problems: RefCell::default(), remote: RefCell::default() }
    }

    /// The secret that a text refers to. Whoever names the same one on another machine shares it.
    pub(super) fn secret(&self, text: &str) -> Result<Secret, InvalidRef> {
        let secret = Secret::new(SecretRef::parse(text, self.folder)?);
        if !secret.reference().is_remote() {
            return Ok(secret);
        }
        let mut remote = self.remote.borrow_mut();
        if let Some(known) = remote.iter().find(|known| **known == secret) {
            return Ok(known.clone());
        }
        remote.push(secret.clone());
        Ok(secret)
    }

    /// The secrets of other machines that were named.
    pub(super) fn remote(&self) -> Vec<Secret> {
        self.remote.borrow().clone()
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset.min(self.text.len())).unwrap_or_default();
        before.iter().filter(|b| **b == b'\n').count() + 1
    }

    pub(super) fn problem(&self, line: usize, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { line, what: what.into(), remedy: remedy.into() });
    }

    /// What was found, in the order of lines.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut list = self.problems.into_inner();
        list.sort_by_key(|problem| problem.line);
        list
    }
}

/// One table of the file.
#[derive(Clone, Copy)]
pub(super) struct Section<'s, 'a> {
    source: &'s Source<'a>,
    /// The section's name in [`super::keys`].
    name: &'static str,
    table: &'s DeTable<'a>,
    /// The line of its header.
    pub(super) line: usize,
}

impl<'s, 'a> Section<'s, 'a> {
    /// Checks the table's keys against the known ones.
    pub(super) fn open(source: &'s Source<'a>, name: &'static str, table: &'s DeTable<'a>, span: Range<usize>) -> Self {
        for (found, _) in table {
            let text = found.get_ref().as_ref();
            if key(name, text).is_none() {
                let line = source.line(found.span().start);
                source.problem(line, format!("unknown key `{text}` in {}", header(name)), suggestion(name, text));
            }
        }
        Self { source, name, table, line: source.line(span.start) }
    }

    fn get(&self, name: &str) -> Option<&'s Spanned<DeValue<'a>>> {
        debug_assert!(key(self.name, name).is_some(), "{}.{name} is not in the table of keys", self.name);
        self.table.get(name)
    }

    /// The line of a key, or of the section if the key is not there.
    pub(super) fn line_of(&self, name: &str) -> usize {
        self.table.get(name).map_or(self.line, |value| self.source.line(value.span().start))
    }

    /// Reports a problem with a key's value.
    pub(super) fn problem(&self, name: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.source.problem(self.line_of(name), what, remedy);
    }

    fn wrong(&self, name: &str, wanted: &str, found: &DeValue<'_>) {
        let what = format!("`{name}` must be {wanted}, and is {}", article(found.type_str()));
        self.problem(name, what, example(self.name, name));
    }

    /// Reports a key that must be there.
    pub(super) fn missing(&self, name: &str) {
        let what = format!("{} needs `{name}`", header(self.name));
        self.source.problem(self.line, what, example(self.name, name));
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn string(&self, name: &str) -> Option<String> {
        let value = self.get(name)?.get_ref();
        match value {
            DeValue::String(text) if text.trim().is_empty() => {
                self.problem(name, format!("`{name}` is empty"), example(self.name, name));
                None
            }
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => {
                self.wrong(name, "a text in quotes", other);
                None
            }
        }
    }

    pub(super) fn required(&self, name: &str) -> Option<String> {
        if !self.has(name) {
            self.missing(name);
        }
        self.string(name)
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.string(name).map(|path| self.source.folder.join(path))
    }

    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?.get_ref();
        let found = value.as_bool();
        if found.is_none() {
            self.wrong(name, "true or false", value);
        }
        found
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
        let value = self.get(name)?.get_ref();
        let Some(integer) = value.as_integer() else {
            self.wrong(name, "a whole number", value);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        let Some(number) = number else {
            self.out_of_range(name, integer.as_str(), range.start(), range.end());
            return None;
        };
        usize::try_from(number).ok()
    }

    fn out_of_range(&self, name: &str, found: &str, low: impl Display, high: impl Display) {
        self.problem(name, format!("`{name}` is {found}"), format!("it must be between {low} and {high}"));
    }

    /// A size: `64 MiB`, or a number of bytes.
    pub(super) fn size(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(name)?.get_ref();
        let parsed = match value {
            DeValue::String(text) => units::parse_size(text),
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            other => {
                self.wrong(name, "a size such as \"64 MiB\"", other);
                return None;
            }
        };
        let Some(size) = parsed else {
            self.problem(
                name,
                format!("`{name}` is not a size"),
                "write a number and a unit: \"512 KiB\", \"64 MiB\", \"1 GiB\"",
            );
            return None;
        };
        if !range.contains(&size) {
            self.out_of_range(name, &units::show_size(size), units::show_size(*range.start()), units::show_size(*range.end()));
            return None;
        }
        Some(size)
    }

    /// A duration: `10m`.
    pub(super) fn duration(&self, name: &str, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.get(name)?.get_ref();
        let Some(text) = value.as_str() else {
            self.wrong(name, "a duration such as \"10m\"", value);
            return None;
        };
        let Some(duration) = units::parse_duration(text) else {
            let remedy = "write a number and a unit: \"250ms\", \"15s\", \"10m\", \"1h30m\", \"7d\"";
            self.problem(name, format!("`{name}` is not a duration: {text:?}"), remedy);
            return None;
        };
        if !range.contains(&duration) {
            let (low, high) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
            self.out_of_range(name, text, low, high);
            return None;
        }
        Some(duration)
    }

    /// A duration, or `"none"`: `Some(None)`.
    pub(super) fn duration_or_none(&self, name: &str, range: std::ops::RangeInclusive<Duration>) -> Option<Option<Duration>> {
        if self.get(name)?.get_ref().as_str() == Some("none") {
            return Some(None);
        }
        self.duration(name, range).map(Some)
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(name)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let list = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let remedy = match nearest(&text, list.iter().copied()) {
            Some(word) => format!("did you mean \"{word}\"? It is one of: {}", list.join(", ")),
            None => format!("it is one of: {}", list.join(", ")),
        };
        self.problem(name, format!("`{name}` is {text:?}"), remedy);
        None
    }

    /// A list of texts; one text alone is a list of one.
    pub(super) fn strings(&self, name: &str) -> Option<Vec<String>> {
        let value = self.get(name)?.get_ref();
        if value.is_str() {
            return self.string(name).map(|text| vec![text]);
        }
        let Some(list) = value.as_array() else {
            self.wrong(name, "a list of texts", value);
            return None;
        };
        let mut texts = Vec::new();
        for item in list {
            match item.get_ref().as_str() {
                Some(text) if !text.trim().is_empty() => texts.push(text.to_owned()),
                Some(_) | None => {
                    let line = self.source.line(item.span().start);
                    self.source.problem(line, format!("`{name}` holds something that is not a text"), example(self.name, name));
                }
            }
        }
        Some(texts)
    }

    /// A table of texts with free keys.
    pub(super) fn map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let value = self.get(name)?.get_ref();
        let Some(table) = value.as_table() else {
            self.wrong(name, "a table of texts", value);
            return None;
        };
        let mut map = BTreeMap::new();
        for (key, item) in table {
            match item.get_ref().as_str() {
                Some(text) => {
                    map.insert(key.get_ref().to_string(), text.to_owned());
                }
                None => {
                    let line = self.source.line(item.span().start);
                    let what = format!("`{name}.{}` must be a text in quotes", key.get_ref());
                    self.source.problem(line, what, example(self.name, name));
                }
            }
        }
        Some(map)
    }

    /// A table within this one; `section` is its name in the table of keys.
    pub(super) fn table(&self, name: &str, section: &'static str) -> Option<Self> {
        let value = self.get(name)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(name, "a table", value.get_ref());
            return None;
        };
        Some(Self::open(self.source, section, table, value.span()))
    }

    /// How many tables the list of that name has, whatever is wrong with them.
    pub(super) fn tables_written(&self, name: &str) -> usize {
        self.get(name).and_then(|value| value.get_ref().as_array()).map_or(0, |list| list.len())
    }

    /// A list of tables within this one (`[[name]]`).
    pub(super) fn tables(&self, name: &str, section: &'static str) -> Vec<Self> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            self.problem(name, format!("`{name}` is a list"), format!("write [[{name}]], with two pairs of brackets"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in list {
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self::open(self.source, section, table, item.span())),
                None => self.wrong(name, "a list of tables", item.get_ref()),
            }
        }
        sections
    }
}

fn header(section: &str) -> String {
    super::keys::SECTIONS.iter().find(|known| known.name == section).map_or_else(String::new, |known| known.header.to_owned())
}

fn example(section: &str, name: &str) -> String {
    match key(section, name) {
        Some(Key { example, .. }) if !example.is_empty() => format!("for example: {name} = {example}"),
        Some(_) | None => String::new(),
    }
}

fn suggestion(section: &'static str, text: &str) -> String {
    let here = section_keys(section).map(|known| known.name);
    if let Some(name) = nearest(text, here) {
        return format!("did you mean `{name}`?");
    }
    // A key that belongs somewhere else.
    if let Some(elsewhere) = super::keys::KEYS.iter().find(|known| known.name == text && known.section != section) {
        return format!("`{text}` belongs in {}", header(elsewhere.section));
    }
    let names = section_keys(section).map(|known| known.name).collect::<Vec<_>>();
    format!("known here: {}", names.join(", "))
}

/// The word that is most like `text`, if one is like it at all.
pub(crate) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let lower = text.to_lowercase();
    words
        .map(|word| (strsim::damerau_levenshtein(&lower, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len().max(lower.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn article(kind: &str) -> String {
    match kind {
        "string" => "a text".to_owned(),
        "integer" => "a whole number".to_owned(),
        "float" => "a number with a point".to_owned(),
        "boolean" => "true or false".to_owned(),
        "datetime" => "a date".to_owned(),
        "array" => "a list".to_owned(),
        other => format!("a {other}"),
    }
}
