//! `[[witness]]`: whose key it has, and where it is asked.

use super::model::WitnessConfig;
use super::parse::web_address;
use super::reader::Section;
use tlog::{KeyKind, NoteError, Verifier};

const IN_THE_CLEAR: &str = "http:// is accepted on this host alone: whoever is on the way could answer that the log was forked";

pub(super) fn witness(section: &Section<'_, '_>) -> Option<WitnessConfig> {
    let key = section.required("key").and_then(|text| key(section, &text));
    let url = section.required("url").filter(|url| web_address(section, "url", url, IN_THE_CLEAR) && prefix(section, url));
    let ca = section.path("ca");
    Some(WitnessConfig { key: key?, url: url?.trim_end_matches('/').to_owned(), ca })
}

fn key(section: &Section<'_, '_>, text: &str) -> Option<Verifier> {
    let (what, remedy) = match Verifier::parse(text) {
        Ok(key) if key.kind() == KeyKind::Witness => return Some(key),
        Ok(key) => (
            format!("`key` is a log's key, that of {}, and not a witness's", key.name()),
            "`sallyport witness --print-key` prints a witness's",
        ),
        Err(NoteError::Key(why)) => (
            format!("`key` is not a verifier key: {why}"),
            "copy the whole line that `sallyport witness --print-key` prints: NAME+ID+KEY",
        ),
        Err(error) => (format!("`key` is not a verifier key: {error}"), "it is NAME+ID+KEY"),
    };
    section.problem("key", what, remedy);
    None
}

/// Whether a path can follow a URL: what would end up before or after it belongs elsewhere.
fn prefix(section: &Section<'_, '_>, url: &str) -> bool {
    let good = !url.contains(|c: char| matches!(c, '?' | '#' | '@') || c.is_whitespace() || c.is_control());
    if !good {
        section.problem(
            "url",
            format!("`url` has more than a host and a path: {url:?}"),
            "write https://HOST, with a port and a path if there are any",
        );
    }
    good
}
