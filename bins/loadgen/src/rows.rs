//! `loadgen rows`: one statement's rows, read and thrown away.

use crate::client::{Error, Target};
use std::time::Instant;

/// `rows`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The statement: a SELECT or a COPY … TO STDOUT
    #[arg(long)]
    sql: String,
}

/// Runs it once; prints `{"rows", "bytes", "seconds"}`.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut client = args.target.ready()?.login().await?;
    let started = Instant::now();
    client.send(b'Q', &[args.sql.as_bytes(), b"\0"]).await?;
    let (rows, bytes) = client.drain().await?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({ "rows": rows, "bytes": bytes, "seconds": seconds }));
    client.terminate().await
}
