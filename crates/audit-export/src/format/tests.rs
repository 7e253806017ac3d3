use super::*;
use crate::samples::{HOSTILE, all, context, hostile, log};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::RowAccessor;
use serde_json::Value;
use std::path::PathBuf;

fn encode(format: Format, texts: Texts, entries: &[StoredEntry]) -> Vec<u8> {
    let (mut encoder, context, mut out) = (encoder(format, &log(), texts), context(), Vec::new());
    encoder.begin(&mut out);
    for stored in entries {
        let session = stored.entry.session.map(|_| &context);
        encoder.entry(session, stored, &mut out).unwrap();
    }
    encoder.finish(&mut out).unwrap();
    out
}

fn lines(format: Format, entries: &[StoredEntry]) -> Vec<Value> {
    let text = String::from_utf8(encode(format, Texts::Whole, entries)).unwrap();
    assert_eq!(text.lines().count(), entries.len(), "one line for each entry");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compares with the file of that name; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, found: &[u8]) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, found).unwrap();
    }
    let wanted = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(wanted == found, "{name} is not as recorded; look at the difference after UPDATE_GOLDEN=1");
}

#[test]
fn every_kind_in_every_format_of_lines_is_as_recorded() {
    for format in [Format::Jsonl, Format::Ocsf, Format::Ecs, Format::Cef, Format::Csv] {
        golden(&format!("all.{format}"), &encode(format, Texts::Whole, &all()));
        let mut few = hostile();
        few.remove(3);
        golden(&format!("hostile.{format}"), &encode(format, Texts::Whole, &few));
    }
}

#[test]
fn json_lines_lose_nothing() {
    let (all, found) = (all(), lines(Format::Jsonl, &all()));
    for (stored, line) in all.iter().zip(&found) {
        let mut wanted = serde_json::to_value(stored).unwrap();
        if stored.entry.session.is_some() {
            wanted["session_context"] = serde_json::json!(context());
        }
        assert_eq!(*line, wanted);
    }
    assert_eq!(found[8]["session_context"]["principal"], "entra/9f2b/ci-bot", "an outcome says whose it is");
}

#[test]
fn a_statement_is_whole_in_every_format() {
    let long = "x'\n".repeat(350_000);
    assert_eq!(lines(Format::Jsonl, &hostile())[3]["statement"], long);
    assert_eq!(lines(Format::Ocsf, &hostile())[3]["query_info"]["query_string"], long);
    assert_eq!(lines(Format::Ecs, &hostile())[3]["sallyport"]["statement"], long);
    assert_eq!(lines(Format::Ocsf, &hostile())[0]["query_info"]["query_string"], HOSTILE);
    let cef = String::from_utf8(encode(Format::Cef, Texts::Whole, &hostile())).unwrap();
    assert!(cef.contains(&format!("cs5={} cs5Label=statement ", long.replace('\n', "\\n"))));
    let csv = String::from_utf8(encode(Format::Csv, Texts::Whole, &hostile())).unwrap();
    assert!(csv.contains(&long));
    assert!(csv.contains(&format!("\"'{}\"", HOSTILE.replace('"', "\"\""))), "a formula is guarded and quoted");
}

#[test]
fn what_is_not_text_is_base64_and_says_so() {
    for (at, base64) in [(1, "U0VMRUNUICf//ic="), (2, "U0VMRUNUICcAJw==")] {
        assert_eq!(lines(Format::Ecs, &hostile())[at]["sallyport"]["statement"], base64);
        assert_eq!(lines(Format::Ecs, &hostile())[at]["sallyport"]["statement_base64"], true);
        assert_eq!(lines(Format::Ocsf, &hostile())[at]["unmapped"]["statement_base64"], true);
    }
    assert_eq!(lines(Format::Ocsf, &hostile())[4]["query_info"]["query_string"], "", "required, though empty");
}

#[test]
fn a_line_ends_where_it_ends_for_every_reader() {
    let mut breaking = hostile().remove(0);
    breaking.entry.event =
        proxy_core::Event::LogRead { by: "a\u{85}b\u{2028}c\u{2029}d\u{7f}e\u{0b}f\u{0c}g".into(), query: HOSTILE.into() };
    for format in [Format::Jsonl, Format::Ocsf, Format::Ecs, Format::Cef] {
        let text = String::from_utf8(encode(format, Texts::Whole, std::slice::from_ref(&breaking))).unwrap();
        let body = text.strip_suffix('\n').unwrap();
        assert!(!body.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{7f}', '\u{0b}', '\u{0c}', '\n', '\r']), "{format}");
    }
    assert_eq!(
        lines(Format::Jsonl, &[breaking])[0]["by"],
        "a\u{85}b\u{2028}c\u{2029}d\u{7f}e\u{0b}f\u{0c}g",
        "and it is the same"
    );
}

/// A CEF event's header fields and extension, by the rules of the standard.
fn cef(line: &str) -> (Vec<String>, std::collections::BTreeMap<String, String>) {
    let (mut parts, mut part, mut rest) = (Vec::new(), String::new(), line.chars());
    while parts.len() < 7 {
        match rest.next().unwrap() {
            '\\' => part.push(rest.next().unwrap()),
            '|' => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    // A key is the last word before an `=` that is not escaped.
    let (mut pairs, mut key, mut value) = (std::collections::BTreeMap::new(), String::new(), String::new());
    let mut rest = rest.peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next().unwrap() {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                c => value.push(c),
            },
            '=' => {
                let (before, next) = value.rsplit_once(' ').map_or(("", value.as_str()), |split| split);
                let (before, next) = (before.to_owned(), next.to_owned());
                if !key.is_empty() {
                    pairs.insert(std::mem::take(&mut key), before);
                }
                (key, value) = (next, String::new());
            }
            c => value.push(c),
        }
    }
    pairs.insert(key, value);
    (parts, pairs)
}

#[test]
fn cef_is_read_back() {
    let text = String::from_utf8(encode(Format::Cef, Texts::Whole, &hostile())).unwrap();
    assert_eq!(text.lines().count(), hostile().len());
    assert_eq!(text.split('\n').count(), hostile().len() + 1);
    let (header, pairs) = cef(text.lines().next().unwrap());
    assert_eq!(&header[..5], ["CEF:0", "Sallyport", "Sallyport", "0.1.0", "request"]);
    assert_eq!(header[6], "8");
    let expected = HOSTILE.replace(['\u{1b}', '\u{7f}', '\u{2028}'], "\u{fffd}");
    assert_eq!(pairs["cs5"], expected);
    assert_eq!((pairs["externalId"].as_str(), pairs["act"].as_str()), ("100", "deny"));
    assert_eq!((pairs["src"].as_str(), pairs["spt"].as_str()), ("10.1.2.3", "40000"));
    assert_eq!(pairs["suid"], "entra/9f2b/ci-bot");
    let details: Value = serde_json::from_str(&pairs["cs6"]).unwrap();
    assert_eq!(details["details"]["parameters"][0]["value"], "Ada");
}

#[test]
fn texts_are_cut_where_asked_and_say_so() {
    for format in [Format::Jsonl, Format::Ocsf, Format::Cef, Format::Ecs] {
        let text = String::from_utf8(encode(format, Texts::Cut(1_000), &hostile())).unwrap();
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(longest < 12_000, "{format}: {longest}");
        assert!(text.contains("[cut: 1050000 bytes in all]"), "{format}");
    }
}

#[test]
fn parquet_has_every_row_with_its_types() {
    let mut entries = all();
    entries.extend(hostile());
    let reader = SerializedFileReader::new(bytes::Bytes::from(encode(Format::Parquet, Texts::Whole, &entries))).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), i64::try_from(entries.len()).unwrap());
    let names: Vec<_> =
        reader.metadata().file_metadata().schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    let at = |name: &str| names.iter().position(|known| known == name).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    for (stored, row) in entries.iter().zip(&rows) {
        assert_eq!(row.get_ulong(at("index")).unwrap(), stored.index);
        assert_eq!(row.get_timestamp_micros(at("time")).unwrap(), stored.entry.time.0);
        assert_eq!(row.get_string(at("event")).unwrap(), stored.kind().as_str());
    }
    assert_eq!(row_text(&rows[14], at("statement")), HOSTILE);
    assert_eq!(rows[17].get_string(at("statement")).unwrap().len(), 1_050_000);
    assert_eq!(rows[8].get_ulong(at("rows")).unwrap(), 3);
    assert!(rows[0].get_string(at("statement")).is_err(), "no value is NULL");
}

fn row_text(row: &::parquet::record::Row, at: usize) -> &str {
    row.get_string(at).unwrap()
}

#[test]
fn parquet_holds_one_row_group_at_most() {
    let (mut encoder, context, mut held) = (encoder(Format::Parquet, &log(), Texts::Whole), context(), 0);
    let stored = &hostile()[3];
    let mut out = Vec::new();
    for _ in 0..64 {
        encoder.entry(Some(&context), stored, &mut out).unwrap();
        held = if out.is_empty() { held + 1 } else { 0 };
        assert!(held <= 16, "{held} rows of a megabyte are held");
        out.clear();
    }
}

#[test]
fn an_empty_export_is_a_valid_file() {
    let reader = SerializedFileReader::new(bytes::Bytes::from(encode(Format::Parquet, Texts::Whole, &[]))).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    assert_eq!(encode(Format::Csv, Texts::Whole, &[]).iter().filter(|byte| **byte == b'\n').count(), 1);
    assert!(encode(Format::Jsonl, Texts::Whole, &[]).is_empty());
}

#[test]
fn what_was_removed_is_named() {
    let mut stored = hostile().remove(0);
    stored.withheld.push(audit_store::Withheld { field: "statement", length: 90, sha256: "ab".into(), sealed: false });
    let one = [stored];
    assert_eq!(lines(Format::Ocsf, &one)[0]["query_info"]["query_string"], "");
    assert_eq!(lines(Format::Ocsf, &one)[0]["unmapped"]["details"]["withheld"][0]["length"], 90);
    assert!(String::from_utf8(encode(Format::Cef, Texts::Whole, &one)).unwrap().contains("withheld"));
    assert!(lines(Format::Ecs, &one)[0]["sallyport"]["statement"].is_null());
}

#[test]
fn names_of_formats_are_reversible() {
    for format in Format::ALL {
        assert_eq!(format.as_str().parse(), Ok(format));
    }
    assert!("xml".parse::<Format>().unwrap_err().to_string().contains("jsonl"));
}

mod schema;
