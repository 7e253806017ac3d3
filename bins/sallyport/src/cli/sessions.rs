//! `sallyport sessions`: who was here, what they did, and ending one.

mod replay;

use super::logs::{self, Source};
use super::output::{Cell, Tone};
use super::remote::{block_on, encode, gateway};
use super::{Failure, Output};
use clap::Subcommand;
use control_plane::client::Client;
use control_plane::log::{Filter, find_session};
use control_plane::view::{self, parameter_in_words, printable, statement, summary};
use serde_json::{Value, json};
use std::path::Path;

/// Most entries that are read at once.
const STORY_PAGE: usize = 2_000;
/// Most sessions among which open ones are looked for.
const OPEN_MAX: usize = 10_000;

/// `sessions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sessions, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only those that are open now
        #[arg(long)]
        open: bool,
        /// How many at most
        #[arg(short = 'n', long, default_value_t = 50, value_name = "NUMBER")]
        limit: usize,
    },
    /// One session from its start to its end: every statement, its verdict and what came of it
    Show {
        /// Its id, or the start of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// One session as it went: statements, verdicts and outcomes, with the pauses that were between them
    ///
    /// Ctrl-C ends it. With --json, every event at once, with its time since the start.
    Replay(replay::Args),
    /// End an open session, or all of a principal; what runs on the target is cancelled
    ///
    /// A principal may open further sessions: `sallyport revocations create` keeps it out.
    #[command(group(clap::ArgGroup::new("whose").required(true)))]
    Kill {
        /// Its id, or the start of it
        #[arg(value_name = "ID", group = "whose")]
        id: Option<String>,
        /// Every open session of this principal: ISSUER/SUBJECT
        #[arg(long, value_name = "ID", group = "whose")]
        principal: Option<String>,
    },
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.action {
        Action::List { filter, open, limit } => list(file, filter, *open, *limit, output),
        Action::Show { id } => show(file, id, output),
        Action::Replay(args) => replay::run(file, args, output),
        Action::Kill { principal: Some(principal), .. } => kill_all(file, principal, output),
        Action::Kill { id, principal: None } => kill(file, id.as_deref().unwrap_or_default(), output),
    }
}

fn list(file: &Path, filter: &Filter, open: bool, limit: usize, output: &Output) -> Result<(), Failure> {
    let mut wanted = filter.sessions()?;
    let sessions = match logs::open(file)? {
        Source::Gateway(client) => list_there(&client, filter, if open { OPEN_MAX } else { limit })?,
        Source::Files(reader) => {
            let mut found = Vec::new();
            // Without a gateway, none is open: one without an end was cut off.
            while found.len() < limit && !open {
                let page = reader.sessions(&wanted, limit - found.len())?;
                found.extend(page.items.iter().map(|session| {
                    let mut value = view::session(session);
                    value["open"] = json!(false);
                    value
                }));
                let Some(next) = page.next else { break };
                wanted.before = Some(next);
            }
            found
        }
    };
    let sessions: Vec<Value> = sessions.into_iter().filter(|session| !open || session["open"] == true).take(limit).collect();
    let header = ["SESSION", "STARTED", "PRINCIPAL", "CONNECTION", "REQUESTS", "DENIED", "HELD", "ROWS", "STATE"];
    output.listing(&sessions, "no sessions", &header, row)
}

/// Asks the gateway: a page of it may have less than was asked for, and say where to go on.
fn list_there(client: &Client, filter: &Filter, limit: usize) -> Result<Vec<Value>, Failure> {
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/sessions?{}limit={}{before}", logs::query(filter), limit - found.len());
        let answer = block_on(async { Ok(client.get(&path).await?) })?;
        found.extend(answer["sessions"].as_array().into_iter().flatten().cloned());
        match answer["next"].as_str() {
            Some(next) if found.len() < limit => before = format!("&before={}", encode(next)),
            _ => return Ok(found),
        }
    }
}

fn row(session: &Value) -> Vec<Cell> {
    let number = |name: &str| session[name].to_string();
    let denied = session["denied"].as_u64().unwrap_or(0);
    let state = match (session["open"] == true, session["end_reason"].as_str()) {
        (true, _) => Cell::toned("open", Tone::Good),
        (false, Some(reason)) => Cell::toned(printable(reason), Tone::Quiet),
        (false, None) => Cell::toned("cut off", Tone::Doubtful),
    };
    vec![
        short(text(session, "id")).into(),
        text(session, "started").get(..19).unwrap_or_default().into(),
        printable(text(session, "principal")).into(),
        printable(&format!("{}/{}", text(session, "connection"), text(session, "database"))).into(),
        number("requests").into(),
        if denied > 0 { Cell::toned(number("denied"), Tone::Bad) } else { number("denied").into() },
        number("held").into(),
        number("rows").into(),
        state,
    ]
}

/// Enough of an id to name the session: its time, to the millisecond.
pub(super) fn short(id: &str) -> String {
    id.get(..13).unwrap_or(id).to_owned()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// The story of a session, a page at a time.
struct Story {
    source: Source,
    id: String,
    from: Option<u64>,
}

impl Story {
    fn open(file: &Path, id: &str) -> Result<Self, Failure> {
        Ok(Self { source: logs::open(file)?, id: id.to_owned(), from: Some(0) })
    }

    /// The next page; `None`: that was all.
    fn page(&mut self) -> Result<Option<Value>, Failure> {
        let Some(from) = self.from else { return Ok(None) };
        let id = &self.id;
        let page = match &self.source {
            Source::Gateway(client) => {
                let path = format!("/api/v1/sessions/{}?from={from}", encode(id));
                block_on(async { Ok(client.get(&path).await?) })?
            }
            Source::Files(reader) => {
                let found = find_session(reader, id)?;
                let story = reader.session(found, from, STORY_PAGE)?;
                let story = story.ok_or_else(|| Failure::finding(format!("the log knows no session {id}")))?;
                let mut value = json!(story);
                value["summary"] = view::session(&story.summary);
                value
            }
        };
        self.from = page["next"].as_u64().filter(|next| *next > from);
        Ok(Some(page))
    }
}

fn show(file: &Path, id: &str, output: &Output) -> Result<(), Failure> {
    let mut story = Story::open(file, id)?;
    let mut pages = Vec::new();
    let mut first = true;
    while let Some(page) = story.page()? {
        if output.json() {
            pages.push(page);
        } else {
            print_page(&page, first, output);
        }
        first = false;
    }
    if output.json() { output.value(&merge(pages)) } else { Ok(()) }
}

/// The pages of one story as one.
fn merge(pages: Vec<Value>) -> Value {
    let mut pages = pages.into_iter();
    let mut all = pages.next().unwrap_or_default();
    for page in pages {
        for name in ["requests", "others"] {
            if let (Some(list), Some(more)) = (all[name].as_array_mut(), page[name].as_array()) {
                list.extend(more.iter().cloned());
            }
        }
        if !page["ended"].is_null() {
            all["ended"] = page["ended"].clone();
        }
    }
    all["next"] = Value::Null;
    all
}

fn print_page(page: &Value, first: bool, output: &Output) {
    if first {
        print_head(page, output);
    }
    for request in page["requests"].as_array().into_iter().flatten() {
        print_request(request, output);
    }
    for other in page["others"].as_array().into_iter().flatten() {
        output.line(format!("{}  {}", time(other), printable(&summary(other))));
    }
    if !page["ended"].is_null() {
        output.line(format!("{}  {}", time(&page["ended"]), output.paint(Tone::Quiet, &printable(&summary(&page["ended"])))));
    }
}

fn print_head(page: &Value, output: &Output) {
    let (session, started) = (&page["summary"], &page["started"]);
    let roles = started["principal"]["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let target = &started["target"];
    let facts = [
        ("session", text(session, "id").to_owned()),
        (
            "principal",
            format!("{} {}  (roles: {})", text(session, "principal_kind"), text(session, "principal"), roles.join(", ")),
        ),
        ("credential", text(&started["principal"], "credential_id").to_owned()),
        ("from", format!("{} as {:?}, {}", text(session, "source"), text(session, "label"), text(session, "application"))),
        ("tls", started["tls"].as_str().unwrap_or("none").to_owned()),
        (
            "target",
            format!(
                "{}/{} at {} as {}",
                text(session, "connection"),
                text(session, "database"),
                text(target, "address"),
                text(session, "upstream_user")
            ),
        ),
        ("policies", text(started, "policy_version").to_owned()),
        ("started", text(session, "started").to_owned()),
    ];
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        output.line(format!("{} {}", output.paint(Tone::Quiet, &format!("{name:>10}")), printable(fact)));
    }
    output.line("");
}

fn time(entry: &Value) -> String {
    text(entry, "time").get(11..23).unwrap_or_default().trim_end_matches('Z').to_owned()
}

fn print_request(view: &Value, output: &Output) {
    print_asked(&view["request"], &time(&view["request"]), output);
    for step in view["approvals"].as_array().into_iter().flatten() {
        output.line(format!("{INDENT}{}", printable(&summary(step))));
    }
    if !view["outcome"].is_null() {
        output.line(format!("{INDENT}{}", output.paint(Tone::Quiet, &printable(&summary(&view["outcome"])))));
    }
}

/// Under a statement.
const INDENT: &str = "                          ";

/// What was asked, on what, and the verdict with the policies that determined it. `when` is 12 characters long.
fn print_asked(request: &Value, when: &str, output: &Output) {
    let (verdict, tone) = match text(request, "verdict") {
        "allow" => ("allow", Tone::Good),
        "hold" => ("hold", Tone::Doubtful),
        other => (other, Tone::Bad),
    };
    let statement = statement(request);
    let mut lines = statement.lines();
    let first = lines.next().unwrap_or_default();
    let verdict = output.paint(tone, &format!("{verdict:5}"));
    output.line(format!("{when}  {verdict} {:>4}  {}", request["request"], printable(first)));
    for line in lines {
        output.line(format!("{INDENT}{}", printable(line)));
    }
    for (number, parameter) in request["parameters"].as_array().into_iter().flatten().enumerate() {
        output.line(format!("{INDENT}${} = {}", number + 1, printable(&parameter_in_words(parameter))));
    }
    let decided = view::decided(request);
    if !decided.is_empty() {
        output.line(format!("{INDENT}{}", output.paint(Tone::Quiet, &printable(&decided))));
    }
    if let Some(reason) = request["reason"].as_str() {
        output.line(format!("{INDENT}{}", output.paint(tone, &printable(reason))));
    }
}

fn kill(file: &Path, id: &str, output: &Output) -> Result<(), Failure> {
    let client = gateway(file)?;
    let path = format!("/api/v1/sessions/{}/kill", encode(id));
    let answer = block_on(async { Ok(client.post(&path, &json!({})).await?) })?;
    if output.json() {
        return output.value(&answer);
    }
    output.line(format!("session {} was told to end", text(&answer, "id")));
    Ok(())
}

fn kill_all(file: &Path, principal: &str, output: &Output) -> Result<(), Failure> {
    let client = gateway(file)?;
    let answer = block_on(async { Ok(client.post("/api/v1/sessions/kill", &json!({ "principal": principal })).await?) })?;
    if output.json() {
        return output.value(&answer);
    }
    let killed = answer["killed"].as_array().map_or(0, Vec::len);
    output.line(match killed {
        0 => format!("{principal} has no session open"),
        1 => "1 session was told to end".to_owned(),
        more => format!("{more} sessions were told to end"),
    });
    Ok(())
}
