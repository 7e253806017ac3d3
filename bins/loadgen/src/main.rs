//! The load harness of `scripts/bench`: what pgbench cannot do. It speaks just enough of the PostgreSQL protocol to
//! be cheap: its own cost must not hide the proxy's.
//!
//! - `connect`: logins as fast as they go, for a time
//! - `rows`: one statement's rows, read and thrown away
//! - `idle`: sessions that are opened and kept
//! - `upstream`: a server that accepts every login and has nothing to say, for thousands of sessions
//!
//! Each prints one JSON object when it is done (`idle` and `upstream`: when they are ready, and then they wait for
//! the end of standard input).

mod client;
mod idle;
mod logins;
mod rows;
mod upstream;

use clap::Parser;
use std::process::ExitCode;

/// Load for `scripts/bench`
#[derive(Debug, Parser)]
#[command(name = "loadgen", arg_required_else_help = true)]
enum Command {
    /// Logins as fast as they go
    Connect(logins::Args),
    /// One statement's rows, read and thrown away
    Rows(rows::Args),
    /// Sessions that are opened and kept until the end of standard input
    Idle(idle::Args),
    /// A server that accepts every login, until the end of standard input
    Upstream(upstream::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match Command::parse() {
        Command::Connect(args) => logins::run(args).await,
        Command::Rows(args) => rows::run(args).await,
        Command::Idle(args) => idle::run(args).await,
        Command::Upstream(args) => upstream::run(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until whoever started this program closes its standard input.
async fn until_told() {
    let (told, wait) = tokio::sync::oneshot::channel();
    // A thread of its own: nothing else would wake a blocking read of the terminal or the pipe.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = told.send(());
    });
    let _ = wait.await;
}
