//! `sallyport notices`: messages about requests that could not be delivered.

use super::output::{Cell, Tone};
use super::remote::{block_on, gateway};
use super::{Failure, Output};
use clap::Subcommand;
use control_plane::client::Client;
use control_plane::view::printable;
use serde_json::{Value, json};
use std::path::Path;

/// `notices`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Messages that were given up
    List,
    /// Send them again
    Resend {
        /// One of them, as `list` shows it; without it: all
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let client = gateway(file)?;
    block_on(async {
        match &args.action {
            Action::List => list(&client, output).await,
            Action::Resend { id } => resend(&client, id.as_deref(), output).await,
        }
    })
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer = client.get("/api/v1/notices/dead").await?;
    let letters = answer["letters"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |letter: &Value| -> Vec<Cell> {
        let text = |name: &str| printable(letter[name].as_str().unwrap_or_default());
        vec![
            text("id").into(),
            text("kind").into(),
            text("request").into(),
            text("given_up").into(),
            Cell::toned(text("error"), Tone::Bad),
        ]
    };
    output.listing(letters, "no message was given up", &["ID", "KIND", "REQUEST", "GIVEN UP", "WHY"], row)
}

async fn resend(client: &Client, id: Option<&str>, output: &Output) -> Result<(), Failure> {
    let done = client.post("/api/v1/notices/resend", &json!({ "id": id })).await?;
    let number = |name: &str| done[name].as_u64().unwrap_or(0);
    if output.json() {
        output.value(&done)?;
    } else {
        output.line(format!("{} wait to be sent again", number("queued")));
    }
    let left = number("no_channel") + number("full");
    if left > 0 {
        return Err(Failure::finding(format!(
            "{left} stay: {} whose channel is not configured any more, {} because too many wait",
            number("no_channel"),
            number("full")
        )));
    }
    if number("queued") == 0 {
        return Err(Failure::finding("there is no such message; `sallyport notices list` shows them"));
    }
    Ok(())
}
