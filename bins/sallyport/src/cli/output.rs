//! What commands print: JSON for programs, tables and sentences for people, colour on terminals alone.

use super::Failure;
use comfy_table::{Attribute, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Where results go, and in which form.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    colour: bool,
}

/// Colours, by what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Needs a look.
    Doubtful,
    /// Is wrong, or was refused.
    Bad,
    /// Beside the point.
    Quiet,
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell(String, Option<Tone>);

impl Cell {
    /// A cell in a colour.
    #[must_use]
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self(text.into(), Some(tone))
    }

    fn styled(self) -> comfy_table::Cell {
        let cell = comfy_table::Cell::new(self.0);
        match self.1 {
            None => cell,
            Some(Tone::Good) => cell.fg(Color::Green),
            Some(Tone::Doubtful) => cell.fg(Color::Yellow),
            Some(Tone::Bad) => cell.fg(Color::Red),
            Some(Tone::Quiet) => cell.add_attribute(Attribute::Dim),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), None)
    }
}

impl Output {
    /// JSON if asked for; colour if standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colour: !json && !no_color && std::io::stdout().is_terminal() }
    }

    /// Whether results are printed as JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }

    /// `text`, coloured on a terminal.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Doubtful => 33,
            Tone::Bad => 31,
            Tone::Quiet => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Prints a line for people. A reader that went away (`| head`) ends the process quietly.
    pub fn line(&self, text: impl AsRef<str>) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Prints a value as one JSON document.
    ///
    /// # Errors
    /// The value has no JSON form: a defect.
    pub fn value(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::finding(error.to_string()))?;
        self.line(text);
        Ok(())
    }

    /// Prints a value as one line of JSON: for listings that go on.
    ///
    /// # Errors
    /// The value has no JSON form: a defect.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::finding(error.to_string()))?;
        self.line(text);
        Ok(())
    }

    /// A listing: the values as JSON, or a table of them; `none` says that there are none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn listing(
        &self,
        values: &[Value],
        none: &str,
        header: &[&str],
        row: impl Fn(&Value) -> Vec<Cell>,
    ) -> Result<(), Failure> {
        if self.json() {
            return self.value(&values);
        }
        if values.is_empty() {
            self.line(none);
        } else {
            self.table(header, values.iter().map(row).collect());
        }
        Ok(())
    }

    /// Prints rows under a header.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<Cell>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|name| comfy_table::Cell::new(name).add_attribute(Attribute::Dim)));
        for row in rows {
            table.add_row(row.into_iter().map(Cell::styled));
        }
        for line in table.to_string().lines() {
            // The first column's padding.
            self.line(line.strip_prefix(' ').unwrap_or(line).trim_end());
        }
    }

    /// Prints why a command failed, to standard error.
    pub fn failure(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let mut err = std::io::stderr().lock();
        let _ = if self.json {
            writeln!(err, "{}", serde_json::json!({ "error": failure.message, "status": failure.status }))
        } else {
            let label = if self.colour { "\x1b[31msallyport:\x1b[0m" } else { "sallyport:" };
            writeln!(err, "{label} {}", failure.message)
        };
    }
}
