//! `sallyport policy test`: whether the policies decide as a file of cases says.

use super::cases::{Case, Cases, line, read};
use super::{Loaded, catalog_of, connection, decide, principal};
use crate::cli::output::Tone;
use crate::cli::remote::block_on;
use crate::cli::{Failure, Output, load};
use crate::config::Config;
use crate::serve::parts::{masks, policies};
use control_plane::view::printable;
use policy::explain::Question;
use policy::{Explanation, PolicyEngine};
use proxy_io::clock::now;
use serde_json::{Value, json};
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `policy test`.
#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// The cases; policy-tests.toml beside the configuration file if left out
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take tables from the targets themselves instead of from the file
    #[arg(long)]
    connect: bool,
}

/// What a case came to.
struct Verdict<'c> {
    case: &'c Case,
    line: usize,
    explanation: Explanation,
    /// In which respects it is not as expected, in words.
    differences: Vec<String>,
}

pub(super) fn run(file: &Path, args: &Test, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    // Which secret keys a hash does not change what is decided.
    config.remote_secrets.iter().for_each(crate::config::Secret::assume);
    let beside = || config.file.parent().unwrap_or(Path::new("")).join("policy-tests.toml");
    let path = args.file.clone().unwrap_or_else(beside);
    let (cases, text) = read(&path)?;
    let mut catalogs = Loaded::default();
    let mut questions = Vec::new();
    for case in &cases.cases {
        let line = line(&text, case.span().start);
        let place = |failure: Failure| Failure { message: format!("{}:{line}: {failure}", path.display()), ..failure };
        let question = question(&config, &cases, case.get_ref(), args.connect, &mut catalogs).map_err(place)?;
        questions.push((case.get_ref(), line, question));
    }
    let engine = PolicyEngine::new(policies(&config)?, masks(&config)?, Arc::new(catalogs));
    let verdicts = block_on(async {
        let mut verdicts = Vec::new();
        for (case, line, question) in questions {
            let explanation = decide(&engine, &question).await;
            let differences = differences(case, &explanation);
            verdicts.push(Verdict { case, line, explanation, differences });
        }
        Ok(verdicts)
    })?;
    report(&path, &verdicts, output)
}

/// The question that a case asks; the catalogue that it is asked with is there afterwards.
fn question(config: &Config, cases: &Cases, case: &Case, connect: bool, catalogs: &mut Loaded) -> Result<Question, Failure> {
    let (connection, database) = connection(config, &case.connection, case.database.as_deref())?;
    let key = (connection.name.clone(), database.clone());
    if let Entry::Vacant(place) = catalogs.0.entry(key) {
        place.insert(if connect {
            block_on(catalog_of(connection, &database))?
        } else {
            Arc::new(cases.catalog(&connection.name))
        });
    }
    Ok(Question {
        principal: Arc::new(principal(&case.principal, case.kind, &case.roles, case.claims.clone())?),
        target: Arc::new(connection.target(&database)),
        source: case.source.clone(),
        application: case.application.clone(),
        settings: Vec::new(),
        statement: case.statement.clone(),
        now: case.at(now()).map_err(Failure::usage)?,
    })
}

fn differences(case: &Case, found: &Explanation) -> Vec<String> {
    let mut differences = Vec::new();
    if found.verdict != case.expect.as_str() {
        differences.push(format!("expected {}, is {}", case.expect.as_str(), found.verdict));
    }
    let ids = found.policies.iter().map(|policy| policy.id.as_str()).collect::<Vec<_>>();
    if let Some(policy) = case.policy.as_deref().filter(|policy| !ids.contains(policy)) {
        let found = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
        differences.push(format!("expected to be determined by {policy}, is by {found}"));
    }
    if let Some(expected) = &case.masked {
        let mut expected = expected.clone();
        expected.sort();
        let found = masked(found);
        if expected != found {
            differences.push(format!("expected to be masked: {}; is: {}", list(&expected), list(&found)));
        }
    }
    differences
}

/// The classes whose columns this statement's result has masked.
fn masked(found: &Explanation) -> Vec<String> {
    let mut classes = if found.results.checked { found.results.masked_classes.clone() } else { Vec::new() };
    classes.sort();
    classes
}

fn list(classes: &[String]) -> String {
    if classes.is_empty() { "nothing".to_owned() } else { classes.join(", ") }
}

fn report(path: &Path, verdicts: &[Verdict<'_>], output: &Output) -> Result<(), Failure> {
    let failed = verdicts.iter().filter(|verdict| !verdict.differences.is_empty()).count();
    if output.json() {
        let cases = verdicts.iter().map(value).collect::<Vec<_>>();
        output.value(&json!({ "ok": failed == 0, "file": path, "failed": failed, "cases": cases }))?;
    } else {
        for verdict in verdicts {
            print(path, verdict, output);
        }
        output.line(format!("{} cases, {} as expected, {failed} not", verdicts.len(), verdicts.len() - failed));
    }
    if failed == 0 { Ok(()) } else { Err(Failure::finding("")) }
}

fn value(verdict: &Verdict<'_>) -> Value {
    json!({
        "name": verdict.case.name,
        "line": verdict.line,
        "ok": verdict.differences.is_empty(),
        "expected": {
            "verdict": verdict.case.expect.as_str(),
            "policy": verdict.case.policy,
            "masked": verdict.case.masked,
        },
        "differences": verdict.differences,
        "explanation": verdict.explanation,
    })
}

fn print(path: &Path, verdict: &Verdict<'_>, output: &Output) {
    let name = printable(&verdict.case.name);
    if verdict.differences.is_empty() {
        output.line(format!("{}    {name}", output.paint(Tone::Good, "ok")));
        return;
    }
    output.line(format!("{}  {}:{}: {name}", output.paint(Tone::Bad, "FAIL"), path.display(), verdict.line));
    for difference in &verdict.differences {
        output.line(format!("      {}", output.paint(Tone::Bad, &printable(difference))));
    }
    for line in verdict.explanation.to_string().lines() {
        output.line(format!("      {}", printable(line)));
    }
}
