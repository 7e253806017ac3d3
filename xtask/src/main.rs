//! Repository chores: `cargo xtask reference`, `cargo xtask deps`.

mod deps;
mod reference;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Repository chores
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Write docs/reference/ from the code
    Reference(reference::Args),
    /// Check who depends on whom, and on what
    Deps,
}

/// Why a chore failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0} cannot be run: {1}")]
    Start(String, std::io::Error),
    #[error("{0} failed:\n{1}")]
    Command(String, String),
    #[error("{file} cannot be read or written: {why}", file = .0.display(), why = .1)]
    File(PathBuf, std::io::Error),
    #[error("cargo metadata is not as expected: {0}")]
    Metadata(String),
    #[error("{list}", list = .0.join("\n"))]
    Findings(Vec<String>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.chore {
        Chore::Reference(args) => reference::run(&args),
        Chore::Deps => deps::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs a program in the root and returns what it printed.
fn output(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let shown = format!("{program} {}", arguments.join(" "));
    let run = std::process::Command::new(program).args(arguments).current_dir(root()).output();
    let run = run.map_err(|error| Failure::Start(shown.clone(), error))?;
    if !run.status.success() {
        return Err(Failure::Command(shown, String::from_utf8_lossy(&run.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// The cargo that runs this.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
