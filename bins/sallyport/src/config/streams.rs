//! `[[stream]]`: where the audit log is sent as it grows. Model and reading together.

use super::reader::{Section, Source};
use super::secret::{InvalidRef, Secret};
use audit_export::Format;
use audit_store::EventKind;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name: of its cursor, its metrics, its lines in the log.
    pub name: String,
    /// Where to.
    pub to: Destination,
    /// What each entry looks like. Only ever one of lines.
    pub format: Format,
    /// CA bundle; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Headers of HTTP requests; the whole value is the secret.
    pub headers: BTreeMap<String, Secret>,
    /// Kinds of entries; empty: all.
    pub kinds: Vec<EventKind>,
    /// Whether a new stream begins with the first entry of the log, or with the next one.
    pub from_start: bool,
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// RFC 5424 messages, counted in octets.
    Syslog {
        /// A name or an IP address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// RFC 5425; else RFC 6587 in the clear.
        tls: bool,
    },
    /// Batches by POST.
    Http {
        /// The URL.
        url: String,
    },
    /// OTLP logs over HTTP, protobuf.
    Otlp {
        /// The URL with its path.
        url: String,
    },
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syslog { host, port, tls } => {
                let scheme = if *tls { "syslog+tls" } else { "syslog+tcp" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
            Self::Http { url } => f.write_str(url),
            Self::Otlp { url } => write!(f, "otlp+{url}"),
        }
    }
}

const REMEDY: &str = "write syslog+tls://HOST:6514, syslog+tcp://HOST:514, https://HOST/PATH or otlp+https://HOST:4318; plain http on this host alone";

pub(super) fn stream(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Stream> {
    let name = section.required("name").filter(|name| super::parse::plain_name(section, name));
    let to = section.required("to").and_then(|text| {
        let to = destination(&text);
        if to.is_none() {
            section.problem("to", format!("`to` is not a place that a stream can go to: {text:?}"), REMEDY);
        }
        to
    });
    let words = [("jsonl", Format::Jsonl), ("ocsf", Format::Ocsf), ("cef", Format::Cef), ("ecs", Format::Ecs)];
    let format = section.one_of("format", &words).unwrap_or(Format::Jsonl);
    let headers = headers(section, source);
    if matches!(to, Some(Destination::Syslog { .. })) && section.has("headers") {
        section.problem("headers", "`headers` makes no sense for syslog", "remove it");
    }
    let kinds = kinds(section);
    let from_start = section.one_of("from", &[("start", true), ("now", false)]).unwrap_or(true);
    Some(Stream { name: name?, to: to?, format, ca: section.path("ca"), headers, kinds, from_start })
}

fn destination(text: &str) -> Option<Destination> {
    for (scheme, tls) in [("syslog+tls://", true), ("syslog+tcp://", false)] {
        if let Some(rest) = text.strip_prefix(scheme) {
            let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
            let port = port.parse().ok().filter(|port| *port > 0)?;
            return Some(Destination::Syslog { host: host_name(host)?, port, tls });
        }
    }
    if let Some(url) = text.strip_prefix("otlp+") {
        let (scheme, rest) = url.split_once("://")?;
        // The specification's path, unless another is given.
        let url = if rest.trim_end_matches('/').contains('/') {
            url.to_owned()
        } else {
            format!("{scheme}://{}/v1/logs", rest.trim_end_matches('/'))
        };
        return good_url(&url).then_some(Destination::Otlp { url });
    }
    good_url(text).then(|| Destination::Http { url: text.to_owned() })
}

fn host_name(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner.parse::<std::net::Ipv6Addr>().ok().map(|_| inner.to_owned());
    }
    let good = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    good.then(|| host.to_owned())
}

/// `https://…`, or `http://…` on this host. Never with a password in it: this file is shown in the log.
pub(super) fn good_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || url.parse::<axum::http::Uri>().is_err() {
        return false;
    }
    let host = if authority.ends_with(']') { authority } else { authority.rsplit_once(':').map_or(authority, |(host, _)| host) };
    match scheme {
        "https" => true,
        "http" => host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        _ => false,
    }
}

fn headers(section: &Section<'_, '_>, source: &Source<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (name, text) in section.map("headers").unwrap_or_default() {
        if name.parse::<axum::http::HeaderName>().is_err() {
            section.problem(
                "headers",
                format!("`headers` has {name:?}, which is no header's name"),
                "for example: Authorization",
            );
        }
        match source.secret(&text) {
            Ok(secret) => {
                headers.insert(name, secret);
            }
            Err(InvalidRef::Form(form)) => {
                section.problem("headers", format!("`headers.{name}` is not of the form {form}"), super::secret::FORMS);
            }
            Err(InvalidRef::NotAReference | InvalidRef::Empty) => section.problem(
                "headers",
                format!("`headers.{name}` is not a reference to a secret"),
                "write \"env:NAME\", \"file:PATH\" or another reference to what holds the whole value, as in: Splunk TOKEN",
            ),
        }
    }
    headers
}

fn kinds(section: &Section<'_, '_>) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    for name in section.strings("kinds").unwrap_or_default() {
        match name.parse() {
            Ok(kind) => kinds.push(kind),
            Err(_) => {
                let known = EventKind::ALL.map(EventKind::as_str);
                let remedy = match super::reader::nearest(&name, known.into_iter()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("kinds are {}", known.join(", ")),
                };
                section.problem("kinds", format!("`kinds` has {name:?}, which is no kind of entry"), remedy);
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problems, parse};
    use super::*;
    use std::path::Path;

    fn read(stream: &str) -> Result<Config, Problems> {
        let listener = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n";
        parse(&format!("{listener}[[stream]]\nname = \"siem\"\n{stream}"), Path::new("/etc/sallyport.toml"))
    }

    #[test]
    fn places_of_all_sorts() {
        let shown = |to: &str| read(&format!("to = \"{to}\"")).unwrap().streams[0].to.to_string();
        for same in ["syslog+tls://siem.example.com:6514", "syslog+tcp://[::1]:514", "https://h/p?q=1", "http://127.0.0.1:1/x"] {
            assert_eq!(shown(same), same);
        }
        assert_eq!(shown("otlp+https://collector:4318"), "otlp+https://collector:4318/v1/logs");
        assert_eq!(shown("otlp+http://localhost:4318/"), "otlp+http://localhost:4318/v1/logs");
        assert_eq!(shown("otlp+https://collector/otlp/logs"), "otlp+https://collector/otlp/logs");
        for bad in [
            "http://siem/x",
            "syslog+tls://siem",
            "https://u:p@h/",
            "ftp://h",
            "otlp+http://collector",
            "syslog+tls://a b:1",
            "https://",
        ] {
            assert!(read(&format!("to = \"{bad}\"")).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_references_and_kinds_are_known() {
        let good = "to = \"https://h/\"\nformat = \"ecs\"\nheaders = { Authorization = \"env:HEC\" }\nkinds = [\"request\"]\nfrom = \"now\"";
        let stream = read(good).unwrap().streams.remove(0);
        assert_eq!((stream.format, stream.kinds, stream.from_start), (Format::Ecs, vec![EventKind::Request], false));
        let refused = |text: &str| read(text).unwrap_err().to_string();
        let secret = refused("to = \"https://h/\"\nheaders = { Authorization = \"Splunk hunter2\" }");
        assert!(secret.contains("not a reference") && !secret.contains("hunter2"), "{secret}");
        assert!(refused("to = \"https://h/\"\nkinds = [\"requests\"]").contains("did you mean \"request\""));
        assert!(refused("to = \"https://h/\"\nformat = \"parquet\"").contains("jsonl"));
        assert!(refused("to = \"syslog+tls://h:1\"\nheaders = { X = \"env:Y\" }").contains("makes no sense"));
    }
}
