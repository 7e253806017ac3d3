//! A PostgreSQL server for one test: its own folder and port, stopped when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The running server.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    bin: PathBuf,
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
}

impl Scratch {
    /// Starts one with TLS (`certificate`, `key`) and a superuser `postgres` with the password `secret`.
    /// `None`: there is no PostgreSQL on this machine; in CI that is a failure.
    pub(crate) fn start(certificate: &Path, key: &Path) -> Option<Self> {
        let Some(bin) = find() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL's server programs are not installed");
            eprintln!("skipped: PostgreSQL's server programs are not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::write(dir.path().join("password"), "secret\n").unwrap();
        std::fs::copy(certificate, dir.path().join("server.crt")).unwrap();
        std::fs::copy(key, dir.path().join("server.key")).unwrap();
        give_to_server(dir.path());
        let scratch = Self { dir, bin, port: free_port() };
        let password = format!("--pwfile={}", scratch.dir.path().join("password").display());
        scratch.run(
            "initdb",
            &["-D", &data.display().to_string(), "-U", "postgres", "-A", "scram-sha-256", "-N", "--locale=C.UTF-8", &password],
        );
        let folder = scratch.dir.path().display();
        let options = format!(
            "-p {} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c ssl=on -c ssl_cert_file={folder}/server.crt -c ssl_key_file={folder}/server.key",
            scratch.port
        );
        let log = scratch.dir.path().join("log").display().to_string();
        scratch.run("pg_ctl", &["-D", &data.display().to_string(), "-l", &log, "-o", &options, "-w", "start"]);
        Some(scratch)
    }

    /// Runs statements as the superuser.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn sql(&self, sql: &str) {
        let port = self.port.to_string();
        let mut run = Command::new(self.bin.join("psql"));
        run.args(["-X", "-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-c", sql]);
        let output = run_quietly(run.env("PGPASSWORD", "secret").env("PGSSLMODE", "disable"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Its socket's folder.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.output(program, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {text}");
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Output {
        let path = self.bin.join(program);
        // The server does not run as root.
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.args(arguments).current_dir(self.dir.path()).stdin(std::process::Stdio::null()).output().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let data = self.dir.path().join("data").display().to_string();
        let _ = self.output("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }
}

fn run_quietly(command: &mut Command) -> Output {
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

fn find() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
    versions.retain(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists());
    versions.sort();
    versions.pop()
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

fn give_to_server(dir: &Path) {
    if is_root() {
        let status = Command::new("chown").args(["-R", "postgres"]).arg(dir).status().unwrap();
        assert!(status.success());
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
