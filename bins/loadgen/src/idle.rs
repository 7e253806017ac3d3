//! `loadgen idle`: sessions that are opened and kept.

use crate::client::{Client, Error, Ready, Target};
use crate::until_told;
use std::io;

/// `idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// How many
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// Logins in progress at once
    #[arg(long, default_value_t = 16)]
    clients: usize,
}

/// Opens them, prints `{"sessions"}` once all are there, and keeps them until the end of standard input. Before
/// it ends it runs a statement on the first and the last one: they must still be alive.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let ready = args.target.ready()?;
    let mut workers = tokio::task::JoinSet::new();
    let clients = args.clients.max(1);
    for worker in 0..clients {
        let count = args.sessions / clients + usize::from(worker < args.sessions % clients);
        workers.spawn(open(ready.clone(), count));
    }
    let mut sessions = Vec::with_capacity(args.sessions);
    while let Some(done) = workers.join_next().await {
        sessions.extend(done.map_err(io::Error::other)??);
    }
    println!("{}", serde_json::json!({ "sessions": sessions.len() }));
    until_told().await;
    let last = sessions.len().saturating_sub(1);
    for at in [0, last] {
        if let Some(session) = sessions.get_mut(at) {
            session.send(b'Q', &[b"SELECT 1\0"]).await?;
            session.drain().await?;
        }
    }
    Ok(())
}

async fn open(ready: Ready, count: usize) -> Result<Vec<Client>, Error> {
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        sessions.push(ready.login().await?);
    }
    Ok(sessions)
}
