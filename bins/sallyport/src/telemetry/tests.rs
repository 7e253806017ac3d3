//! The log does not depend on where standard error points after the start.

use super::init;
use crate::config::{LogFormat, Telemetry};
use std::process::{Command, Stdio};

#[test]
fn lines_arrive_whole_although_standard_error_was_turned_elsewhere() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "telemetry::tests::logs_after_standard_error_was_turned"])
        .env_remove("SALLYPORT_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8(child.stderr).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>();
    let messages = lines.iter().map(|line| line["message"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(messages.iter().filter(|message| **message == "a line").count(), 4 * 1_000);
    assert!(messages.contains(&"panicked: as it may be"), "a panic is in the log: {log}");
}

/// What the test above runs, in a process of its own.
#[test]
#[ignore = "turns the standard error of its process elsewhere"]
fn logs_after_standard_error_was_turned() {
    let telemetry = Telemetry { log: LogFormat::Json, level: "info".to_owned(), otlp: None };
    let _guard = init(&telemetry).unwrap();
    rustix::stdio::dup2_stderr(std::fs::File::open("/dev/null").unwrap()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|number| tracing::info!(number, "a line")));
        }
        let broken = scope.spawn(|| panic!("as it may be"));
        assert!(broken.join().is_err());
    });
}
