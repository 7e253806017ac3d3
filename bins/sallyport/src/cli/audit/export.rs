//! `sallyport audit export`: a part of the log in a format that others read, with a manifest beside it.
//!
//! A file has its name only when it is complete: data goes to `FILE.PID.partial`, is put on the disk, and takes its name
//! after the manifest has taken its own. What is left of an export that was killed is the partial file.

use super::progress::Progress;
use crate::cli::control::open_store;
use crate::cli::logs;
use crate::cli::output::Tone;
use crate::cli::remote::{block_on, encode};
use crate::cli::{Failure, Output, load};
use crate::config::Config;
use audit_export::{Format, Manifest};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use control_plane::api::local_caller;
use control_plane::client::{Client, ClientError};
use control_plane::export::{Frame, Plan, PlanError, completed};
use control_plane::log::Filter;
use proxy_core::record::{Entry, Event};
use proxy_core::{Store, StoreError};
use proxy_io::clock::now;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `audit export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// jsonl, ocsf, cef, ecs, csv or parquet
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "jsonl")]
    format: String,
    /// Where to: a file that is not there yet, or - for standard output
    #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only of this session: its id, or the start of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only this kind of entry: request, outcome, login_failed, session_started …; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Filter(error) => error.into(),
            PlanError::Log(error) => error.into(),
        }
    }
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let format: Format = args.format.parse().map_err(|error: audit_export::UnknownFormat| Failure::usage(error.to_string()))?;
    // Before anything is read or recorded: a filter that makes no sense.
    args.filter.entries(&args.kinds)?;
    let config = load(file)?;
    let mut target = Target::new(&args.out, args.force)?;
    let client = Client::new(&config.admin_socket());
    let manifest = match block_on(async { Ok(client.text("/healthz").await) })? {
        Ok(_) => from_gateway(&client, format, args, &mut target, output)?,
        Err(ClientError::NotRunning(_)) => from_files(&config, format, args, &mut target, output)?,
        Err(other) => return Err(other.into()),
    };
    let manifest_file = target.finish(&manifest)?;
    report(&manifest, args, manifest_file.as_deref(), output)
}

fn report(manifest: &Manifest, args: &Args, manifest_file: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let Some(manifest_file) = manifest_file else {
        // Standard output has the data.
        let text = serde_json::to_string(manifest).map_err(|error| Failure::finding(error.to_string()))?;
        let _ = writeln!(io::stderr().lock(), "{text}");
        return Ok(());
    };
    if output.json() {
        return output.value(manifest);
    }
    let rows = format!("{} of {} entries", manifest.exported.count, manifest.looked_at.count);
    output.line(format!("{} {rows} as {} to {}", output.paint(Tone::Good, "exported"), manifest.format, args.out.display()));
    output.line(format!("SHA-256 {}; {} says what it is", manifest.data.sha256, manifest_file.display()));
    Ok(())
}

/// Has the gateway export; it records that.
fn from_gateway(client: &Client, format: Format, args: &Args, target: &mut Target, output: &Output) -> Result<Manifest, Failure> {
    let mut path = format!("/api/v1/audit/export?{}format={format}&frames=true", logs::query(&args.filter));
    if let Some(session) = &args.session {
        path.push_str(&format!("&session={}", encode(session)));
    }
    if !args.kinds.is_empty() {
        path.push_str(&format!("&kinds={}", encode(&args.kinds.join(","))));
    }
    let (mut held, mut bar, mut manifest) = (Vec::new(), None, None);
    let received = client.bytes(&path, |bytes| {
        held.extend_from_slice(bytes);
        while let Some(frame) = Frame::take(&mut held).map_err(|error| Failure::finding(error.to_string()))? {
            match frame {
                Frame::Progress(done, all) => bar.get_or_insert_with(|| Progress::new(output, all)).show(done),
                Frame::Data(data) => target.write(&data)?,
                Frame::Manifest(json) => manifest = Some(json),
                Frame::Failed(why) => return Err(Failure::finding(format!("the export broke off: {why}"))),
            }
        }
        Ok::<_, Failure>(())
    });
    block_on(received)?;
    drop(bar);
    let cut_off = || Failure::finding("the gateway's answer was cut off: the export is not complete; ask again");
    let manifest: Manifest = serde_json::from_slice(&manifest.ok_or_else(cut_off)?).map_err(|_| cut_off())?;
    target.matches(&manifest)?;
    Ok(manifest)
}

/// Exports from the files of a gateway that does not run, and records it there.
fn from_files(config: &Config, format: Format, args: &Args, target: &mut Target, output: &Output) -> Result<Manifest, Failure> {
    let folder = config.audit_dir();
    if !folder.is_dir() {
        return Err(Failure::finding(format!("no gateway is running here, and there is no log in {}", folder.display())));
    }
    let (store, by) = (open_store(config)?, local_caller());
    let plan = Plan::new(&store.reader(), format, &args.filter, args.session.as_deref(), &args.kinds)?;
    let record = |event: Event| -> Result<(), StoreError> {
        store.append(&[Entry { time: now(), session: None, event }])?;
        store.sync()
    };
    record(plan.begun(by.clone()))?;
    let written = write_all(&plan, &store, target, output);
    let manifest = match written {
        Ok(totals) => plan.manifest(&by, &totals),
        Err(failure) => {
            record(plan.broken_off(by, &failure.message))?;
            return Err(failure);
        }
    };
    target.matches(&manifest)?;
    record(completed(&manifest))?;
    store.close()?;
    Ok(manifest)
}

fn write_all(
    plan: &Plan,
    store: &audit_store::AuditStore,
    target: &mut Target,
    output: &Output,
) -> Result<audit_export::Totals, Failure> {
    let mut export = plan.export(store.reader())?;
    let mut bar = Progress::new(output, export.entries());
    while let Some(part) = export.next_part().map_err(|error| Failure::finding(format!("the export broke off: {error}")))? {
        target.write(&part.data)?;
        bar.show(part.looked_at);
    }
    Ok(export.totals())
}

/// Where the data goes.
struct Target {
    place: Place,
    digest: Digest,
    bytes: u64,
}

enum Place {
    Standard,
    File {
        /// Its name when it is complete.
        name: PathBuf,
        /// Its name until then.
        partial: PathBuf,
        file: File,
        complete: bool,
    },
}

fn beside(name: &Path, ending: &str) -> PathBuf {
    let mut text = name.as_os_str().to_owned();
    text.push(ending);
    PathBuf::from(text)
}

fn create(path: &Path) -> Result<File, Failure> {
    // The log says what callers did, and with which values: for this user alone, unless they share it.
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::finding(format!("{} cannot be written: {error}", path.display()))
}

impl Target {
    fn new(out: &Path, force: bool) -> Result<Self, Failure> {
        let (digest, bytes) = (Digest::new(&SHA256), 0);
        if out == Path::new("-") {
            return Ok(Self { place: Place::Standard, digest, bytes });
        }
        let manifest = beside(out, ".manifest.json");
        if let Some(there) = [out, &manifest].into_iter().find(|path| path.exists() && !force) {
            return Err(Failure::usage(format!("{} is there already; name another file, or add --force", there.display())));
        }
        let partial = beside(out, &format!(".{}.partial", std::process::id()));
        let file = create(&partial)?;
        Ok(Self { place: Place::File { name: out.to_owned(), partial, file, complete: false }, digest, bytes })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.digest.update(data);
        self.bytes += data.len() as u64;
        match &mut self.place {
            Place::Standard => {
                let written = io::stdout().lock().write_all(data);
                written.map_err(|error| Failure::finding(format!("standard output cannot be written: {error}")))
            }
            Place::File { partial, file, .. } => file.write_all(data).map_err(|error| cannot_write(partial, &error)),
        }
    }

    /// Whether what was written is what the manifest speaks of.
    fn matches(&self, manifest: &Manifest) -> Result<(), Failure> {
        let sum: String = self.digest.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if (sum.as_str(), self.bytes) == (manifest.data.sha256.as_str(), manifest.data.bytes) {
            return Ok(());
        }
        Err(Failure::finding("what was received is not what the gateway sent: the export is not complete; ask again"))
    }

    /// The data is complete: it is put on the disk and takes its name. The manifest's name, if there is such a file.
    fn finish(mut self, manifest: &Manifest) -> Result<Option<PathBuf>, Failure> {
        let Place::File { name, partial, file, complete } = &mut self.place else {
            io::stdout()
                .lock()
                .flush()
                .map_err(|error| Failure::finding(format!("standard output cannot be written: {error}")))?;
            return Ok(None);
        };
        file.sync_all().map_err(|error| cannot_write(partial, &error))?;
        let (manifest_name, manifest_partial) = (beside(name, ".manifest.json"), beside(partial, ".manifest"));
        let mut text = serde_json::to_vec_pretty(manifest).map_err(|error| Failure::finding(error.to_string()))?;
        text.push(b'\n');
        let written = create(&manifest_partial).and_then(|mut file| {
            file.write_all(&text).and_then(|()| file.sync_all()).map_err(|error| cannot_write(&manifest_partial, &error))?;
            std::fs::rename(&manifest_partial, &manifest_name).map_err(|error| cannot_write(&manifest_name, &error))
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&manifest_partial);
        }
        written?;
        std::fs::rename(&*partial, &*name).map_err(|error| cannot_write(name, &error))?;
        *complete = true;
        // So that the names survive a power cut, too.
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot_write(folder, &error))?;
        Ok(Some(manifest_name))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Place::File { partial, complete: false, .. } = &self.place {
            let _ = std::fs::remove_file(partial);
        }
    }
}
