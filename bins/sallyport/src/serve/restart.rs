//! Which settings of a reloaded configuration the running gateway cannot take over.

use crate::config::Config;

/// The sections in which `now` differs from what the gateway was started with, and which take effect at the next start.
/// `[limits]` counts without the limits of connections and logins, which take effect at once, `[audit]` without
/// `heartbeat` and `checkpoint`.
pub(super) fn waiting_for_restart(started: &Config, now: &Config) -> Vec<&'static str> {
    let limits = |config: &Config| {
        let mut session = config.limits.session.clone();
        session.hold_timeout = std::time::Duration::ZERO;
        (session, config.limits.drain_timeout)
    };
    let approvals = |config: &Config| (config.limits.session.hold_timeout, config.limits.held_max);
    let audit = |config: &Config| {
        let audit = &config.audit;
        // Another source for the payloads' keys is what the next of them is wrapped by; that there is one begins at the start.
        (audit.durability, audit.min_free, audit.export, audit.key.clone(), audit.witnesses_min, audit.payload_key.is_some())
    };
    let differences = [
        ("data_dir", started.data_dir != now.data_dir),
        ("threads", started.threads != now.threads),
        ("[tls]", started.tls != now.tls),
        ("[[listener]]", started.listeners != now.listeners),
        ("[login]", started.login != now.login),
        ("[limits]", limits(started) != limits(now)),
        ("[audit]", audit(started) != audit(now)),
        ("[[witness]]", started.witnesses != now.witnesses),
        ("[approvals]", approvals(started) != approvals(now)),
        ("[[stream]]", started.streams != now.streams),
        ("[[notify]]", started.notify != now.notify),
        ("[[shipping]]", started.shipping != now.shipping),
        ("[telemetry]", started.telemetry != now.telemetry),
    ];
    differences.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::waiting_for_restart;
    use crate::config::{Config, parse};
    use std::path::Path;

    const BASE: &str = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:6432\"\ntls = \"optional\"\n";

    const LOGIN: &str = "[[issuer]]\nname = \"people\"\nissuer = \"https://login.example\"\naudience = \"x\"\n\
         [login]\nissuer = \"people\"\nclient_id = \"sallyport\"\nurl = \"https://here.example\"";

    fn config(more: &str) -> Config {
        parse(&format!("{more}\n{BASE}"), Path::new("/etc/sallyport.toml")).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn what_is_read_at_the_start_alone_is_named() {
        let started = config("");
        for (change, expected) in [
            ("", vec![]),
            ("threads = 3", vec!["threads"]),
            ("data_dir = \"/elsewhere\"", vec!["data_dir"]),
            ("[limits]\nidle_timeout = \"1h\"\ndrain_timeout = \"3s\"", vec!["[limits]"]),
            ("[limits]\nconnections_max = 7\nconnections_per_principal_max = 3\nlogins_per_address_max = 2", vec![]),
            ("[approvals]\ntimeout = \"3s\"", vec!["[approvals]"]),
            ("[audit]\ndurability = \"sync\"", vec!["[audit]"]),
            ("[audit]\nheartbeat = \"1m\"\ncheckpoint = \"1s\"", vec![]),
            ("[audit]\nexport = false", vec!["[audit]"]),
            (LOGIN, vec!["[login]"]),
            ("[[notify]]\nname = \"chat\"\nkind = \"teams\"\nurl = \"env:URL\"", vec!["[[notify]]"]),
            ("[telemetry]\nlevel = \"debug\"", vec!["[telemetry]"]),
            ("[[stream]]\nname = \"siem\"\nto = \"https://siem/\"", vec!["[[stream]]"]),
            ("[[shipping]]\nname = \"vault\"\nurl = \"s3://log-bucket\"", vec!["[[shipping]]"]),
            ("[tls]\ncertificate = \"a.pem\"\nprivate_key = \"a.key\"", vec!["[tls]"]),
        ] {
            assert_eq!(waiting_for_restart(&started, &config(change)), expected, "{change}");
        }
        let elsewhere = parse(&BASE.replace("6432", "6433"), Path::new("/etc/sallyport.toml")).unwrap();
        assert_eq!(waiting_for_restart(&started, &elsewhere), ["[[listener]]"]);
    }
}
