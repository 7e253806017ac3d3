//! `sallyport policy`: what policies can say, and what they do say.

use super::{Failure, Output};
use clap::Subcommand;

/// `policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the Cedar schema that policies are validated against
    Schema,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    match args.action {
        Action::Schema => {
            output.line(policy::schema::SCHEMA.trim_end());
            Ok(())
        }
    }
}
