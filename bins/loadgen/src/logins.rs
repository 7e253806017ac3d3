//! `loadgen connect`: logins as fast as they go.

use crate::client::{Error, Ready, Target};
use std::time::{Duration, Instant};

/// `connect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Logins in progress at once
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// For how long
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// Logs in and out until the time is over; prints `{"logins", "per_second", "p50_ms", "p99_ms"}`.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let ready = args.target.ready()?;
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..args.clients {
        workers.spawn(worker(ready.clone(), until));
    }
    let mut times = Vec::new();
    while let Some(done) = workers.join_next().await {
        times.extend(done.map_err(std::io::Error::other)??);
    }
    let took = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let per_second = times.len() as f64 / took;
    println!("{}", serde_json::json!({ "logins": times.len(), "per_second": per_second, "p50_ms": at(50), "p99_ms": at(99) }));
    Ok(())
}

async fn worker(ready: Ready, until: Instant) -> Result<Vec<Duration>, Error> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        let client = ready.login().await?;
        times.push(started.elapsed());
        client.terminate().await?;
    }
    Ok(times)
}
