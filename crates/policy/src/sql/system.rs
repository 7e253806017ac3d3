//! Relations of the server's own that show more than names: rows of other tables, other sessions' statements,
//! secrets, files. A statement that reads one has it in the attribute `sensitive_catalog`.

/// Those of `pg_catalog` (and of extensions), sorted.
const SENSITIVE: [&str; 19] = [
    "pg_authid",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_largeobject",
    "pg_prepared_xacts",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_replication",
    "pg_stat_statements",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_subscription",
    "pg_user_mapping",
    "pg_user_mappings",
    "user_mapping_options",
];

/// Whether reading the relation shows what its name does not say.
pub(super) fn sensitive(schema: &str, name: &str) -> bool {
    let shared = matches!(schema, "pg_catalog" | "information_schema" | "pg_toast");
    (shared || name == "pg_stat_statements") && (schema == "pg_toast" || SENSITIVE.binary_search(&name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::{SENSITIVE, sensitive};

    #[test]
    fn names_are_sorted_and_found() {
        assert!(SENSITIVE.is_sorted());
        assert!(sensitive("pg_catalog", "pg_statistic") && sensitive("pg_toast", "pg_toast_16384"));
        assert!(!sensitive("pg_catalog", "pg_class") && !sensitive("public", "pg_statistic"));
    }
}
