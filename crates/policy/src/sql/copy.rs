//! COPY: what it moves, and how the stream is written.

use super::lex::{Kind, Lexer};
use super::tree::Visit;
use super::walk::{Walker, database, string, strings};
use bytes::Bytes;
use pg_query::NodeEnum;
use pg_query::protobuf::{CopyStmt, DefElem, Node};
use proxy_core::results::CopyFormat;

/// A COPY from or to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStatement {
    /// `FROM STDIN`; else `TO STDOUT`.
    pub from_client: bool,
    /// The stream's format.
    pub format: CopyFormat,
    /// The columns that are named, in order; empty: all.
    pub columns: Vec<String>,
    /// `COPY (query)`: the query's text, without the parentheses.
    pub query: Option<Bytes>,
}

impl CopyStatement {
    /// What masking asks about a COPY TO STDOUT; `None`: it is none.
    #[must_use]
    pub fn out(&self) -> Option<masking::CopyOut> {
        (!self.from_client).then(|| masking::CopyOut { format: self.format.clone(), query: self.query.clone() })
    }
}

impl Walker<'_> {
    pub(super) fn copy(&mut self, statement: &CopyStmt) {
        let CopyStmt { relation, query, attlist, is_from, is_program, filename, options, where_clause } = statement;
        self.kind(if *is_from { "COPY FROM" } else { "COPY TO" });
        let (action, access) = if *is_from { ("copy_in", "insert") } else { ("copy_out", "select") };
        if let Some(relation) = relation {
            self.relation(relation, action, None);
            self.relation(relation, access, None);
        }
        let mut text = None;
        if let Some(query) = query {
            self.copied_query(query);
            text = self.text.and_then(copied_text);
            if text.is_none() {
                self.unknown("COPY of a query whose text could not be told apart");
            }
        }
        where_clause.visit(self);
        options.visit(self);
        if *is_program || !filename.is_empty() {
            self.unknown("COPY with a file or a program on the server");
            return;
        }
        let Some(format) = format(options) else {
            return self.unknown("COPY with options that the gateway does not know");
        };
        let columns = strings(attlist).into_iter().map(str::to_owned).collect();
        if self.found.copy.is_some() {
            return self.unknown("more than one COPY in a request: send them one by one");
        }
        self.found.copy = Some(CopyStatement { from_client: *is_from, format, columns, query: text });
    }

    /// `copy_out` of everything that the query reads.
    fn copied_query(&mut self, query: &Node) {
        let inner = self.inner(query);
        // Its kind is no part of the request's: it is how the rows are named.
        let count = inner.facts.kinds.len();
        let kinds = &mut self.found.facts.kinds;
        if matches!(query.node.as_ref(), Some(NodeEnum::SelectStmt(_))) {
            kinds.truncate(kinds.len().saturating_sub(count));
            kinds.extend(inner.facts.kinds.iter().skip(1).cloned());
        }
        let read: Vec<_> = inner.facts.operations.iter().filter(|operation| operation.action == "select").collect();
        if read.is_empty() {
            self.act("copy_out", database(), None);
        }
        for operation in read {
            self.act("copy_out", operation.object.clone(), None);
        }
    }
}

/// The text between the parentheses of `COPY (query) …`, if that is the text's one statement.
fn copied_text(text: &str) -> Option<Bytes> {
    let bytes = text.as_bytes();
    let mut lexer = Lexer::new(bytes);
    let copy = lexer.next_token().ok()??;
    let word = bytes.get(copy.start..copy.end)?;
    if copy.kind != Kind::Word || !word.eq_ignore_ascii_case(b"copy") {
        return None;
    }
    let open = lexer.next_token().ok()??;
    if bytes.get(open.start..open.end)? != b"(" {
        return None;
    }
    let mut depth = 1usize;
    loop {
        let token = lexer.next_token().ok()??;
        if token.kind != Kind::Separator {
            continue;
        }
        match bytes.get(token.start)? {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b';' => return None,
            _ => {}
        }
        if depth == 0 {
            return bytes.get(open.end..token.start).map(Bytes::copy_from_slice);
        }
    }
}

/// The format that the options ask for; `None`: some are not known, or make no sense.
fn format(options: &[Node]) -> Option<CopyFormat> {
    let mut name = "text".to_owned();
    let (mut delimiter, mut null, mut quote, mut escape, mut header) = (None, None, None, None, false);
    for option in options {
        let NodeEnum::DefElem(option) = option.node.as_ref()? else { return None };
        match option.defname.as_str() {
            "format" => name = text(option)?.to_owned(),
            "delimiter" => delimiter = Some(one_byte(option)?),
            "null" => null = Some(Bytes::copy_from_slice(text(option)?.as_bytes())),
            "quote" => quote = Some(one_byte(option)?),
            "escape" => escape = Some(one_byte(option)?),
            "header" => header = has_header(option)?,
            "force_quote" | "force_not_null" | "force_null" | "freeze" | "on_error" | "log_verbosity" | "default"
            | "reject_limit" | "oids" => {}
            "encoding" if text(option).is_some_and(super::settings::is_plain_encoding) => {}
            _ => return None,
        }
    }
    Some(match name.as_str() {
        "text" => {
            CopyFormat::Text { delimiter: delimiter.unwrap_or(b'\t'), null: null.unwrap_or(Bytes::from_static(b"\\N")), header }
        }
        "csv" => {
            let quote = quote.unwrap_or(b'"');
            CopyFormat::Csv {
                delimiter: delimiter.unwrap_or(b','),
                quote,
                escape: escape.unwrap_or(quote),
                null: null.unwrap_or_default(),
                header,
            }
        }
        "binary" => CopyFormat::Binary,
        _ => return None,
    })
}

fn text(option: &DefElem) -> Option<&str> {
    string(option.arg.as_deref()?)
}

fn one_byte(option: &DefElem) -> Option<u8> {
    match text(option)?.as_bytes() {
        [byte] => Some(*byte),
        _ => None,
    }
}

/// `HEADER [boolean | MATCH]`: the server's `defGetCopyHeaderOption`; later versions take a number of lines.
fn has_header(option: &DefElem) -> Option<bool> {
    let Some(value) = option.arg.as_ref().and_then(|node| node.node.as_ref()) else { return Some(true) };
    match value {
        NodeEnum::Integer(value) => match value.ival {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        NodeEnum::Boolean(value) => Some(value.boolval),
        NodeEnum::String(value) => match value.sval.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(true),
            "match" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
