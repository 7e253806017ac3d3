//! `sallyport audit verify`: a live log, a published one, one in object storage, or a proof.

use super::progress::Progress;
use crate::cli::control::{fetch, payload_keys, services};
use crate::cli::logs::{self, Source};
use crate::cli::output::Tone;
use crate::cli::remote::block_on;
use crate::cli::{Failure, Output, load};
use crate::config::{ObjectUrl, Reach, parse};
use crate::evidence::{PayloadKeyError, read_payload_keys, read_proof};
use crate::shipping::Remote;
use audit_store::prove::{Shown, check};
use audit_store::{Expected, Folder, PayloadKeys, verify_published};
use control_plane::api::Holding;
use control_plane::client::Client;
use control_plane::view::{self, printable, summary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A configuration that says nothing.
const NO_CONFIG: &str = "[[listener]]\nprotocol = \"admin\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n";

/// `audit verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder with a published log, or with a proof of `audit prove`; or where a log is shipped to: s3://…, az://…,
    /// https://ACCOUNT.blob.core.windows.net/…, file:///… (credentials and endpoint are the environment's)
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// What is shipped to the `[[shipping]]` of this name, with its credentials
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    shipped: Option<String>,
    /// A checkpoint that was seen earlier (a file): the log must still begin with it; may be repeated
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// A public key that is known to be the log's, as `audit key` prints it; may be repeated
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// The public key of a witness that is trusted; may be repeated
    #[arg(long = "witness", value_name = "KEY")]
    witnesses: Vec<String>,
    /// How many of them must have cosigned the last checkpoint [default: all]
    #[arg(long, value_name = "NUMBER")]
    witnesses_min: Option<usize>,
    /// The log's payload-keys.json, or a copy: opens sealed payloads of a PATH, which are not checked otherwise
    ///
    /// What has wrapped the keys in it must be at hand; where that is Vault or Key Vault, as the configuration says.
    #[arg(long, value_name = "FILE")]
    payload_keys: Option<PathBuf>,
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let holding = holding(args)?;
    let mut expected = holding.expected().map_err(Failure::usage)?;
    if let Some(path) = &args.payload_keys {
        expected.payload_keys = Some(given_keys(file, path)?);
    }
    let url = args.path.as_ref().and_then(|path| path.to_str()).filter(|path| path.contains("://"));
    let answer = match &args.path {
        _ if url.is_some() || args.shipped.is_some() => verify_shipped(file, url, args.shipped.as_deref(), expected, output)?,
        Some(path) => match read_proof(path).map_err(|error| Failure::finding(format!("{}: {error}", path.display())))? {
            Some(proven) => return report_proof(&check(&proven, &expected.keys), output),
            None => verify_folder(path, &expected, output)?,
        },
        None => match logs::open(file)? {
            Source::Gateway(client) => verify_there(&client, &holding, output)?,
            Source::Files(reader) => {
                let expected = with_own(file, expected)?;
                let mut bar = Progress::new(output, reader.len()?);
                let verification = reader.verify(&expected, |checked| bar.show(checked))?;
                json!({ "holds": verification.holds(), "verification": verification })
            }
        },
    };
    report(&answer, output)
}

/// The keys of a file that was given.
fn given_keys(file: &Path, path: &Path) -> Result<PayloadKeys, Failure> {
    // Wrapped by a secret on this machine, they need no configuration.
    let config = if file.exists() { load(file)? } else { parse(NO_CONFIG, file)? };
    let failed = |error: PayloadKeyError| Failure::usage(format!("--payload-keys: {error}"));
    let keys = block_on(async { Ok(read_payload_keys(path, &*services(&config)?).await) })?.map_err(failed)?;
    keys.ok_or_else(|| Failure::usage(format!("--payload-keys: {} is not there", path.display())))
}

fn holding(args: &Args) -> Result<Holding, Failure> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())));
    Ok(Holding {
        checkpoints: args.checkpoints.iter().map(read).collect::<Result<_, _>>()?,
        keys: args.keys.clone(),
        witnesses: args.witnesses.clone(),
        witnesses_min: args.witnesses_min.unwrap_or(args.witnesses.len()),
    })
}

/// What the gateway keeps beside its log counts as well: its key, and the checkpoint that was signed last.
fn with_own(file: &Path, mut expected: Expected) -> Result<Expected, Failure> {
    let config = load(file)?;
    let known = audit_store::notary::look(&config.control_dir()).map_err(|error| Failure::finding(error.to_string()))?;
    if let Some((public, signed)) = known {
        expected.keys.extend(public.verifiers.into_iter().next());
        expected.checkpoint = signed.map(|signed| signed.note);
    }
    if expected.witnesses_min > 0
        && let Ok(published) = std::fs::read_to_string(config.export_dir().join("checkpoint"))
    {
        expected.checkpoint = Some(published);
    }
    Ok(expected)
}

fn verify_folder(path: &Path, expected: &Expected, output: &Output) -> Result<Value, Failure> {
    if !path.join("checkpoint").is_file() {
        return Err(Failure::usage(format!("{} has neither a published log (checkpoint, tile/) nor a proof", path.display())));
    }
    let mut bar = None;
    let verification = verify_published(&Folder::new(path), expected, |checked, all| {
        bar.get_or_insert_with(|| Progress::new(output, all)).show(checked);
    })?;
    drop(bar);
    Ok(json!({ "holds": verification.holds(), "verification": verification }))
}

/// Verifies what was shipped to a URL, or to a destination of the configuration.
fn verify_shipped(
    file: &Path,
    url: Option<&str>,
    name: Option<&str>,
    mut expected: Expected,
    output: &Output,
) -> Result<Value, Failure> {
    let remote = match (url, name) {
        (Some(url), _) => {
            let remedy = "write s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX or file:///FOLDER";
            let place = ObjectUrl::parse(url, Path::new("."));
            let place = place.ok_or_else(|| Failure::usage(format!("{url:?} is not a place in object storage: {remedy}")))?;
            Remote::open(&place, Some(&place.below("latest")), &Reach::of_environment(), None)
        }
        (None, name) => {
            let (config, name) = (load(file)?, name.unwrap_or_default());
            let shipping = config.shipping.iter().find(|shipping| shipping.name == name);
            let names = config.shipping.iter().map(|shipping| shipping.name.as_str()).collect::<Vec<_>>().join(", ");
            let shipping = shipping.ok_or_else(|| {
                Failure::usage(format!("no [[shipping]] of {} is called {name:?}; there are: {names}", file.display()))
            })?;
            // What cannot be fetched is an error where it is used.
            fetch(&config)?;
            if expected.payload_keys.is_none() {
                expected.payload_keys = payload_keys(&config)?;
            }
            let known = audit_store::notary::look(&config.control_dir()).map_err(|error| Failure::finding(error.to_string()))?;
            let log = known.as_ref().and_then(|(public, _)| public.origin.strip_prefix("sallyport/"));
            let remote = Remote::open(&shipping.to, shipping.latest.as_ref(), &shipping.reach, log);
            expected.keys.extend(known.and_then(|(public, _)| public.verifiers.into_iter().next()));
            remote
        }
    };
    let remote = remote.map_err(|error| Failure::finding(error.to_string()))?;
    expected.checkpoint = remote.last().map(str::to_owned);
    expected.earlier.extend(remote.latest().map(str::to_owned));
    let mut bar = None;
    let mut verification = verify_published(&remote, &expected, |checked, all| {
        bar.get_or_insert_with(|| Progress::new(output, all)).show(checked);
    })?;
    drop(bar);
    verification.finding_count += remote.findings().len() as u64;
    verification.findings.extend_from_slice(remote.findings());
    Ok(json!({ "holds": verification.holds(), "log": remote.shown(), "verification": verification }))
}

/// Has the gateway verify; it says how far it is, and then what it found.
fn verify_there(client: &Client, holding: &Holding, output: &Output) -> Result<Value, Failure> {
    let (mut bar, mut found, holding) = (None, None, json!(holding));
    let lines = client.post_lines("/api/v1/audit/verify?progress=true", &holding, |line| {
        match (line["checked"].as_u64(), line["entries"].as_u64()) {
            (Some(checked), Some(all)) => bar.get_or_insert_with(|| Progress::new(output, all)).show(checked),
            _ => found = Some(line),
        }
        Ok::<_, Failure>(())
    });
    block_on(lines)?;
    drop(bar);
    found.ok_or_else(|| Failure::finding("the gateway did not finish the verification"))
}

fn report(answer: &Value, output: &Output) -> Result<(), Failure> {
    let holds = answer["holds"] == true;
    let found = &answer["verification"];
    if output.json() {
        output.value(answer)?;
    } else if holds {
        let counts = format!("{} entries, {} sessions, {} payloads", found["entries"], found["sessions"], found["payloads"]);
        output.line(format!("{} {counts}: no gaps, nothing altered", output.paint(Tone::Good, "the log holds")));
        if found["sealed"].as_u64().is_some_and(|sealed| sealed > 0) {
            let words = format!("{} payloads are sealed and were not checked: their keys are needed", found["sealed"]);
            output.line(format!("  {}", output.paint(Tone::Doubtful, &words)));
        }
        for borne in found["checkpoints"].as_array().into_iter().flatten() {
            output.line(format!("  its first {} entries are those of the checkpoint {}", borne["size"], text(borne, "root")));
            output.line(format!("    signed by {}{}", text(borne, "key"), vouched(borne)));
            for witness in borne["witnesses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                output.line(format!("    cosigned by {}", printable(witness)));
            }
        }
        if let Some(kept) = found["kept"].as_u64().filter(|kept| *kept > 0) {
            output.line(format!("  all {kept} checkpoints that are kept there are of this log"));
        }
        if found["checkpoints"].as_array().is_none_or(Vec::is_empty) {
            output.line("  it was not signed yet: nothing shows that this is all that was written");
        }
    } else {
        let count = &found["finding_count"];
        let words = format!("{count} findings in {} entries", found["entries"]);
        output.line(format!("{} {words}", output.paint(Tone::Bad, "the log does not hold:")));
        for finding in found["findings"].as_array().into_iter().flatten() {
            output.line(format!("  entry {}: {}", finding["index"], printable(text(finding, "what"))));
        }
    }
    if holds { Ok(()) } else { Err(Failure::finding("")) }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// A key that only the log itself names could be anybody's.
fn vouched(borne: &Value) -> &'static str {
    if borne["key_known"] == true { "" } else { " (only the log itself says that this is its key: give --key)" }
}

fn report_proof(shown: &Shown, output: &Output) -> Result<(), Failure> {
    let holds = shown.holds();
    if output.json() {
        output.value(&json!({ "holds": holds, "proof": shown }))?;
    } else if holds {
        let entries = shown.entries.len();
        output.line(format!("{} {entries} entries of {}", output.paint(Tone::Good, "the proof holds:"), shown.origin));
        output.line(format!("  in its first {} entries, signed by {}{}", shown.size, shown.key, vouched(&json!(shown))));
        for session in &shown.whole_sessions {
            output.line(format!("  session {session} is whole: every entry from its start to its end"));
        }
        for stored in &shown.entries {
            let value = view::entry(stored);
            output.line(format!("  {:>8}  {}  {}", stored.index, text(&value, "time"), printable(&summary(&value))));
        }
    } else {
        output.line(output.paint(Tone::Bad, "the proof does not hold:"));
        for finding in &shown.findings {
            output.line(format!("  entry {}: {}", finding.index, printable(&finding.what)));
        }
    }
    if holds { Ok(()) } else { Err(Failure::finding("")) }
}
