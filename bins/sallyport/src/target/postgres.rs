//! PostgreSQL targets: the gateway's own connection, and the catalogue.

use super::tls::{MakeRustls, TlsSetupError, client_config};
use crate::config::{Connection, TargetAddress};
use proxy_core::catalog::{Column, Function, Relation, RelationKind};
use proxy_core::{Catalog, SecretBytes};
use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// Longest that connecting and logging in may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that one query of the gateway's own may take, on the server.
const QUERY_TIMEOUT: &str = "30s";
/// The first version with generated columns.
const GENERATED_COLUMNS_SINCE: u32 = 120_000;
/// The oldest version whose catalogue the queries fit.
const OLDEST: u32 = 100_000;

/// Why the gateway's own connection to a target does not do what it should. No secret is in any of them.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// TLS cannot be set up.
    #[error("TLS towards {0} cannot be set up: {1}")]
    Tls(String, TlsSetupError),
    /// No answer in time.
    #[error("{0} does not answer within 10 s; check the address and the firewalls between")]
    Timeout(String),
    /// It cannot be connected to, or TLS failed.
    #[error("{address} cannot be connected to: {why}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// It refused the login.
    #[error("{address} refused the login of {user:?}: {why}")]
    Login {
        /// Where.
        address: String,
        /// As whom.
        user: String,
        /// The server's words.
        why: String,
    },
    /// A query failed.
    #[error("a query of the catalogue failed: {0}")]
    Query(String),
    /// It is too old.
    #[error("the server's version number is {0}; PostgreSQL 10 is the oldest that is supported")]
    TooOld(u32),
}

/// The gateway's own connection to a target. Closed when dropped.
#[derive(Debug)]
pub struct Link {
    client: Client,
    task: JoinHandle<()>,
    tls: Option<MakeRustls>,
}

impl Link {
    /// For queries.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// TLS version and cipher suite; `None`: not encrypted.
    #[must_use]
    pub fn tls(&self) -> Option<&str> {
        self.tls.as_ref().and_then(MakeRustls::negotiated)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects to `database` of a target and logs in, as the connection says.
///
/// # Errors
/// [`TargetError`].
pub async fn connect(connection: &Connection, database: &str, password: Option<&SecretBytes>) -> Result<Link, TargetError> {
    let address = connection.address.to_string();
    let mut config = tokio_postgres::Config::new();
    config.user(&connection.user).dbname(database).application_name("sallyport").connect_timeout(CONNECT_TIMEOUT);
    match &connection.address {
        TargetAddress::Tcp { host, port } => config.host(host).port(*port),
        TargetAddress::Unix { folder, port } => config.host_path(folder).port(*port),
    };
    if let Some(password) = password {
        config.password(password.expose());
    }
    let tls = client_config(connection).map_err(|error| TargetError::Tls(address.clone(), error))?.map(MakeRustls::new);
    // TLS is not spoken on a Unix socket; libpq ignores sslmode there too.
    let tls = tls.filter(|_| connection.address.socket().is_none());
    let connecting = async {
        match tls.clone() {
            Some(connector) => {
                let (client, driver) = config.ssl_mode(SslMode::Require).connect(connector).await?;
                Ok((client, drive(driver)))
            }
            None => {
                let (client, driver) = config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
                Ok((client, drive(driver)))
            }
        }
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let (client, task) =
        connected.map_err(|_| TargetError::Timeout(address.clone()))?.map_err(|error| failure(connection, &error))?;
    Ok(Link { client, task, tls })
}

fn drive(driver: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(error = %reason(&error), "the gateway's own connection to a target ended");
        }
    })
}

fn failure(connection: &Connection, error: &tokio_postgres::Error) -> TargetError {
    let address = connection.address.to_string();
    let login = error.code().is_some_and(|code| {
        [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, SqlState::INVALID_CATALOG_NAME].contains(code)
    });
    let why = reason(error);
    if login { TargetError::Login { address, user: connection.user.clone(), why } } else { TargetError::Connect { address, why } }
}

/// The server's message, or the chain of causes.
fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return format!("{} ({})", server.message(), server.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

pub(super) fn query_error(error: &tokio_postgres::Error) -> TargetError {
    TargetError::Query(reason(error))
}

/// Loads the catalogue of the database that `client` is connected to.
///
/// One transaction with a snapshot, five queries. Relations of every schema with their columns, views with their
/// definitions in which every name is qualified, functions outside `pg_catalog` and `information_schema`.
///
/// # Errors
/// [`TargetError::Query`], [`TargetError::TooOld`].
pub async fn load_catalog(client: &Client, version: u64) -> Result<Catalog, TargetError> {
    // The definitions of views come from the server's current catalogue, not from the snapshot: a view that is
    // dropped meanwhile fails the query. Once more, then.
    match in_snapshot(client, version).await {
        Err(TargetError::Query(_)) => in_snapshot(client, version).await,
        other => other,
    }
}

async fn in_snapshot(client: &Client, version: u64) -> Result<Catalog, TargetError> {
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '{QUERY_TIMEOUT}'");
    client.batch_execute(&begin).await.map_err(|error| query_error(&error))?;
    let loaded = load(client, version).await;
    // It changed nothing, so a rollback ends it whatever happened.
    let ended = client.batch_execute("ROLLBACK").await.map_err(|error| query_error(&error));
    loaded.and_then(|catalog| ended.map(|()| catalog))
}

async fn load(client: &Client, version: u64) -> Result<Catalog, TargetError> {
    let failed = |error: tokio_postgres::Error| query_error(&error);
    let session = client
        .query_one("SELECT current_setting('server_version_num')::int4, current_schemas(false)::text[]", &[])
        .await
        .map_err(failed)?;
    let number: i32 = session.try_get(0).map_err(failed)?;
    let number = u32::try_from(number).unwrap_or(0);
    if number < OLDEST {
        return Err(TargetError::TooOld(number));
    }
    let search_path: Vec<String> = session.try_get(1).map_err(failed)?;
    // Without a search path, pg_get_viewdef qualifies every name that is not built in.
    client.batch_execute("SET LOCAL search_path = ''").await.map_err(failed)?;
    let mut columns = columns(client, number).await?;
    let mut parents = parents(client).await?;
    let relations = relations(client, &mut columns, &mut parents).await?;
    let functions = functions(client).await?;
    Ok(Catalog::new(version, number, search_path, relations, functions))
}

/// Schemas whose relations nobody names: TOAST tables, and other sessions' temporary ones.
const NAMED_SCHEMAS: &str = "n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp\\_%'";

async fn relations(
    client: &Client,
    columns: &mut HashMap<u32, Vec<Column>>,
    parents: &mut HashMap<u32, Vec<u32>>,
) -> Result<Vec<Relation>, TargetError> {
    let failed = |error: tokio_postgres::Error| query_error(&error);
    let query = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
                CASE WHEN c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                     THEN pg_catalog.pg_get_viewdef(c.oid) END
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND {NAMED_SCHEMAS}
          ORDER BY c.oid"
    );
    let mut relations = Vec::new();
    for row in client.query(&query, &[]).await.map_err(failed)? {
        let oid: u32 = row.try_get(0).map_err(failed)?;
        let kind: String = row.try_get(3).map_err(failed)?;
        relations.push(Relation {
            oid,
            schema: row.try_get(1).map_err(failed)?,
            name: row.try_get(2).map_err(failed)?,
            kind: match kind.as_str() {
                "v" => RelationKind::View,
                "m" => RelationKind::MaterializedView,
                "f" => RelationKind::ForeignTable,
                "S" => RelationKind::Sequence,
                "c" => RelationKind::Composite,
                _ => RelationKind::Table,
            },
            columns: columns.remove(&oid).unwrap_or_default(),
            definition: row.try_get(4).map_err(failed)?,
            parents: parents.remove(&oid).unwrap_or_default(),
        });
    }
    Ok(relations)
}

async fn columns(client: &Client, server_version: u32) -> Result<HashMap<u32, Vec<Column>>, TargetError> {
    let failed = |error: tokio_postgres::Error| query_error(&error);
    let generated = if server_version >= GENERATED_COLUMNS_SINCE { "a.attgenerated <> ''" } else { "false" };
    let query = format!(
        "SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, {generated}
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND {NAMED_SCHEMAS}
          ORDER BY a.attrelid, a.attnum"
    );
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in client.query(&query, &[]).await.map_err(failed)? {
        columns.entry(row.try_get(0).map_err(failed)?).or_default().push(Column {
            number: row.try_get(1).map_err(failed)?,
            name: row.try_get(2).map_err(failed)?,
            type_id: row.try_get(3).map_err(failed)?,
            generated: row.try_get(4).map_err(failed)?,
        });
    }
    Ok(columns)
}

async fn parents(client: &Client) -> Result<HashMap<u32, Vec<u32>>, TargetError> {
    let failed = |error: tokio_postgres::Error| query_error(&error);
    let query = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits ORDER BY inhrelid, inhseqno";
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    for row in client.query(query, &[]).await.map_err(failed)? {
        parents.entry(row.try_get(0).map_err(failed)?).or_default().push(row.try_get(1).map_err(failed)?);
    }
    Ok(parents)
}

async fn functions(client: &Client) -> Result<Vec<Function>, TargetError> {
    let failed = |error: tokio_postgres::Error| query_error(&error);
    let query = "SELECT p.oid, n.nspname::text, p.proname::text, l.lanname::text,
                        l.lanname IN ('c', 'internal') AND EXISTS (
                          SELECT FROM pg_catalog.pg_depend d
                           WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
                   FROM pg_catalog.pg_proc p
                   JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                   JOIN pg_catalog.pg_language l ON l.oid = p.prolang
                  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
                  ORDER BY p.oid";
    let mut functions = Vec::new();
    for row in client.query(query, &[]).await.map_err(failed)? {
        functions.push(Function {
            oid: row.try_get(0).map_err(failed)?,
            schema: row.try_get(1).map_err(failed)?,
            name: row.try_get(2).map_err(failed)?,
            language: row.try_get(3).map_err(failed)?,
            from_extension: row.try_get(4).map_err(failed)?,
        });
    }
    Ok(functions)
}
