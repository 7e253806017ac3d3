//! What is wrong with a folder of policies: where, what, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a set of policies was not loaded: everything that was found, not the first alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// In the order of files and lines.
    pub problems: Vec<Problem>,
}

impl LoadError {
    pub(crate) fn one(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for LoadError {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// A file or the folder cannot be read, or is not UTF-8.
    Unreadable,
    /// A limit of [`crate::limits`] was passed.
    LimitExceeded,
    /// It is not Cedar.
    Syntax,
    /// It speaks of what the schema does not have, or in a way that the schema does not allow.
    Schema,
    /// Two policies have the same id.
    DuplicateId,
    /// An annotation that has no meaning here, or one whose value has none.
    Annotation,
    /// `@approval` and `context.approved` do not go together as they must.
    Approval,
    /// A template: policies with `?principal` or `?resource` cannot be linked here.
    Template,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which sort.
    pub kind: ProblemKind,
    /// The file or folder.
    pub file: PathBuf,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn in_file(kind: ProblemKind, file: &Path, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, file: file.to_owned(), line: 0, column: 0, message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    /// `policies/orders.cedar:3:8: message; remedy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Line and column, both from 1, of a byte offset in `text`.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn offsets_become_lines_and_columns() {
        assert_eq!(line_and_column("ab\nçd", 0), (1, 1));
        assert_eq!(line_and_column("ab\nçd", 3), (2, 1));
        assert_eq!(line_and_column("ab\nçd", 5), (2, 2), "columns are characters, not bytes");
        assert_eq!(line_and_column("ab", 99), (1, 3), "past the end is the end");
    }
}
