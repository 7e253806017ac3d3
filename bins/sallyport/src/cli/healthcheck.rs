//! `sallyport healthcheck`: for containers and load balancers.

use super::remote::{block_on, gateway};
use super::{Failure, Output};
use std::path::Path;

/// `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only whether the process answers, not whether it can serve
    #[arg(long)]
    alive: bool,
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let client = gateway(file)?;
    let (status, text) = block_on(async { Ok(client.text(if args.alive { "/healthz" } else { "/readyz" }).await?) })?;
    let (good, text) = (status == 200, text.trim());
    if output.json() {
        output.value(&serde_json::json!({ "ok": good, "detail": text }))?;
        return if good { Ok(()) } else { Err(Failure::finding("")) };
    }
    if good {
        output.line(text);
        return Ok(());
    }
    Err(Failure::finding(format!("the gateway is not ready: {text}")))
}
