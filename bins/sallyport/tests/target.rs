//! The gateway's own connection to PostgreSQL, against a real server.
#![allow(missing_docs, reason = "a test")]

mod scratch;

use proxy_core::SecretBytes;
use proxy_core::catalog::RelationKind;
use sallyport::config::{self, Config};
use sallyport::target::inspect::inspect;
use sallyport::target::postgres::{Link, TargetError, connect, load_catalog};
use scratch::Scratch;
use std::path::Path;
use std::process::Command;

const SCHEMA: &str = "
    CREATE SCHEMA shop;
    CREATE TABLE shop.customers (id int PRIMARY KEY, gone int, email text, lower_email text GENERATED ALWAYS AS (lower(email)) STORED);
    ALTER TABLE shop.customers DROP COLUMN gone;
    CREATE TABLE shop.orders (id int, day date) PARTITION BY RANGE (day);
    CREATE TABLE shop.orders_2024 PARTITION OF shop.orders FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    SET search_path = shop;
    CREATE VIEW contacts AS SELECT email AS contact FROM customers;
    CREATE FUNCTION total(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE EXTENSION pg_trgm SCHEMA public;
    CREATE ROLE gateway LOGIN PASSWORD 'other' IN ROLE pg_read_all_data;
    ALTER ROLE gateway SET search_path = shop, nowhere, public;
";

fn with(folder: &Path, address: &str, rest: &str) -> Config {
    let text = format!(
        "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n
         [[connection]]\nname = \"t\"\nprotocol = \"postgres\"\ndatabase = \"postgres\"\naddress = \"{address}\"\n{rest}\n"
    );
    config::parse(&text, &folder.join("sallyport.toml")).unwrap()
}

async fn open(config: &Config, password: &str) -> Result<Link, TargetError> {
    connect(&config.connections[0], "postgres", Some(&SecretBytes::new(password.as_bytes().to_vec()))).await
}

#[tokio::test]
async fn connects_in_every_way_and_reads_the_catalogue() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let home = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_sallyport")).arg("init").arg(home.path().join("gate")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let tls = home.path().join("gate/tls");
    let Some(server) = Scratch::start(&tls.join("gateway.pem"), &tls.join("gateway.key")) else { return };
    let address = format!("127.0.0.1:{}", server.port);
    let admin = "credential = { user = \"postgres\" }";
    let config = |rest: &str| with(home.path(), &address, rest);

    let verified = open(&config(&format!("ca = \"gate/tls/ca.pem\"\n{admin}")), "secret").await.unwrap();
    assert!(verified.tls().unwrap().starts_with("TLSv1.3 TLS13"), "{:?}", verified.tls());
    let required = open(&config(&format!("tls = \"require\"\n{admin}")), "secret").await.unwrap();
    assert!(required.tls().is_some());
    let plain = open(&config(&format!("tls = \"disable\"\n{admin}")), "secret").await.unwrap();
    assert_eq!(plain.tls(), None);
    let socket = with(home.path(), &format!("unix:{}:{}", server.folder().display(), server.port), admin);
    assert_eq!(open(&socket, "secret").await.unwrap().tls(), None);

    let stranger = open(&config(admin), "secret").await.unwrap_err();
    assert!(matches!(&stranger, TargetError::Connect { why, .. } if why.contains("certificate")), "{stranger}");
    let refused = open(&config(&format!("tls = \"disable\"\n{admin}")), "wrong").await.unwrap_err();
    assert!(matches!(refused, TargetError::Login { .. }), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("wrong\""));

    plain.client().batch_execute(SCHEMA).await.unwrap();
    let found = inspect(&verified).await.unwrap();
    assert_eq!(found.too_wide[0].privilege, "SUPERUSER");
    catalogue(&config("tls = \"disable\"\ncredential = { user = \"gateway\" }")).await;
}

async fn catalogue(config: &Config) {
    let link = open(config, "other").await.unwrap();
    let found = inspect(&link).await.unwrap();
    assert_eq!(found.too_wide.iter().map(|found| found.privilege.as_str()).collect::<Vec<_>>(), ["pg_read_all_data"]);
    assert_eq!(found.too_wide[0].remedy, "REVOKE pg_read_all_data FROM \"gateway\"");

    let catalog = load_catalog(link.client(), 7).await.unwrap();
    assert_eq!(catalog.version, 7);
    assert_eq!(catalog.search_path, ["shop", "public"], "what is not there is not searched");
    let customers = catalog.find("shop", "customers").unwrap();
    let columns: Vec<_> =
        customers.columns.iter().map(|column| (column.number, column.name.as_str(), column.generated)).collect();
    assert_eq!(columns, [(1, "id", false), (3, "email", false), (4, "lower_email", true)]);
    let view = catalog.find("shop", "contacts").unwrap();
    assert_eq!(view.kind, RelationKind::View);
    assert!(view.definition.as_deref().unwrap().contains("FROM shop.customers"), "{view:?}");
    let partition = catalog.find("shop", "orders_2024").unwrap();
    assert_eq!(partition.parents, [catalog.find("shop", "orders").unwrap().oid]);
    assert!(
        catalog
            .find("pg_catalog", "pg_class")
            .is_some_and(|relation| relation.definition.is_none() && !relation.columns.is_empty())
    );
    let total = catalog.functions_named("total").next().unwrap();
    assert_eq!((total.schema.as_str(), total.language.as_str(), total.from_extension), ("shop", "sql", false));
    assert!(catalog.functions_named("similarity").all(|function| function.from_extension && function.language == "c"));
    assert!(catalog.functions_named("similarity").next().is_some());
    let path = link.client().query_one("SHOW search_path", &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(path, "shop, nowhere, public", "loading leaves the session as it was");
    assert!(load_catalog(link.client(), 8).await.unwrap().same_as(&catalog));
}
