//! Who depends on whom. The layers of ARCHITECTURE.md, and what must not be in the shipped binary, as rules
//! that an ordinary test checks.

use crate::{Failure, cargo, output, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which crates of ours each crate may build on. A crate that is not listed may use any.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("proxy-core", &[]),
    ("proto-postgres", &["proxy-core"]),
    ("proto-testkit", &["proxy-core"]),
    ("tlog", &[]),
    ("audit-store", &["proxy-core", "tlog"]),
    ("audit-export", &["audit-store", "proxy-core"]),
    ("control-plane", &["audit-export", "audit-store", "identity", "notify", "policy", "proxy-core", "proxy-io", "tlog"]),
    ("identity", &["proxy-core"]),
    ("masking", &["proxy-core"]),
    ("notify", &["proxy-core"]),
    ("policy", &["masking", "proxy-core"]),
    ("proxy-io", &["proxy-core"]),
];

/// Crates that only tests may use.
const TEST_ONLY: [&str; 1] = ["proto-testkit"];

/// Not in the shipped binary: a second TLS stack, what is unmaintained, what is not safe to enforce with.
const BANNED: [(&str, &str); 7] = [
    ("ring", "one cryptography library: aws-lc-rs"),
    ("openssl", "one TLS stack: rustls"),
    ("openssl-sys", "one TLS stack: rustls"),
    ("native-tls", "one TLS stack: rustls"),
    ("rustls-pemfile", "unmaintained: rustls-pki-types reads PEM"),
    ("pgwire", "its decoder is not bounded by the declared length"),
    ("opensrv-mysql", "stale, and answers OK to commands that it does not know"),
];

/// What a protocol crate does without: sockets, runtimes, clocks, logs.
const NOT_IN_PROTOCOLS: [&str; 9] = ["tokio", "tokio-util", "mio", "socket2", "tracing", "log", "rand", "getrandom", "rustls"];

/// Where each dependency has a line that says why.
const REASONS: &str = "docs/adr/0001-dependencies.md";

/// Words that a protocol crate's own code does without. Tests may use them.
const NOT_IN_PROTOCOL_CODE: [&str; 7] =
    ["SystemTime::now", "Instant::now", "std::net::", "std::fs::", "println!", "eprintln!", "std::thread"];

pub(crate) fn run() -> Result<(), Failure> {
    let metadata = metadata()?;
    let mut findings = directions(&metadata)?;
    let reasons = root().join(REASONS);
    let text = std::fs::read_to_string(&reasons).map_err(|error| Failure::File(reasons, error))?;
    findings.extend(unexplained(&metadata, &text)?);
    findings.extend(banned()?);
    findings.extend(protocol_code()?);
    if findings.is_empty() { Ok(()) } else { Err(Failure::Findings(findings)) }
}

fn metadata() -> Result<Value, Failure> {
    let text = output(&cargo(), &["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"])?;
    serde_json::from_str(&text).map_err(|error| Failure::Metadata(error.to_string()))
}

/// Each crate of the workspace with what cargo says of its direct dependencies.
fn packages(metadata: &Value) -> Result<Vec<(&str, &Vec<Value>)>, Failure> {
    let missing = |what: &str| Failure::Metadata(format!("no {what}"));
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().ok_or_else(|| missing("packages"))? {
        let name = package["name"].as_str().ok_or_else(|| missing("name"))?;
        packages.push((name, package["dependencies"].as_array().ok_or_else(|| missing("dependencies"))?));
    }
    Ok(packages)
}

/// Each crate of the workspace with its direct dependencies, those for tests apart.
fn direct(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let mut crates = BTreeMap::new();
    for (name, all) in packages(metadata)? {
        let shipped = all.iter().filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        let names = shipped.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        crates.insert(name.to_owned(), names.collect());
    }
    Ok(crates)
}

fn directions(metadata: &Value) -> Result<Vec<String>, Failure> {
    let crates = direct(metadata)?;
    let mut findings = Vec::new();
    for (name, dependencies) in &crates {
        let ours = dependencies.iter().filter(|dependency| crates.contains_key(*dependency));
        if let Some((_, allowed)) = MAY_USE.iter().find(|(listed, _)| listed == name) {
            let wrong = ours.clone().filter(|dependency| !allowed.contains(&dependency.as_str()));
            findings.extend(wrong.map(|dependency| format!("{name} must not depend on {dependency}")));
        } else if name.starts_with("proto-") {
            findings.push(format!("{name} is not listed in xtask/src/deps.rs: say what it may use"));
        }
        let tests = ours.filter(|dependency| TEST_ONLY.contains(&dependency.as_str()));
        findings.extend(tests.map(|dependency| format!("{name} ships {dependency}, which is for tests")));
        if name.starts_with("proto-") {
            let io = dependencies.iter().filter(|dependency| NOT_IN_PROTOCOLS.contains(&dependency.as_str()));
            findings.extend(io.map(|dependency| format!("{name} must do no I/O and depends on {dependency}")));
        }
    }
    Ok(findings)
}

/// Dependencies, those for tests too, that no row of the table in `reasons` names.
fn unexplained(metadata: &Value, reasons: &str) -> Result<Vec<String>, Failure> {
    let rows = reasons.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named: BTreeSet<&str> = rows.flat_map(|names| names.split(", ")).collect();
    let mut findings = BTreeSet::new();
    for (_, dependencies) in packages(metadata)? {
        for dependency in dependencies {
            // Our own have a path, and no source.
            let name = dependency["name"].as_str().filter(|name| !dependency["source"].is_null() && !named.contains(name));
            findings.extend(name.map(|name| format!("{REASONS} does not say why {name}, and not another")));
        }
    }
    Ok(findings.into_iter().collect())
}

/// What the shipped binary is built from, however far away.
fn banned() -> Result<Vec<String>, Failure> {
    let arguments = [
        "tree",
        "--package",
        "sallyport",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--locked",
        "--offline",
    ];
    let tree = output(&cargo(), &arguments)?;
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let found = BANNED.iter().filter(|(name, _)| names.contains(name));
    Ok(found
        .map(|(name, why)| {
            format!("the shipped binary contains {name} ({why}); `cargo tree -p sallyport -i {name}` says through whom")
        })
        .collect())
}

fn protocol_code() -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    let crates = root().join("crates");
    for folder in list(&crates)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_protocol = name.starts_with("proto-") && !TEST_ONLY.contains(&name);
        if is_protocol {
            code_of(&folder.join("src"), &mut findings)?;
        }
    }
    Ok(findings)
}

fn code_of(folder: &Path, findings: &mut Vec<String>) -> Result<(), Failure> {
    for path in list(folder)? {
        if path.is_dir() {
            code_of(&path, findings)?;
            continue;
        }
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if is_test || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::File(path.clone(), error))?;
        // Tests stand at the end of a file.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let used = NOT_IN_PROTOCOL_CODE.iter().filter(|word| code.contains(**word));
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        findings.extend(used.map(|word| format!("{shown} uses {word}: protocol crates do no I/O and read no clock")));
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::File(folder.to_owned(), error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        if let Err(failure) = run() {
            panic!("{failure}");
        }
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let metadata = serde_json::json!({ "packages": [{ "name": "proxy-io", "dependencies": [
            { "name": "tokio", "source": "registry" },
            { "name": "tokio-util", "source": "registry" },
            { "name": "leftpad", "source": "registry", "kind": "dev" },
            { "name": "proxy-core", "source": null },
        ] }] });
        let findings = unexplained(&metadata, "| crate | why |\n| tokio, tokio-util | leftpad |\n").unwrap();
        assert_eq!(findings, ["docs/adr/0001-dependencies.md does not say why leftpad, and not another"]);
    }

    #[test]
    fn a_wrong_direction_is_found() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "proxy-core", "dependencies": [] },
            { "name": "proxy-io", "dependencies": [{ "name": "proxy-core", "kind": null }] },
            { "name": "proto-testkit", "dependencies": [] },
            { "name": "proto-new", "dependencies": [] },
            { "name": "proto-postgres", "dependencies": [
                { "name": "proxy-io", "kind": null },
                { "name": "tokio", "kind": null },
                { "name": "proto-testkit", "kind": "dev" },
            ] },
            { "name": "sallyport", "dependencies": [{ "name": "proto-testkit", "kind": null }] },
        ] });
        let findings = directions(&metadata).unwrap();
        assert_eq!(
            findings,
            [
                "proto-new is not listed in xtask/src/deps.rs: say what it may use",
                "proto-postgres must not depend on proxy-io",
                "proto-postgres must do no I/O and depends on tokio",
                "sallyport ships proto-testkit, which is for tests",
            ]
        );
    }
}
