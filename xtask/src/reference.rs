//! `docs/reference/` is what the binary says of itself.

use crate::{Failure, cargo, output, root};
use std::path::PathBuf;

/// Each reference and its file.
const REFERENCES: [(&str, &str); 5] = [
    ("config", "config.md"),
    ("cli", "cli.md"),
    ("metrics", "metrics.md"),
    ("traces", "traces.md"),
    ("schema", "policy-schema.md"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if something would change
    #[arg(long)]
    check: bool,
    /// The sallyport binary, if it is built already
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let folder = root().join("docs/reference");
    let mut findings = Vec::new();
    for (name, file) in REFERENCES {
        let text = ask(args, name)?;
        let path = folder.join(file);
        let now = std::fs::read_to_string(&path).unwrap_or_default();
        if now == text {
            continue;
        }
        if args.check {
            findings.push(format!("docs/reference/{file} is not what the code says; run `cargo xtask reference`"));
        } else {
            std::fs::create_dir_all(&folder).map_err(|error| Failure::File(folder.clone(), error))?;
            std::fs::write(&path, text).map_err(|error| Failure::File(path.clone(), error))?;
            println!("wrote docs/reference/{file}");
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Failure::Findings(findings)) }
}

fn ask(args: &Args, name: &str) -> Result<String, Failure> {
    match &args.bin {
        Some(bin) => output(&bin.display().to_string(), &["reference", name]),
        None => output(&cargo(), &["run", "--quiet", "--release", "--locked", "--package", "sallyport", "--", "reference", name]),
    }
}
