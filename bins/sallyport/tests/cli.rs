//! The command line against a running gateway and a real server: what a person does in the first hour.
#![allow(missing_docs, reason = "a test")]

mod scratch;

use scratch::Scratch;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Gate {
    dir: PathBuf,
    child: Child,
    port: u16,
    _home: tempfile::TempDir,
    _server: Scratch,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(arguments).current_dir(dir).env("PASSWORD_OF_TARGET", "gw").env_remove("SALLYPORT_CONFIG");
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command that must succeed, with JSON for an answer.
fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output = run(dir, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output)))
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Gate {
    /// `None`: there is no PostgreSQL here.
    fn start() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("gate");
        let made = run(home.path(), &["init", "gate"]);
        assert!(made.status.success(), "{}", text(&made));
        let server = Scratch::start(&dir.join("tls/gateway.pem"), &dir.join("tls/gateway.key"))?;
        server.sql(
            "CREATE ROLE gateway LOGIN PASSWORD 'gw'; CREATE TABLE customers (id int, email text, phone text);
             INSERT INTO customers VALUES (1, 'ann@example.com', '1'); GRANT ALL ON customers TO gateway",
        );
        let (port, admin) = (free_port(), free_port());
        let config = std::fs::read_to_string(dir.join("sallyport.toml")).unwrap();
        let config = config
            .replace("127.0.0.1:6432", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:8443", &format!("127.0.0.1:{admin}"))
            .replace("localhost:5432", &format!("127.0.0.1:{}", server.port))
            .replace("user = \"postgres\"", "user = \"gateway\"")
            .replace("EXAMPLE_PASSWORD", "PASSWORD_OF_TARGET")
            .replace("env = \"dev\"", "env = \"prod\"");
        std::fs::write(dir.join("sallyport.toml"), config).unwrap();
        let key = json(&dir, &["keys", "create", "--subject", "early", "--role", "reader"]);
        assert!(key["secret"].as_str().unwrap().starts_with("sp_"));
        let child = command(&dir, &["serve"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let gate = Self { dir, child, port, _home: home, _server: server };
        wait_for("the gateway", || run(&gate.dir, &["healthcheck"]).status.success().then_some(()));
        Some(gate)
    }

    fn psql(&self, subject: &str, roles: &[&str], sql: &str) -> Child {
        let mut arguments = vec!["dev-token", "--subject", subject];
        arguments.extend(roles.iter().flat_map(|role| ["--role", role]));
        let token = String::from_utf8(run(&self.dir, &arguments).stdout).unwrap();
        let target =
            format!("host=localhost port={} dbname=example user={subject} sslmode=verify-full sslrootcert=tls/ca.pem", self.port);
        Command::new("psql")
            .args(["-X", "-A", "-t", &target, "-c", sql])
            .env("PGPASSWORD", token.trim())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[test]
fn the_first_hour() {
    let Some(mut gate) = Gate::start() else { return };
    let dir = gate.dir.clone();

    let checked = json(&dir, &["check", "--connect"]);
    assert!(checked["ok"] == true && checked.to_string().contains("customers.phone"), "{checked}");

    let masked = gate.psql("ci", &["writer"], "SELECT email FROM customers").wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&masked.stdout).trim(), "a***@e***.com", "{}", text(&masked));
    let denied = gate.psql("ci", &["writer"], "DELETE FROM customers").wait_with_output().unwrap();
    assert!(text(&denied).contains("no-unlimited-change"), "{}", text(&denied));

    let held = gate.psql("ci", &["writer"], "UPDATE customers SET phone = '2' WHERE id = 1");
    let id = wait_for("the held request", || json(&dir, &["approvals", "list"])[0]["id"].as_str().map(str::to_owned));
    let shown = json(&dir, &["approvals", "show", &id]);
    assert_eq!(shown["statement"], "UPDATE customers SET phone = '2' WHERE id = 1");
    assert!(shown["operations"].to_string().contains("update on table public.customers"), "{shown}");
    assert_eq!(json(&dir, &["approvals", "approve", &id.to_uppercase(), "--reason", "ticket 7"])["approved"], true);
    let updated = held.wait_with_output().unwrap();
    assert!(text(&updated).contains("UPDATE 1"), "{}", text(&updated));
    let again = run(&dir, &["approvals", "deny", &id]);
    assert!(again.status.code() == Some(1) && text(&again).contains("was approved"), "{}", text(&again));

    let running = gate.psql("ci", &["reader"], "SELECT pg_sleep(60)");
    let session =
        wait_for("the open session", || json(&dir, &["sessions", "list", "--open"])[0]["id"].as_str().map(str::to_owned));
    let start = Instant::now();
    assert_eq!(json(&dir, &["sessions", "kill", session.get(..13).unwrap()])["killed"], true);
    let killed = running.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2) && text(&killed).contains("administrator"), "{}", text(&killed));

    let denials = json(&dir, &["sessions", "list", "--verdict", "deny", "--principal", "dev/ci", "--since", "1h"]);
    assert_eq!(denials.as_array().unwrap().len(), 1, "{denials}");
    let story = json(&dir, &["sessions", "show", denials[0]["id"].as_str().unwrap()]);
    assert_eq!(story["requests"][0]["request"]["statement"], "DELETE FROM customers");
    let explained = run(
        &dir,
        &["policy", "explain", "--principal", "dev/ci", "--role", "writer", "--connection", "example", "DELETE FROM customers"],
    );
    assert!(explained.status.code() == Some(1) && text(&explained).contains("20-safety.cedar"), "{}", text(&explained));

    let tail = run(&dir, &["audit", "tail", "--kind", "administration", "--json"]);
    let actions: Vec<String> = String::from_utf8_lossy(&tail.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["key created", "request approved", "session killed"]);
    assert_eq!(json(&dir, &["audit", "verify"])["holds"], true);

    let kill = Command::new("kill").args(["-TERM", &gate.child.id().to_string()]).status().unwrap();
    assert!(kill.success() && gate.child.wait().unwrap().success(), "a graceful stop");
    assert_eq!(run(&dir, &["healthcheck"]).status.code(), Some(1));
    assert_eq!(json(&dir, &["sessions", "list"]).as_array().unwrap().len(), 4, "the log is readable without the gateway");
    assert_eq!(json(&dir, &["audit", "verify"])["holds"], true);
}

#[test]
fn the_starter_policies_decide_as_their_cases_say() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    assert!(run(dir, &["init", "."]).status.success());
    let tested = json(dir, &["policy", "test"]);
    assert_eq!((&tested["ok"], &tested["failed"]), (&Value::Bool(true), &Value::from(0)), "{tested}");
    let names = tested["cases"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap());
    assert!(names.clone().any(|name| name == "nobody deletes all rows"), "{}", names.collect::<String>());

    // A policy changes, and the case that it was written for fails, with the facts.
    let safety = dir.join("policies/20-safety.cedar");
    let policies = std::fs::read_to_string(&safety).unwrap();
    std::fs::write(&safety, policies.replace("unless { context.has_where }", "when { false }")).unwrap();
    let failed = run(dir, &["policy", "test"]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    for part in [
        "FAIL  ",
        "nobody deletes all rows",
        "expected deny, is allow",
        "expected to be determined by no-unlimited-change, is by write",
        "delete on table public.customers, without WHERE",
        "5 cases, 4 as expected, 1 not",
    ] {
        assert!(text(&failed).contains(part), "{part:?} in {}", text(&failed));
    }
    let failed = run(dir, &["policy", "test", "--json"]);
    assert_eq!(failed.status.code(), Some(1));
    let failed: Value = serde_json::from_slice(&failed.stdout).unwrap();
    let case = failed["cases"].as_array().unwrap().iter().find(|case| case["ok"] == false).unwrap();
    assert_eq!(case["explanation"]["verdict"], "allow");
    assert_eq!(case["expected"]["policy"], "no-unlimited-change");
    assert_eq!(failed["failed"], 1);

    // What is no file of cases passes no test.
    for (content, part) in [
        ("", "there is no [[case]] in it"),
        ("[[case]]\nname = \"x\"\nverdict = \"allow\"\n", "cases.toml:3: unknown field `verdict`"),
        (
            "[[case]]\nname = \"x\"\nprincipal = \"me\"\nconnection = \"example\"\nstatement = \"\"\nexpect = \"deny\"",
            "cases.toml:1:",
        ),
        (
            "[[case]]\nname = \"x\"\nprincipal = \"dev/me\"\nconnection = \"nowhere\"\nstatement = \"\"\nexpect = \"deny\"",
            "no connection",
        ),
    ] {
        std::fs::write(dir.join("cases.toml"), content).unwrap();
        let refused = run(dir, &["policy", "test", "cases.toml"]);
        assert!(refused.status.code() == Some(2) && text(&refused).contains(part), "{}", text(&refused));
    }
}

#[test]
fn wrong_usage_is_told_apart_from_a_failure() {
    let home = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str]| run(home.path(), arguments).status.code();
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&["check"]), Some(2), "there is no configuration");
    assert!(run(home.path(), &["init", "."]).status.success());
    assert_eq!(code(&["init", "."]), Some(2), "nothing is overwritten");
    assert_eq!(code(&["check"]), Some(0));
    assert_eq!(code(&["approvals", "list"]), Some(1), "no gateway runs");
    assert_eq!(code(&["audit", "tail", "--since", "yesterday"]), Some(2));
    let coloured = run(home.path(), &["check"]);
    assert!(!text(&coloured).contains('\x1b'), "no colour in a pipe");
    std::fs::write(home.path().join("sallyport.toml"), "datadir = \"x\"\n").unwrap();
    let refused = run(home.path(), &["serve"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused).contains("sallyport.toml:1: unknown key `datadir`") && text(&refused).contains("did you mean `data_dir`?"),
        "{}",
        text(&refused)
    );
}
