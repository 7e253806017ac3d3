//! `sallyport sessions replay`: a session as it went, on the terminal, with the pauses that were between its events.

use super::{INDENT, Story, print_asked, print_head, text};
use crate::cli::output::Tone;
use crate::cli::remote::block_on;
use crate::cli::{Failure, Output};
use control_plane::units::{parse_duration, parse_time, show_duration};
use control_plane::view::{printable, summary};
use proxy_core::Timestamp;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// `sessions replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id, or the start of it
    #[arg(value_name = "ID")]
    id: String,
    /// How many times as fast as it was
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = speed)]
    speed: f64,
    /// Without pauses
    #[arg(long)]
    no_wait: bool,
    /// No pause is longer than this
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = pause)]
    max_pause: Duration,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| speed.is_finite() && *speed > 0.0);
    speed.ok_or_else(|| "not a factor; write 4, or 0.5 for half as fast".to_owned())
}

fn pause(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration; write 3s or 500ms".to_owned())
}

/// One entry, and when it came.
struct Event {
    entry: Value,
    /// Since the session's first entry; a clock that was set back does not make it go back.
    at: Duration,
    /// Since the one before.
    after: Duration,
}

/// Puts entries on the session's own clock.
#[derive(Default)]
struct Clock {
    last: Option<Timestamp>,
    at: Duration,
}

impl Clock {
    fn event(&mut self, entry: Value) -> Event {
        let time = parse_time(text(&entry, "time"), Timestamp(0)).or(self.last).unwrap_or(Timestamp(0));
        let micros = self.last.map_or(0, |last| time.0.saturating_sub(last.0));
        let after = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        self.last = Some(time);
        self.at += after;
        Event { entry, at: self.at, after }
    }
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let mut story = Story::open(file, &args.id)?;
    let (mut clock, mut first) = (Clock::default(), true);
    while let Some(page) = story.page()? {
        if first && !output.json() {
            print_head(&page, output);
        }
        first = false;
        let events: Vec<Event> = entries(&page).into_iter().map(|entry| clock.event(entry)).collect();
        if output.json() {
            for Event { entry, at, after } in events {
                output.json_line(&json!({ "at_us": micros(at), "after_us": micros(after), "entry": entry }))?;
            }
        } else if let Some(at) = block_on(async { Ok(play(&events, args, output).await) })? {
            output.line(format!("stopped before {} of the session", clock_time(at)));
            return Ok(());
        }
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The entries of a page, in the order of the log.
fn entries(page: &Value) -> Vec<Value> {
    let list = |name: &str| page[name].as_array().cloned().unwrap_or_default();
    let mut entries = vec![page["started"].clone(), page["ended"].clone()];
    for request in list("requests") {
        entries.push(request["request"].clone());
        entries.extend(request["approvals"].as_array().into_iter().flatten().cloned());
        entries.push(request["outcome"].clone());
    }
    entries.extend(list("others"));
    entries.retain(|entry| !entry.is_null());
    entries.sort_by_key(|entry| entry["index"].as_u64());
    entries
}

/// How long to wait before an event, and whether that is less than it was.
fn wait(after: Duration, args: &Args) -> (Duration, bool) {
    // No session lasts long enough for this to be too large.
    let wanted = Duration::try_from_secs_f64(after.as_secs_f64() / args.speed).unwrap_or(args.max_pause);
    if args.no_wait { (Duration::ZERO, false) } else { (wanted.min(args.max_pause), wanted > args.max_pause) }
}

/// Shows the events in their time. Returns which was next when Ctrl-C was pressed, by its time.
async fn play(events: &[Event], args: &Args, output: &Output) -> Option<Duration> {
    for event in events {
        let (pause, cut) = wait(event.after, args);
        if cut {
            let whole = Duration::from_secs(event.after.as_secs());
            output.line(output.paint(Tone::Quiet, &format!("{INDENT}… {} pass", show_duration(whole))));
        }
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = tokio::signal::ctrl_c() => return Some(event.at),
            }
        }
        show(event, output);
    }
    None
}

fn show(event: &Event, output: &Output) {
    let (entry, when) = (&event.entry, clock_time(event.at));
    match text(entry, "event") {
        "request" => print_asked(entry, &when, output),
        "outcome" => {
            let tone = if text(entry, "status") == "completed" { Tone::Quiet } else { Tone::Bad };
            output.line(format!("{when}{:14}{}", "", output.paint(tone, &printable(&summary(entry)))));
        }
        _ => output.line(format!("{when}  {}", printable(&summary(entry)))),
    }
}

/// `00:01:02.345`: 12 characters, unless it is more than four days.
fn clock_time(at: Duration) -> String {
    let seconds = at.as_secs();
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60, at.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(speed: f64, no_wait: bool) -> Args {
        Args { id: String::new(), speed, no_wait, max_pause: Duration::from_secs(3) }
    }

    #[test]
    fn pauses_are_as_long_as_they_were_up_to_a_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(wait(second, &args(1.0, false)), (second, false));
        assert_eq!(wait(second, &args(4.0, false)), (second / 4, false));
        assert_eq!(wait(second * 10, &args(1.0, false)), (second * 3, true));
        assert_eq!(wait(second * 10, &args(10.0, false)), (second, false));
        assert_eq!(wait(second * 10, &args(1.0, true)), (Duration::ZERO, false));
        assert_eq!(wait(Duration::MAX, &args(1e-300, false)).0, second * 3);
        assert!(speed("0").is_err() && speed("-1").is_err() && speed("inf").is_err() && speed("x").is_err());
    }

    #[test]
    fn entries_come_in_the_order_of_the_log_and_time_does_not_go_back() {
        let entry = |index: u64, time: &str| json!({ "index": index, "time": format!("2026-01-01T00:00:{time}Z") });
        let page = json!({
            "started": entry(1, "01"),
            "requests": [
                { "request": entry(3, "02.5"), "approvals": [entry(4, "02.0")], "outcome": entry(9, "04") },
                { "request": entry(7, "03"), "approvals": [], "outcome": null },
            ],
            "others": [entry(2, "02")],
            "ended": null,
        });
        let mut clock = Clock::default();
        let events: Vec<Event> = entries(&page).into_iter().map(|entry| clock.event(entry)).collect();
        let seen: Vec<_> = events.iter().map(|event| (event.entry["index"].as_u64().unwrap(), event.at.as_millis())).collect();
        assert_eq!(seen, [(1, 0), (2, 1_000), (3, 1_500), (4, 1_500), (7, 2_500), (9, 3_500)]);
        assert_eq!(clock_time(Duration::from_millis(3_723_004)), "01:02:03.004");
    }
}
