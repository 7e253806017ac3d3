//! `sallyport check`: what would be refused, and what is doubtful, before it is served.

use super::output::Tone;
use super::{Failure, Output, load};
use std::path::Path;

/// `check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(file: &Path, _args: &Args, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    if output.json() {
        return output.value(&serde_json::json!({ "file": file, "digest": config.digest, "warnings": config.warnings }));
    }
    for warning in &config.warnings {
        output.line(format!("{} {}:{}: {}", output.paint(Tone::Doubtful, "warning"), file.display(), warning.line, warning.what));
        output.line(format!("        {}", warning.remedy));
    }
    output.line(format!("{} {}", output.paint(Tone::Good, "ok"), file.display()));
    Ok(())
}
