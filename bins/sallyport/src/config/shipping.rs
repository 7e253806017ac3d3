//! `[[shipping]]`: object storage that the published log is shipped to. Model and reading together.

use super::parse::{plain_name, secret, web_address};
use super::reader::{Section, Source};
use super::secret::Secret;
use control_plane::units::show_duration;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a destination is shipped to, if nothing else is said.
const EVERY: Duration = Duration::from_secs(60);
/// What the latest checkpoint is called below a destination's URL, if nothing else is said.
const LATEST: &str = "latest";
/// Longest prefix, in bytes: S3's keys have 1,024, and a log's own paths some 80.
const PREFIX_MAX: usize = 512;

/// A place in object storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectUrl {
    /// S3, or what speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// Path within it, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// Path within it, without slashes at its ends; may be empty.
        prefix: String,
        /// The storage account and its endpoint, where the URL names them.
        account: Option<(String, String)>,
    },
    /// A folder: a disk of its own, a share.
    Folder {
        /// Where.
        path: PathBuf,
    },
}

impl ObjectUrl {
    /// Reads `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX`,
    /// `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`, `file:///PATH` or `folder:PATH` (relative to `folder`).
    #[must_use]
    pub fn parse(text: &str, folder: &Path) -> Option<Self> {
        if let Some(path) = text.strip_prefix("folder:").filter(|path| !path.is_empty()) {
            return Some(Self::Folder { path: folder.join(path) });
        }
        let (scheme, rest) = text.split_once("://")?;
        if scheme == "file" {
            let path = Path::new(rest);
            return path.is_absolute().then(|| Self::Folder { path: path.to_owned() });
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        match scheme {
            "s3" => Some(Self::S3 { bucket: plain(authority)?, prefix: prefix(path)? }),
            "az" => Some(Self::Azure { container: plain(authority)?, prefix: prefix(path)?, account: None }),
            "https" => {
                let (account, domain) = authority.split_once(".blob.")?;
                let (container, path) = path.split_once('/').unwrap_or((path, ""));
                Some(Self::Azure { container: plain(container)?, prefix: prefix(path)?, account: Some(at(account, domain)?) })
            }
            "abfss" => {
                let (container, host) = authority.split_once('@')?;
                let (account, domain) = host.split_once(".dfs.")?;
                Some(Self::Azure { container: plain(container)?, prefix: prefix(path)?, account: Some(at(account, domain)?) })
            }
            _ => None,
        }
    }

    /// The place called `name` below it.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let joined = |prefix: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let mut below = self.clone();
        match &mut below {
            Self::S3 { prefix, .. } | Self::Azure { prefix, .. } => *prefix = joined(prefix),
            Self::Folder { path } => path.push(name),
        }
        below
    }

    /// Whether both are reached in the same way, with the same credentials.
    fn is_of_the_same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::S3 { .. }, Self::S3 { .. }) | (Self::Folder { .. }, Self::Folder { .. }) => true,
            (Self::Azure { account, .. }, Self::Azure { account: there, .. }) => account == there,
            _ => false,
        }
    }
}

impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = |prefix: &str| if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        match self {
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}{}", slash(prefix)),
            Self::Azure { container, prefix, account: None } => write!(f, "az://{container}{}", slash(prefix)),
            Self::Azure { container, prefix, account: Some((_, endpoint)) } => {
                write!(f, "{endpoint}/{container}{}", slash(prefix))
            }
            Self::Folder { path } => write!(f, "file://{}", path.display()),
        }
    }
}

/// An account and its blob endpoint. The domain is the cloud's: `core.windows.net`, or a national one.
fn at(account: &str, domain: &str) -> Option<(String, String)> {
    let good = !account.is_empty() && account.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let known = domain.starts_with("core.") && domain.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    (good && known).then(|| (account.to_owned(), format!("https://{account}.blob.{domain}")))
}

/// The name of a bucket or a container.
fn plain(text: &str) -> Option<String> {
    let good = text.len() >= 3 && text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let good = good && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    good.then(|| text.to_owned())
}

/// A path whose parts mean nothing but themselves, to any storage and any file system.
fn prefix(text: &str) -> Option<String> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '+'))
    };
    (text.is_empty() || (text.len() <= PREFIX_MAX && text.split('/').all(part))).then(|| text.to_owned())
}

/// What is shown at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectCredential {
    /// What the environment offers: variables, a workload identity, the machine's identity.
    Environment,
    /// A key of S3.
    S3 {
        /// Its id.
        access_key_id: Secret,
        /// Itself.
        secret_access_key: Secret,
        /// Of a temporary one.
        session_token: Option<Secret>,
    },
    /// A storage account's key, base64.
    AccountKey(Secret),
    /// A shared access signature: a URL's query.
    Sas(Secret),
    /// An application of Entra ID with its secret.
    Client {
        /// Its tenant.
        tenant: String,
        /// Its id.
        client: String,
        /// Its secret.
        secret: Secret,
    },
}

/// How a place in object storage is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// URL of the service, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// S3's region.
    pub region: Option<String>,
    /// Azure's storage account, where the URL does not name it.
    pub account: Option<String>,
    /// CA bundle; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Credentials.
    pub credential: ObjectCredential,
}

impl Reach {
    /// As the environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        Self { endpoint: None, region: None, account: None, ca: None, credential: ObjectCredential::Environment }
    }
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipping {
    /// Its name: of its cursor, its metrics, its lines in the log.
    pub name: String,
    /// Where the log goes, below its id.
    pub to: ObjectUrl,
    /// Where the latest checkpoint is, the one object that is replaced; `None`: nowhere.
    pub latest: Option<ObjectUrl>,
    /// How often.
    pub every: Duration,
    /// Whether nothing there is ever overwritten or removed.
    pub locked: bool,
    /// How it is reached.
    pub reach: Reach,
}

impl Shipping {
    /// The place, whatever service it is at.
    #[must_use]
    pub fn identity(&self) -> String {
        let Reach { account, endpoint, .. } = &self.reach;
        let more = [("account", account), ("at", endpoint)].into_iter().filter_map(|(word, text)| Some((word, text.as_ref()?)));
        more.fold(self.to.to_string(), |shown, (word, text)| format!("{shown} {word} {text}"))
    }
}

impl fmt::Display for Shipping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.locked { "nothing there is overwritten" } else { "what is destroyed is destroyed there" };
        write!(f, "{} every {}, {how}; ", self.to, show_duration(self.every))?;
        match &self.latest {
            Some(latest) => write!(f, "the latest checkpoint at {latest}"),
            None => f.write_str("no latest checkpoint"),
        }
    }
}

const REMEDY: &str = "write s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX, file:///FOLDER or folder:PATH; a prefix has letters, digits, `-`, `_`, `.`, `=` and `+`";
const IN_THE_CLEAR: &str =
    "http:// is accepted on this host alone: whoever is between could read the log and answer for the storage";

pub(super) fn shipping(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Shipping> {
    let name = section.required("name").filter(|name| plain_name(section, name));
    let url = |key: &str, text: String| {
        let url = ObjectUrl::parse(&text, source.folder);
        if url.is_none() {
            section.problem(key, format!("`{key}` is not a place in object storage: {text:?}"), REMEDY);
        }
        url
    };
    let to = section.required("url").and_then(|text| url("url", text));
    let latest = match section.string("latest") {
        None => to.as_ref().map(|to| to.below(LATEST)),
        Some(word) if word == "none" => None,
        Some(text) => url("latest", text),
    };
    if let (Some(to), Some(latest)) = (&to, &latest)
        && !to.is_of_the_same_kind(latest)
    {
        let remedy = "it is written with the same credentials: name a place of the same provider and account, or \"none\"";
        section.problem("latest", format!("`latest` ({latest}) is reached in another way than `url` ({to})"), remedy);
    }
    let every = section.duration("every", Duration::from_secs(1)..=Duration::from_secs(86_400)).unwrap_or(EVERY);
    let locked = section.boolean("locked").unwrap_or(true);
    let endpoint = section.string("endpoint").filter(|url| web_address(section, "endpoint", url, IN_THE_CLEAR));
    let (region, account) = (section.string("region"), section.string("account"));
    let credential = match section.table("credential", "object_credential") {
        Some(table) => credential(&table, source),
        None => Some(ObjectCredential::Environment),
    };
    let to = to?;
    let fits = |key: &str, wanted: bool, whose: &str| {
        if section.has(key) && !wanted {
            section.problem(key, format!("`{key}` makes no sense for {to}"), format!("it is for {whose} alone: remove it"));
        }
    };
    let s3 = matches!(to, ObjectUrl::S3 { .. });
    let azure = matches!(to, ObjectUrl::Azure { .. });
    let named = matches!(to, ObjectUrl::Azure { account: Some(_), .. });
    for key in ["endpoint", "ca", "credential"] {
        fits(key, s3 || azure, "s3:// and Azure");
    }
    fits("region", s3, "s3://");
    fits("account", azure && !named, "az://");
    let credential = credential?;
    let wrong = match &credential {
        ObjectCredential::Environment => false,
        ObjectCredential::S3 { .. } => !s3,
        ObjectCredential::AccountKey(_) | ObjectCredential::Sas(_) | ObjectCredential::Client { .. } => !azure,
    };
    if wrong && (s3 || azure) {
        section.problem("credential", format!("`credential` is not one for {to}"), KINDS);
    }
    let reach = Reach { endpoint, region, account, ca: section.path("ca"), credential };
    Some(Shipping { name: name?, to, latest, every, locked, reach })
}

const KINDS: &str = "for s3: access_key_id, secret_access_key and perhaps session_token; for Azure: account_key, or sas, or tenant, client and client_secret; without `credential`, what the environment offers is used";

fn credential(section: &Section<'_, '_>, source: &Source<'_>) -> Option<ObjectCredential> {
    let secret = |name: &str| secret(section, name, source);
    let there = |names: &[&str]| names.iter().filter(|name| section.has(name)).count();
    let sets: [&[&str]; 4] = [
        &["access_key_id", "secret_access_key", "session_token"],
        &["account_key"],
        &["sas"],
        &["tenant", "client", "client_secret"],
    ];
    let mut given = sets.iter().filter(|set| there(set) > 0);
    let (Some(set), None) = (given.next(), given.next()) else {
        section.problem("credential", "`credential` is no credential, or more than one", KINDS);
        return None;
    };
    for name in set.iter().filter(|name| **name != "session_token" && !section.has(name)) {
        section.missing(name);
    }
    match set.first().copied().unwrap_or_default() {
        "access_key_id" => Some(ObjectCredential::S3 {
            access_key_id: secret("access_key_id")?,
            secret_access_key: secret("secret_access_key")?,
            session_token: secret("session_token"),
        }),
        "account_key" => secret("account_key").map(ObjectCredential::AccountKey),
        "sas" => secret("sas").map(ObjectCredential::Sas),
        _ => Some(ObjectCredential::Client {
            tenant: section.string("tenant")?,
            client: section.string("client")?,
            secret: secret("client_secret")?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problems, parse};
    use super::*;

    fn read(shipping: &str) -> Result<Config, Problems> {
        let listener = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n";
        parse(&format!("{listener}[[shipping]]\nname = \"vault\"\n{shipping}"), Path::new("/etc/sallyport.toml"))
    }

    #[test]
    fn places_of_all_sorts() {
        for (url, shown, latest) in [
            ("s3://log-bucket/a/b/", "s3://log-bucket/a/b", "s3://log-bucket/a/b/latest"),
            ("s3://log.bucket", "s3://log.bucket", "s3://log.bucket/latest"),
            ("az://logs/x=1", "az://logs/x=1", "az://logs/x=1/latest"),
            (
                "https://acct1.blob.core.windows.net/logs",
                "https://acct1.blob.core.windows.net/logs",
                "https://acct1.blob.core.windows.net/logs/latest",
            ),
            (
                "abfss://logs@acct1.dfs.core.usgovcloudapi.net/p",
                "https://acct1.blob.core.usgovcloudapi.net/logs/p",
                "https://acct1.blob.core.usgovcloudapi.net/logs/p/latest",
            ),
            ("file:///mnt/worm", "file:///mnt/worm", "file:///mnt/worm/latest"),
            ("folder:worm", "file:///etc/worm", "file:///etc/worm/latest"),
        ] {
            let shipping = read(&format!("url = \"{url}\"")).unwrap_or_else(|problems| panic!("{problems}")).shipping.remove(0);
            assert_eq!((shipping.to.to_string(), shipping.latest.unwrap().to_string()), (shown.to_owned(), latest.to_owned()));
            assert_eq!((shipping.every, shipping.locked), (Duration::from_secs(60), true));
        }
        for bad in [
            "s3://",
            "s3://ab",
            "s3://bucket/../other",
            "s3://bucket/a//b",
            "s3://bucket/.hidden",
            "s3://key:secret@bucket/a",
            "az://c/x?sig=1",
            "https://storage.example.com/c",
            "https://acct.blob.evil.example/c",
            "https://acct.blob.core.windows.net@evil/c",
            "abfss://acct.dfs.core.windows.net/c",
            "file://host/x",
            "gs://bucket",
            "folder:",
        ] {
            assert!(read(&format!("url = \"{bad}\"")).is_err(), "{bad}");
        }
    }

    #[test]
    fn latest_is_elsewhere_but_of_the_same_kind() {
        let latest =
            |text: &str| read(&format!("url = \"s3://locked/x\"\nlatest = \"{text}\"")).map(|c| c.shipping[0].latest.clone());
        assert_eq!(latest("none").unwrap(), None);
        assert_eq!(latest("s3://open/y").unwrap().unwrap().to_string(), "s3://open/y");
        assert!(latest("az://open/y").unwrap_err().to_string().contains("another way"));
    }

    #[test]
    fn credentials_are_whole_fitting_and_by_reference() {
        let with = |url: &str, credential: &str| {
            read(&format!("url = \"{url}\"\ncredential = {{ {credential} }}"))
                .map(|config| config.shipping[0].reach.credential.clone())
        };
        assert!(matches!(read("url = \"s3://log-bucket\"").unwrap().shipping[0].reach.credential, ObjectCredential::Environment));
        let s3 = with("s3://log-bucket", "access_key_id = \"env:ID\", secret_access_key = \"file:key\"").unwrap();
        assert!(matches!(s3, ObjectCredential::S3 { session_token: None, .. }));
        let client = with("az://logs", "tenant = \"t\", client = \"c\", client_secret = \"env:S\"").unwrap();
        assert!(matches!(client, ObjectCredential::Client { .. }));
        let refused = |url: &str, credential: &str| with(url, credential).unwrap_err().to_string();
        let secret = refused("az://logs", "account_key = \"hunter2\"");
        assert!(secret.contains("not a reference") && !secret.contains("hunter2"), "{secret}");
        assert!(refused("s3://log-bucket", "access_key_id = \"env:ID\"").contains("needs `secret_access_key`"));
        assert!(refused("s3://log-bucket", "account_key = \"env:ID\"").contains("not one for s3"));
        assert!(refused("az://logs", "sas = \"env:A\", account_key = \"env:B\"").contains("more than one"));
        assert!(refused("file:///x", "sas = \"env:A\"").contains("makes no sense"));
        assert!(refused("az://logs", "sass = \"env:A\"").contains("did you mean `sas`"));
    }

    #[test]
    fn a_place_is_shipped_to_once() {
        let second = |more: &str| {
            read(&format!("url = \"s3://log-bucket\"\n[[shipping]]\nname = \"two\"\nurl = \"s3://log-bucket\"\n{more}"))
        };
        assert!(second("").unwrap_err().to_string().contains("is there twice"));
        let other = second("endpoint = \"https://elsewhere.example\"").unwrap();
        assert_eq!(other.shipping[1].identity(), "s3://log-bucket at https://elsewhere.example");
    }

    #[test]
    fn plain_http_goes_to_this_host_alone() {
        assert!(read("url = \"s3://log-bucket\"\nendpoint = \"http://127.0.0.1:9000\"").is_ok());
        assert!(read("url = \"s3://log-bucket\"\nendpoint = \"http://minio:9000\"").is_err());
        assert!(read("url = \"s3://log-bucket\"\nregionn = \"eu-west-1\"").is_err());
        assert!(read("url = \"az://logs\"\nregion = \"eu-west-1\"").is_err());
    }
}
