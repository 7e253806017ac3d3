//! `sallyport init`: everything that a first run needs, in one folder. Nothing is ever overwritten.

use super::{Failure, Output};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to make
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Further names or IP addresses for the certificate
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

/// The configuration that a new user starts from.
const CONFIG: &str = include_str!("init.toml");

/// What the starter policies are to decide.
const POLICY_TESTS: &str = include_str!("init-tests.toml");

/// One file to write.
struct NewFile {
    path: String,
    content: String,
    private: bool,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let files = files(&args.names)?;
    let folders = ["tls", "policies", "data"];
    let existing = files.iter().map(|file| args.dir.join(&file.path)).filter(|path| path.symlink_metadata().is_ok());
    let existing = existing.map(|path| path.display().to_string()).collect::<Vec<_>>();
    if !existing.is_empty() {
        let list = existing.join("\n    ");
        return Err(Failure::usage(format!(
            "these are there already, and nothing is overwritten:\n    {list}\nname another folder, or move them away"
        )));
    }
    for folder in std::iter::once(args.dir.clone()).chain(folders.iter().map(|name| args.dir.join(name))) {
        make_folder(&folder)?;
    }
    for file in &files {
        write_new(&args.dir.join(&file.path), file)?;
    }
    report(&args.dir, &files, output)
}

fn report(dir: &Path, files: &[NewFile], output: &Output) -> Result<(), Failure> {
    if output.json() {
        let list = files.iter().map(|file| dir.join(&file.path)).collect::<Vec<_>>();
        return output.value(&serde_json::json!({ "folder": dir, "files": list }));
    }
    for file in files {
        output.line(dir.join(&file.path).display().to_string());
    }
    let config = dir.join("sallyport.toml");
    output.line("");
    output.line("Next:");
    output.line(format!("  edit {} (the [[connection]] is where your database goes)", config.display()));
    output.line(format!("  sallyport check -c {} --connect", config.display()));
    output.line(format!("  sallyport policy test -c {}", config.display()));
    output.line(format!("  sallyport serve -c {}", config.display()));
    Ok(())
}

fn files(names: &[String]) -> Result<Vec<NewFile>, Failure> {
    let pair = certificates(names)
        .map_err(|error| Failure::finding(format!("the certificate cannot be made: {error}; check the --name values")))?;
    let public = |path: String, content| NewFile { path, content, private: false };
    let private = |path: &str, content| NewFile { path: path.to_owned(), content, private: true };
    let mut files = vec![
        public("sallyport.toml".to_owned(), CONFIG.to_owned()),
        public("policy-tests.toml".to_owned(), POLICY_TESTS.to_owned()),
        public("tls/ca.pem".to_owned(), pair.ca),
        private("tls/ca.key", pair.ca_key),
        public("tls/gateway.pem".to_owned(), pair.leaf),
        private("tls/gateway.key", pair.leaf_key),
    ];
    files.extend(policy::starter::STARTER.iter().map(|(name, text)| public(format!("policies/{name}"), (*text).to_owned())));
    Ok(files)
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    // The data folder holds keys and the log: nobody else may look in. The others only need to be readable.
    let mode = if path.ends_with("data") { 0o700 } else { 0o755 };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| Failure::finding(format!("{} cannot be made: {error}", path.display())))
}

fn write_new(path: &Path, file: &NewFile) -> Result<(), Failure> {
    let mode = if file.private { 0o600 } else { 0o644 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut out| out.write_all(file.content.as_bytes()).and_then(|()| out.sync_all()));
    written.map_err(|error| Failure::finding(format!("{} cannot be written: {error}", path.display())))
}

struct Certificates {
    ca: String,
    ca_key: String,
    leaf: String,
    leaf_key: String,
}

/// A CA for ten years and a server certificate for one.
fn certificates(names: &[String]) -> Result<Certificates, rcgen::Error> {
    // An hour back: clients whose clocks are a little behind must accept it too.
    let from = OffsetDateTime::now_utc() - Duration::hours(1);
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Sallyport CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (from, from + Duration::days(3_652));
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?.pem();
    let issuer = Issuer::from_params(&params, &ca_key);

    let mut params = CertificateParams::new(subject_names(names))?;
    params.distinguished_name.push(DnType::CommonName, "Sallyport gateway");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (from, from + Duration::days(365));
    let leaf_key = KeyPair::generate()?;
    let leaf = params.signed_by(&leaf_key, &issuer)?.pem();
    Ok(Certificates { ca, ca_key: ca_key.serialize_pem(), leaf, leaf_key: leaf_key.serialize_pem() })
}

fn subject_names(names: &[String]) -> Vec<String> {
    let mut list = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    list.extend(control_plane::machine::host_name().into_iter().chain(names.iter().cloned()));
    list.sort();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    fn init(dir: &Path) -> Result<(), Failure> {
        run(&Args { dir: dir.to_owned(), names: vec!["gateway.example".to_owned()] }, &Output::new(true))
    }

    #[test]
    fn a_new_folder_holds_a_configuration_that_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("gate");
        init(&dir).unwrap();
        let config = crate::config::load(&dir.join("sallyport.toml")).unwrap();
        assert_eq!(config.warnings, []);
        for private in ["tls/ca.key", "tls/gateway.key"] {
            let mode = std::fs::metadata(dir.join(private)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{private}");
        }
        assert_eq!(std::fs::metadata(dir.join("data")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sallyport.toml"), "mine").unwrap();
        let failure = init(folder.path()).unwrap_err();
        assert_eq!(failure.status, 2);
        assert!(failure.message.contains("sallyport.toml"));
        assert_eq!(std::fs::read_to_string(folder.path().join("sallyport.toml")).unwrap(), "mine");
        assert!(!folder.path().join("tls").exists(), "nothing is half done");
    }

    #[test]
    fn the_certificate_holds_for_its_names_under_its_ca() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path()).unwrap();
        let pem = |name: &str| CertificateDer::from_pem_file(folder.path().join("tls").join(name)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pem("ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let check = |name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(&pem("gateway.pem"), &[], &name, &[], UnixTime::now()).is_ok()
        };
        for good in ["localhost", "127.0.0.1", "::1", "gateway.example"] {
            assert!(check(good), "{good}");
        }
        assert!(!check("elsewhere.example"));
    }
}
