//! What `check --connect` wants to know of a target: who the gateway is there, and what it can do beyond what
//! it should.

use super::postgres::{Link, TargetError, query_error};
use serde::Serialize;

/// What a login found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The server's own words: `15.8 (Debian 15.8-0+deb12u1)`.
    pub version: String,
    /// TLS version and cipher suite.
    pub tls: Option<String>,
    /// The login's name on the server.
    pub user: String,
    /// Privileges that are wider than a gateway needs, each with why it matters.
    pub too_wide: Vec<TooWide>,
}

/// One privilege too many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TooWide {
    /// What it is.
    pub privilege: String,
    /// What it allows.
    pub allows: &'static str,
    /// The statement that takes it away.
    pub remedy: String,
}

/// Attributes of a role that no policy can hold back once a statement runs under it.
const ATTRIBUTES: [(&str, &str, &str); 5] = [
    ("SUPERUSER", "everything, past every permission of the server, with files and programs of its host", "NOSUPERUSER"),
    ("CREATEROLE", "to make roles and give itself others", "NOCREATEROLE"),
    ("CREATEDB", "to make and drop databases", "NOCREATEDB"),
    ("BYPASSRLS", "to read past row-level security", "NOBYPASSRLS"),
    ("REPLICATION", "to read every change of every database, past masking", "NOREPLICATION"),
];

/// Roles that reach outside the database.
const ROLES: [(&str, &str); 7] = [
    ("pg_read_server_files", "to read files of the server's host"),
    ("pg_write_server_files", "to write files on the server's host"),
    ("pg_execute_server_program", "to run programs on the server's host"),
    ("pg_read_all_data", "to read every table of the database"),
    ("pg_write_all_data", "to write every table of the database"),
    ("pg_signal_backend", "to end other sessions"),
    ("pg_read_all_stats", "to read the text of other sessions' statements"),
];

/// Looks at the server through an open connection.
///
/// # Errors
/// [`TargetError::Query`].
pub async fn inspect(link: &Link) -> Result<Report, TargetError> {
    let failed = |error: tokio_postgres::Error| query_error(&error);
    let client = link.client();
    let row = client
        .query_one(
            "SELECT current_setting('server_version'), r.rolname::text,
                    ARRAY[r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls, r.rolreplication]
               FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
            &[],
        )
        .await
        .map_err(failed)?;
    let user: String = row.try_get(1).map_err(failed)?;
    let attributes: Vec<bool> = row.try_get(2).map_err(failed)?;
    let quoted = format!("\"{}\"", user.replace('"', "\"\""));
    let mut too_wide = Vec::new();
    for ((name, allows, without), _) in ATTRIBUTES.iter().zip(&attributes).filter(|(_, has)| **has) {
        too_wide.push(TooWide { privilege: (*name).to_owned(), allows, remedy: format!("ALTER ROLE {quoted} {without}") });
    }
    // A superuser is a member of everything: one finding says it.
    if attributes.first() != Some(&true) {
        let names: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
        let query = "SELECT r.rolname::text FROM pg_catalog.pg_roles r
                      WHERE r.rolname = ANY($1::text[]) AND pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER')";
        for row in client.query(query, &[&names]).await.map_err(failed)? {
            let name: String = row.try_get(0).map_err(failed)?;
            let allows = ROLES.iter().find(|(role, _)| *role == name).map_or("", |(_, allows)| allows);
            too_wide.push(TooWide { remedy: format!("REVOKE {name} FROM {quoted}"), privilege: name, allows });
        }
    }
    Ok(Report { version: row.try_get(0).map_err(failed)?, tls: link.tls().map(str::to_owned), user, too_wide })
}
