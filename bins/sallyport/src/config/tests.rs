use super::keys::{KEYS, SECTIONS, section_keys};
use super::*;
use std::path::Path;
use std::time::Duration;

const MINIMAL: &str = r#"
[[listener]]
protocol = "postgres"
address = "127.0.0.1:5432"
tls = "optional"
"#;

/// The blueprint's own example, with what this version supports.
const BLUEPRINT: &str = r#"
data_dir = "/var/lib/sallyport"

[tls]
certificate = "tls/gateway.pem"
private_key = "tls/gateway.key"

[[listener]]
protocol = "postgres"
address  = "0.0.0.0:5432"

[[listener]]
protocol = "admin"
address  = "127.0.0.1:8443"

[[issuer]]
name     = "entra"
issuer   = "https://login.microsoftonline.com/TENANT/v2.0"
audience = "api://sallyport"
kind     = "entra"

[[connection]]
name       = "orders-prod"
protocol   = "postgres"
address    = "orders.postgres.database.azure.com:5432"
database   = "orders"
tls        = "verify-full"
owner      = "payments"
tags       = { env = "prod" }
credential = { user = "gateway", password = "env:ORDERS_PASSWORD" }

[[classify]]
class   = "email"
columns = ["orders-prod/public.customers.email"]
detect  = "email"

[[mask]]
class = "email"
with  = "email"
"#;

fn read(text: &str) -> Result<Config, Problems> {
    parse(text, Path::new("/etc/sallyport/sallyport.toml"))
}

/// The one problem of a text: its line, and both sentences.
fn problem(text: &str) -> (usize, String) {
    let problems = read(text).expect_err("must be refused");
    assert_eq!(problems.list.len(), 1, "{problems}");
    (problems.list[0].line, format!("{}\n{}", problems.list[0].what, problems.list[0].remedy))
}

#[test]
fn the_blueprints_example_is_read() {
    let config = read(BLUEPRINT).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/sallyport"));
    assert_eq!(config.tls.as_ref().unwrap().certificate, Path::new("/etc/sallyport/tls/gateway.pem"));
    assert_eq!(config.policy_dir, Path::new("/etc/sallyport/policies"));
    let connection = config.connection("orders-prod").unwrap();
    assert_eq!(connection.address.to_string(), "orders.postgres.database.azure.com:5432");
    assert_eq!(connection.tls, UpstreamTls::VerifyFull);
    assert_eq!(connection.tags["env"], "prod");
    assert!(connection.allows_database("orders"));
    assert!(!connection.allows_database("postgres"));
    assert_eq!(config.masks[0].with, MaskWith::Email);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn unknown_keys_name_the_nearest_known_one_and_the_line() {
    let (line, text) = problem(&MINIMAL.replace("address =", "adress =").replace("adress", "tls_mode = 1\naddress"));
    assert_eq!(line, 4);
    assert!(text.contains("unknown key `tls_mode` in [[listener]]"), "{text}");
    let problems = read("data_dirs = \"x\"").unwrap_err();
    assert!(problems.to_string().contains("did you mean `data_dir`?"), "{problems}");
    let (_, text) = problem(&format!("min_free = \"1 GiB\"\n{MINIMAL}"));
    assert!(text.contains("`min_free` belongs in [audit]"), "{text}");
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let problems = read(
        "threads = \"many\"\n[[listener]]\nprotocol = \"postgress\"\naddress = \"nowhere\"\n[audit]\nmin_free = \"lots\"\ndurability = true\n",
    )
    .unwrap_err();
    let text = problems.to_string();
    let lines: Vec<_> = problems.list.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 3, 4, 6, 7], "{text}");
    assert!(text.contains("did you mean \"postgres\"?"), "{text}");
    assert!(text.contains("/etc/sallyport/sallyport.toml:6: `min_free` is not a size"), "{text}");
}

#[test]
fn text_that_is_not_toml_names_the_line() {
    let problems = read("data_dir = \"x\"\n[[listener\n").unwrap_err();
    assert_eq!(problems.list[0].line, 2, "{problems}");
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    let problems = read(&BLUEPRINT.replace("env:ORDERS_PASSWORD", "hunter2")).unwrap_err();
    let text = format!("{problems}\n{problems:?}");
    assert!(text.contains("not a reference to a secret"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let (_, text) = problem(&BLUEPRINT.replace("env:ORDERS_PASSWORD", "keyvault:orders/hunter2"));
    assert!(text.contains("is not of the form keyvault:VAULT/secrets/NAME") && !text.contains("hunter2"), "{text}");
}

#[test]
fn secrets_of_other_machines_are_named_once_and_need_their_services() {
    let vault = "[vault]\naddress = \"https://vault:8200/\"\ntoken = \"env:VAULT_TOKEN\"\n";
    let reference = BLUEPRINT.replace("env:ORDERS_PASSWORD", "vault:secret/data/orders#password");
    let (_, text) = problem(&reference);
    assert!(text.contains("vault:secret/data/orders#password is in Vault, and there is no [vault]"), "{text}");
    let stream =
        "[[stream]]\nname = \"siem\"\nto = \"https://h/\"\nheaders = { Authorization = \"vault:secret/data/orders#password\" }\n";
    let config = read(&format!("{reference}\n{stream}{vault}")).unwrap();
    assert_eq!(config.remote_secrets.len(), 1);
    assert_eq!(config.vault.as_ref().unwrap().address, "https://vault:8200");
    // Both share what is fetched.
    let later = std::time::Instant::now() + std::time::Duration::from_secs(60);
    config.remote_secrets[0].put(proxy_core::SecretBytes::new(b"one".to_vec()), later);
    assert_eq!(config.connections[0].password.as_ref().unwrap().get().unwrap().expose(), b"one");
    for (wrong, words) in [
        ("[vault]\naddress = \"http://vault:8200\"\ntoken = \"env:T\"\n", "is not an address that may be asked"),
        ("[vault]\naddress = \"https://vault\"\n", "needs `token`"),
        ("[vault]\naddress = \"https://vault\"\ntoken = \"vault:a/data/b#c\"\n", "must be on this machine"),
        ("[vault]\naddress = \"https://vault\"\nauth = \"approle\"\ntoken = \"env:T\"\n", "is for auth = \"token\" alone"),
        ("[vault]\naddress = \"https://vault\"\ntoken = \"env:T\"\nnamespace = \"a/../b\"\n", "is not a path of Vault's"),
        ("[keyvault]\nauth = \"client_secret\"\nclient_secret = \"env:S\"\n", "needs `tenant`"),
        ("[keyvault]\ndomain = \"vault.azure.net/x\"\n", "is not the end of a host's name"),
        ("[audit]\npayload_key = \"keyvault:prod/secrets/x\"\n", "is not of the form keyvault:VAULT/keys/NAME"),
        ("[audit]\npayload_key = \"vault:transit/sallyport\"\n", "is not of the form vault:MOUNT/keys/NAME"),
        ("[audit]\npayload_key = \"hunter2\"\n", "is not a reference to a secret"),
        ("[audit]\npayload_key = \"vault:transit/keys/x\"\n", "there is no [vault]"),
    ] {
        let text = read(&format!("{BLUEPRINT}\n{wrong}")).unwrap_err().to_string();
        assert!(text.contains(words) && !text.contains("hunter2"), "{wrong}: {text}");
    }
}

#[test]
fn a_dev_issuer_is_refused_beside_an_open_listener() {
    let dev = "[[issuer]]\nname = \"dev\"\nkind = \"dev\"\n";
    let (_, text) = problem(&format!("{BLUEPRINT}{dev}"));
    assert!(text.contains("kind = \"dev\" is refused beside the listener on 0.0.0.0:5432"), "{text}");
    let config = read(&format!("{}{dev}", BLUEPRINT.replace("0.0.0.0", "127.0.0.1"))).unwrap();
    assert!(config.warnings.iter().any(|warning| warning.what.contains("env = \"prod\"")), "{:?}", config.warnings);
}

#[test]
fn tls_is_optional_on_local_addresses_alone() {
    for local in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:run/pg.sock", "[::ffff:127.0.0.1]:1"] {
        assert!(read(&MINIMAL.replace("127.0.0.1:5432", local)).is_ok(), "{local}");
    }
    for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let (_, text) = problem(&MINIMAL.replace("127.0.0.1:5432", open));
        assert!(text.contains("tls = \"optional\" is refused"), "{text}");
    }
}

#[test]
fn a_listener_that_needs_a_certificate_says_so() {
    let (_, text) = problem(&MINIMAL.replace("optional", "required"));
    assert!(text.contains("needs a certificate"), "{text}");
}

#[test]
fn names_must_be_unique_and_references_must_resolve() {
    let twice = format!("{BLUEPRINT}\n[[mask]]\nclass = \"email\"\nwith = \"null\"\n");
    assert!(problem(&twice).1.contains("is there twice"));
    let (_, text) = problem(&BLUEPRINT.replace("[[mask]]\nclass = \"email\"", "[[mask]]\nclass = \"emial\""));
    assert!(text.contains("did you mean \"email\"?"), "{text}");
    let (_, text) = problem(&BLUEPRINT.replace("0.0.0.0:5432\"", "0.0.0.0:5432\"\nconnection = \"orders-pord\""));
    assert!(text.contains("did you mean \"orders-prod\"?"), "{text}");
    let (_, text) = problem(&BLUEPRINT.replace("[\"orders-prod/", "[\"order-prod/"));
    assert!(text.contains("did you mean \"orders-prod\"?"), "{text}");
}

#[test]
fn keys_are_fetched_over_https_alone() {
    for bad in ["http://login.example.com", "ftp://x", "login.example.com", "http://127.0.0.1.example.com/"] {
        let (_, text) = problem(&BLUEPRINT.replace("https://login.microsoftonline.com/TENANT/v2.0", bad));
        assert!(text.contains("is not an https:// URL"), "{text}");
    }
    for good in ["http://127.0.0.1:8080/realms/x", "http://[::1]:80", "http://localhost/x"] {
        assert!(read(&BLUEPRINT.replace("https://login.microsoftonline.com/TENANT/v2.0", good)).is_ok(), "{good}");
    }
}

#[test]
fn people_log_in_at_an_issuer_that_is_there() {
    let login = "[login]\nissuer = \"people\"\nclient_id = \"sallyport\"\nurl = \"https://here.example:8443\"\n";
    let people = "[[issuer]]\nname = \"people\"\nissuer = \"https://login.example\"\naudience = \"x\"\n";
    let config = read(&format!("{login}{people}{MINIMAL}")).unwrap_or_else(|problems| panic!("{problems}"));
    let read_login = config.login.unwrap();
    assert_eq!((read_login.session, read_login.fresh), (Duration::from_secs(8 * 3_600), None));
    let several = "kind = \"entra\"\nissuer = \"https://login.microsoftonline.com/organizations/v2.0\"\n\
         tenants = [\"9f2b1c1e-0000-4000-8000-000000000001\"]";
    for (from, to, said) in [
        ("\"people\"\nclient", "\"poeple\"\nclient", "names the issuer \"poeple\", which is not there"),
        ("https://here.example:8443", "http://here.example:8443", "is not an https:// URL"),
        ("https://here.example:8443", "https://here.example:8443/", "is not an origin"),
        ("https://here.example:8443", "https://here.example:443", "is not an origin"),
        ("https://here.example:8443", "https://Here.example", "is not an origin"),
        ("issuer = \"https://login.example\"\naudience = \"x\"", "kind = \"dev\"", "where nobody logs in"),
        ("issuer = \"https://login.example\"", several, "of several tenants"),
    ] {
        let (_, text) = problem(&format!("{login}{people}{MINIMAL}").replacen(from, to, 1));
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let mut text = String::new();
    for section in ["", "policy", "limits", "audit", "approvals", "telemetry"] {
        if !section.is_empty() {
            text.push_str(&format!("[{section}]\n"));
        }
        for key in section_keys(section).filter(|key| !key.default.is_empty() && !key.default.starts_with('(')) {
            text.push_str(&format!("{} = {}\n", key.name, key.default));
        }
    }
    let (bare, written) = (read(MINIMAL).unwrap(), read(&format!("{text}{MINIMAL}")).unwrap());
    assert_eq!(written.limits, bare.limits);
    assert_eq!(written.audit, bare.audit);
    assert_eq!(written.telemetry, bare.telemetry);
    assert_eq!((written.data_dir, written.policy_dir), (bare.data_dir, bare.policy_dir));
    assert_ne!(written.digest, bare.digest, "a value that is written is part of the set");
}

#[test]
fn every_documented_example_is_accepted() {
    let mut text = String::new();
    let exclusive = [
        ("mask", ["value", "secret"].as_slice()),
        ("issuer", ["tenants"].as_slice()),
        ("vault", ["token", "role", "jwt"].as_slice()),
        ("keyvault", ["client_secret"].as_slice()),
        ("shipping", ["account"].as_slice()),
        (
            "notify",
            ["token", "channel", "signing_secret", "server", "tls", "user", "password", "sender", "recipients"].as_slice(),
        ),
    ];
    for section in SECTIONS.iter().filter(|section| !section.header.starts_with("credential")) {
        let skip = exclusive.iter().find(|(name, _)| *name == section.name).map_or(&[][..], |(_, keys)| keys);
        if !section.name.is_empty() {
            text.push_str(&format!("{}\n", section.header));
        }
        for key in section_keys(section.name).filter(|key| !key.example.is_empty() && !skip.contains(&key.name)) {
            text.push_str(&format!("{} = {}\n", key.name, key.example));
        }
    }
    let config = read(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!(config.limits.session.idle_timeout, Some(Duration::from_secs(8 * 3_600)));
    assert_eq!(config.audit.durability, Durability::Sync);
    assert_eq!(config.threads, Some(4));
}

#[test]
fn every_key_is_in_a_known_section_once() {
    for (at, key) in KEYS.iter().enumerate() {
        assert!(SECTIONS.iter().any(|section| section.name == key.section), "{}", key.section);
        assert!(!KEYS[..at].iter().any(|other| (other.section, other.name) == (key.section, key.name)), "{}", key.name);
        assert!(!key.meaning.is_empty() && !key.kind.is_empty());
    }
}

#[test]
fn the_digest_ignores_layout_and_order_and_sees_every_value() {
    let one = read(BLUEPRINT).unwrap();
    let spaced = read(&BLUEPRINT.replace(" = ", "   =   ").replace("[tls]", "# a comment\n[tls]")).unwrap();
    assert_eq!(one.digest, spaced.digest);
    let other = read(&BLUEPRINT.replace("payments", "billing")).unwrap();
    assert_ne!(one.digest, other.digest);
    assert_eq!(difference(&one.lines, &other.lines), ["~ connection[orders-prod].owner = \"payments\" → \"billing\""]);
    assert_eq!(difference(&one.lines, &one.lines), Vec::<String>::new());
    let less = read(&BLUEPRINT.replace("owner      = \"payments\"\n", "threads_ = 1\n").replace("threads_ = 1\n", "")).unwrap();
    assert_eq!(difference(&one.lines, &less.lines), ["- connection[orders-prod].owner = \"payments\""]);
    assert_eq!(difference(&less.lines, &one.lines), ["+ connection[orders-prod].owner = \"payments\""]);
}

#[test]
fn addresses_of_targets() {
    let with = |address: &str| read(&BLUEPRINT.replace("orders.postgres.database.azure.com:5432", address));
    for good in ["db:1", "10.0.0.1:5432", "[::1]:5432", "unix:/run/postgresql:5432"] {
        let config = with(good).unwrap();
        assert_eq!(config.connections[0].address.to_string(), good);
    }
    for bad in ["db", "db:0", "db:99999", "::1:5432", "[db]:1", ":5432", "unix:5432", "a b:1", "u@h:1"] {
        assert!(with(bad).is_err(), "{bad}");
    }
    let socket = with("unix:/run/postgresql:5433").unwrap().connections[0].address.socket();
    assert_eq!(socket.as_deref(), Some(Path::new("/run/postgresql/.s.PGSQL.5433")));
}

const WITNESS: &str = r#"
[audit]
witnesses_min = 1

[[witness]]
key = "witness.example+d5a1cfe3+BFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc"
url = "https://witness.example:8444/a/"
ca = "witness.pem"
"#;

#[test]
fn witnesses_have_a_key_and_a_place() {
    let config = read(&format!("{MINIMAL}{WITNESS}")).unwrap();
    let [witness] = &config.witnesses[..] else { panic!("{:?}", config.witnesses) };
    assert_eq!((witness.key.name(), &*witness.url), ("witness.example", "https://witness.example:8444/a"));
    assert_eq!(witness.ca.as_deref(), Some(Path::new("/etc/sallyport/witness.pem")));
    assert_eq!(config.audit.witnesses_min, 1);
    assert!(read(MINIMAL).unwrap().witnesses.is_empty());
    let moved = read(&format!("{MINIMAL}{}", WITNESS.replace("8444", "8445"))).unwrap();
    assert_ne!(moved.digest, config.digest);
    assert_eq!(difference(&config.lines, &moved.lines).len(), 6, "another witness, with its three values");
}

#[test]
fn a_witness_that_could_never_be_believed_is_refused() {
    let with = |from: &str, to: &str| problem(&format!("{MINIMAL}{}", WITNESS.replace(from, to)));
    assert!(with("d5a1cfe3", "d5a1cfe4").1.contains("its id is not that of its name and key"));
    let log = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key = "witness.example+d5a1cfe3+BFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc";
    assert!(with(key, log).1.contains("a log's key, that of PeterNeumann"));
    assert!(with("https://", "http://").1.contains("could answer that the log was forked"));
    for url in
        ["https://witness.example/?a", "https://a@witness.example", "https://witness.example/#a", "https://witness.example/ a"]
    {
        assert!(with("https://witness.example:8444/a/", url).1.contains("more than a host and a path"), "{url}");
    }
    let (line, text) = with("witnesses_min = 1", "witnesses_min = 2");
    assert!(line == 8 && text.contains("`witnesses_min` is 2, and there are 1 [[witness]]"), "{line}: {text}");
    let again = WITNESS.split_once("[[witness]]").unwrap().1;
    let other = format!("[[witness]]{}", again.replace("8444", "8445"));
    assert!(problem(&format!("{MINIMAL}{WITNESS}{other}")).1.contains("is there twice"));
}
