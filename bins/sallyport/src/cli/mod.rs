//! The command line. One file for each command; [`Failure`] is how each ends when it does not end well.

mod approvals;
mod audit;
mod check;
pub(crate) mod control;
mod dev_token;
mod healthcheck;
mod init;
mod inspect;
mod keys;
mod logs;
mod notices;
mod output;
mod policy;
mod reference;
mod remote;
mod revocations;
mod serve;
mod sessions;
mod witness;

use crate::config::{self, Config, Problems};
use clap::{Parser, Subcommand};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use output::Output;

/// Sallyport: a gateway for machine identities
///
/// Programs connect through it to databases with their own identity (an OIDC token or a machine key) instead of
/// a shared password. Every statement is decided by policy, recorded, and answered with sensitive columns masked.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file
    #[arg(short = 'c', long, global = true, env = "SALLYPORT_CONFIG", default_value = "sallyport.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a folder to start from: a commented configuration, a CA and a certificate, policies
    Init(init::Args),
    /// Run the gateway until it is told to stop
    Serve,
    /// Check configuration, policies and masking rules
    Check(check::Args),
    /// A token from the local development issuer
    DevToken(dev_token::Args),
    /// Machine keys, for clients that cannot carry a token
    Keys(keys::Args),
    /// Principals and tokens that are refused although they are valid elsewhere
    Revocations(revocations::Args),
    /// Sessions: open ones, recorded ones, ending one
    Sessions(sessions::Args),
    /// Requests that wait for approval
    Approvals(approvals::Args),
    /// Messages about requests that could not be delivered
    Notices(notices::Args),
    /// The audit log
    Audit(audit::Args),
    /// Policies: their schema, and what they say of a statement
    Policy(policy::Args),
    /// A recorded conversation, one line for each frame; or an audit store, while the gateway runs
    Inspect(inspect::Args),
    /// Run a witness of transparency logs, on a second machine
    Witness(witness::Args),
    /// Whether the gateway can serve
    Healthcheck(healthcheck::Args),
    /// Print a reference in Markdown, from the code
    #[command(hide = true)]
    Reference(reference::Args),
}

/// Why a command did not end well: what, where, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit status: 1 a finding or a failure, 2 wrong usage.
    pub status: u8,
    /// For people; empty: what was printed says it all.
    pub message: String,
}

impl Failure {
    /// Something was found, or could not be done.
    pub fn finding(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into() }
    }

    /// It was asked for in a way that cannot work.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: 2, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(problems.to_string())
    }
}

/// Reads the configuration file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(file: &Path) -> Result<Config, Failure> {
    Ok(config::load(file)?)
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Two TLS providers may be linked by dependencies; without a default the first handshake would panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let output = Output::new(cli.json);
    match dispatch(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.status)
        }
    }
}

fn dispatch(cli: Cli, output: &Output) -> Result<(), Failure> {
    match cli.command {
        Command::Init(args) => init::run(&args, output),
        Command::Serve => serve::run(&cli.config),
        Command::DevToken(args) => dev_token::run(&cli.config, &args, output),
        Command::Check(args) => check::run(&cli.config, &args, output),
        Command::Approvals(args) => approvals::run(&cli.config, &args, output),
        Command::Notices(args) => notices::run(&cli.config, &args, output),
        Command::Policy(args) => policy::run(&cli.config, &args, output),
        Command::Keys(args) => keys::run(&cli.config, &args, output),
        Command::Revocations(args) => revocations::run(&cli.config, &args, output),
        Command::Sessions(args) => sessions::run(&cli.config, &args, output),
        Command::Audit(args) => audit::run(&cli.config, &args, output),
        Command::Inspect(args) => inspect::run(&args, output),
        Command::Witness(args) => witness::run(&args, output),
        Command::Healthcheck(args) => healthcheck::run(&cli.config, &args, output),
        Command::Reference(args) => reference::run(&args, output),
    }
}
