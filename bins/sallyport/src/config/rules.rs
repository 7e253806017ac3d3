//! Rules that look across the sections of a file.

use super::model::{IssuerKind, ListenerProtocol, UpstreamTls};
use super::parse::{At, Parts};
use super::problem::Problem;
use super::reader::{Section, Source, nearest};
use super::secret::{Secret, SecretRef};
use super::vaults::WrapSource;
use super::{Destination, Shipping};
use std::collections::HashMap;

/// Reports what is wrong, and returns what is doubtful.
pub(super) fn check(source: &Source<'_>, top: &Section<'_, '_>, parts: &Parts) -> Vec<Problem> {
    unique(source, "issuer", "name", &parts.issuers, |issuer| issuer.name.clone());
    unique(source, "connection", "name", &parts.connections, |connection| connection.name.clone());
    unique(source, "listener", "address", &parts.listeners, |listener| listener.address.to_string());
    unique(source, "mask", "class", &parts.masks, |mask| mask.class.clone());
    unique(source, "stream", "name", &parts.streams, |stream| stream.name.clone());
    unique(source, "notify", "name", &parts.notify, |channel| channel.name.clone());
    unique(source, "shipping", "name", &parts.shipping, |shipping| shipping.name.clone());
    unique(source, "shipping", "url", &parts.shipping, Shipping::identity);
    unique(source, "issuer", "issuer", &parts.issuers, |issuer| issuer.issuer.clone());
    unique(source, "witness", "name", &parts.witnesses, |witness| witness.key.name().to_owned());
    unique(source, "witness", "url", &parts.witnesses, |witness| witness.url.clone());
    listeners(source, top, parts);
    witnesses(source, top, parts);
    issuers(source, parts);
    super::login::check(source, parts);
    references(source, parts);
    vaults(source, parts);
    warnings(parts)
}

fn unique<T>(source: &Source<'_>, section: &str, key: &str, list: &[At<T>], name: impl Fn(&T) -> String) {
    let mut seen = HashMap::new();
    for at in list {
        let name = name(&at.value);
        match seen.get(&name) {
            Some(first) => {
                let what = format!("[[{section}]] with {key} {name:?} is there twice; the first is on line {first}");
                source.problem(at.line, what, "rename or remove one of them");
            }
            None => {
                seen.insert(name, at.line);
            }
        }
    }
}

fn listeners(source: &Source<'_>, top: &Section<'_, '_>, parts: &Parts) {
    if parts.listeners.is_empty() && !top.has("listener") {
        source.problem(
            0,
            "there is no [[listener]]",
            "add one: [[listener]] protocol = \"postgres\", address = \"127.0.0.1:5432\"",
        );
    }
    for at in &parts.listeners {
        let listener = &at.value;
        if listener.tls_optional && !listener.address.is_local() {
            let remedy = "remove `tls`, or listen on 127.0.0.1, [::1] or a Unix socket: a token must not travel in the clear";
            source.problem(at.line, format!("tls = \"optional\" is refused on {}", listener.address), remedy);
        }
        if !listener.tls_optional && parts.tls.is_none() && !top.has("tls") {
            let remedy = "add [tls] with `certificate` and `private_key`; `sallyport init DIR` makes a pair";
            source.problem(at.line, format!("the listener on {} needs a certificate", listener.address), remedy);
        }
        let Some(name) = &listener.connection else { continue };
        if listener.protocol == ListenerProtocol::Admin {
            source.problem(at.line, "an admin listener has no `connection`", "remove it");
        } else if !parts.connections.iter().any(|connection| connection.value.name == *name) {
            let known = parts.connections.iter().map(|connection| connection.value.name.as_str());
            let remedy = match nearest(name, known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add a [[connection]] with that name".to_owned(),
            };
            source.problem(
                at.line,
                format!("the listener on {} is for connection {name:?}, which is not there", listener.address),
                remedy,
            );
        }
    }
}

fn witnesses(source: &Source<'_>, top: &Section<'_, '_>, parts: &Parts) {
    let (wanted, there) = (parts.audit.value.witnesses_min, parts.witnesses.len());
    // A [[witness]] that is wrong has been reported: it is not missing as well.
    let written = top.tables_written("witness");
    if wanted > there.max(written) {
        let what = format!("`witnesses_min` is {wanted}, and there are {there} [[witness]]");
        source.problem(parts.audit.line, what, "add a [[witness]], or lower it: no checkpoint could ever have so many");
    }
}

/// A reference to Vault needs to know where that is.
fn vaults(source: &Source<'_>, parts: &Parts) {
    let remote = source.remote();
    let secret = remote.iter().map(Secret::reference).find(|reference| matches!(reference, SecretRef::Vault { .. }));
    let transit = parts.audit.value.payload_key.as_ref().filter(|key| matches!(key, WrapSource::Transit { .. }));
    let named = secret.map(ToString::to_string).or(transit.map(ToString::to_string));
    if let Some(named) = named.filter(|_| parts.vault.is_none() && !parts.vault_written) {
        source.problem(
            0,
            format!("{named} is in Vault, and there is no [vault]"),
            "add [vault] with `address` and how to log in",
        );
    }
}

fn issuers(source: &Source<'_>, parts: &Parts) {
    let open = parts.listeners.iter().find(|at| !at.value.address.is_local());
    for at in &parts.issuers {
        if at.value.name == "key" {
            source.problem(
                at.line,
                "an issuer cannot be called \"key\"",
                "choose another name: `key/…` are the callers with machine keys",
            );
        }
        if at.value.kind != IssuerKind::Dev {
            continue;
        }
        if let Some(open) = open {
            let what = format!("kind = \"dev\" is refused beside the listener on {} (line {})", open.value.address, open.line);
            let remedy = "anybody who can read data_dir can make any identity with it: listen on 127.0.0.1, or use a real issuer";
            source.problem(at.line, what, remedy);
        }
    }
}

fn references(source: &Source<'_>, parts: &Parts) {
    for at in &parts.classify {
        for column in &at.value.columns {
            let name = column.split('/').next().unwrap_or_default();
            let known = parts.connections.iter().any(|connection| connection.value.name == name);
            if known || name.contains('*') {
                continue;
            }
            let names = parts.connections.iter().map(|connection| connection.value.name.as_str());
            let remedy = nearest(name, names)
                .map_or_else(|| "name a [[connection]], or `*` for all".to_owned(), |near| format!("did you mean {near:?}?"));
            source.problem(at.line, format!("{column:?} names a connection that is not there"), remedy);
        }
    }
    for at in &parts.retention {
        let Some(name) = &at.value.connection else { continue };
        if !parts.connections.iter().any(|connection| connection.value.name == *name) {
            let names = parts.connections.iter().map(|connection| connection.value.name.as_str());
            let remedy = nearest(name, names).map_or_else(
                || "name a [[connection]], or leave it out for all".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            source.problem(at.line, format!("the retention of {name:?} is of a connection that is not there"), remedy);
        }
    }
    for at in &parts.masks {
        if !parts.classify.iter().any(|classify| classify.value.class == at.value.class) {
            let classes = parts.classify.iter().map(|classify| classify.value.class.as_str());
            let remedy = nearest(&at.value.class, classes)
                .map_or_else(|| "add a [[classify]] for it, or remove this".to_owned(), |near| format!("did you mean {near:?}?"));
            source.problem(at.line, format!("no [[classify]] has the class {:?}", at.value.class), remedy);
        }
    }
}

fn warnings(parts: &Parts) -> Vec<Problem> {
    let mut list = Vec::new();
    let mut warn = |line: usize, what: String, remedy: &str| list.push(Problem { line, what, remedy: remedy.to_owned() });
    let dev = parts.issuers.iter().find(|at| at.value.kind == IssuerKind::Dev);
    for at in &parts.connections {
        let connection = &at.value;
        let production = connection
            .tags
            .get("env")
            .is_some_and(|env| env.eq_ignore_ascii_case("prod") || env.eq_ignore_ascii_case("production"));
        if let Some(dev) = dev.filter(|_| production) {
            let what = format!(
                "connection {:?} is tagged env = {:?}, beside an issuer of kind \"dev\"",
                connection.name, connection.tags["env"]
            );
            warn(
                dev.line,
                what,
                "use a real issuer for production: whoever reads data_dir can make any identity of the dev issuer",
            );
        }
        if connection.tls == UpstreamTls::Require {
            let what = format!("connection {:?} has tls = \"require\": the server is not checked", connection.name);
            warn(at.line, what, "use \"verify-full\", with `ca` if its certificate is from a private CA");
        }
        let local = match &connection.address {
            super::model::TargetAddress::Unix { .. } => true,
            super::model::TargetAddress::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        };
        if connection.tls == UpstreamTls::Disable && !local {
            let what = format!("connection {:?} has tls = \"disable\" and is not on this host", connection.name);
            warn(at.line, what, "data and credentials travel in the clear: use \"verify-full\"");
        }
    }
    for at in &parts.streams {
        if let Destination::Syslog { host, tls: false, .. } = &at.value.to
            && host != "localhost"
            && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        {
            let what = format!("stream {:?} goes to {} in the clear", at.value.name, at.value.to);
            warn(at.line, what, "statements and their values can be read and changed on the way: use syslog+tls://");
        }
    }
    for at in &parts.classify {
        if !parts.masks.iter().any(|mask| mask.value.class == at.value.class) {
            let what = format!("class {:?} has no [[mask]]: it is redacted", at.value.class);
            warn(at.line, what, "add a [[mask]] to say how it looks");
        }
    }
    if parts.issuers.is_empty() {
        warn(0, "there is no [[issuer]]: only machine keys can log in".to_owned(), "add an [[issuer]]");
    }
    list.sort_by_key(|problem| problem.line);
    list
}
