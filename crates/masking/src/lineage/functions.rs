//! Which functions can show, keep or send what they are not given, or are given.

use std::collections::HashSet;
use std::sync::LazyLock;

/// What a called function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callee {
    /// Its result depends on its arguments alone, as far as classified columns go.
    Safe,
    /// It could return (or read) anything.
    Unsafe,
}

/// The functions of `pg_catalog`, by name: PostgreSQL 15's, and those that later versions added.
static BUILT_IN: LazyLock<HashSet<&'static str>> = LazyLock::new(|| include_str!("builtin_functions.txt").lines().collect());

/// Whether `pg_catalog` has a function of that name.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(name)
}

/// Built-in functions, and functions of well-known extensions, that read tables, files or the log of changes by
/// means of their own.
const READERS: [&str; 71] = [
    // Run a query, or read a table, that an argument names.
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "crosstabn",
    "connectby",
    "xpath_table",
    // Files and large objects.
    "pg_read_file",
    "pg_read_binary_file",
    "pg_read_file_old",
    "lo_import",
    "lo_export",
    "pg_file_read",
    "pg_stat_file",
    // The log of changes.
    "pg_logical_slot_get_changes",
    "pg_logical_slot_peek_changes",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_peek_binary_changes",
    "pg_get_wal_record_info",
    "pg_get_wal_records_info",
    "pg_get_wal_records_info_till_end_of_wal",
    "pg_get_wal_block_info",
    // Pages as they are.
    "get_raw_page",
    "heap_page_items",
    "heap_page_item_attrs",
    "tuple_data_split",
    "bt_page_items",
    "bt_multi_page_stats",
    "brin_page_items",
    "gin_leafpage_items",
    "gist_page_items",
    "gist_page_items_bytea",
    "hash_page_items",
    "page_header",
    "fsm_page_contents",
    "brin_revmap_data",
    "gin_page_opaque_info",
    "gist_page_opaque_info",
    "hash_page_stats",
    "bt_page_stats",
    "bt_metap",
    // Samples of columns.
    "pg_mcv_list_items",
    "pg_stats_ext_mcvlist_items",
    // Other servers, this one included.
    "dblink",
    "dblink_exec",
    "dblink_open",
    "dblink_fetch",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_send_query",
    "dblink_get_result",
    "dblink_build_sql_insert",
    "dblink_build_sql_update",
    "dblink_build_sql_delete",
    "postgres_fdw_handler",
    "file_fdw_handler",
    // Statements that run later, elsewhere.
    "schedule",
    "schedule_in_database",
];

/// Built-in functions that keep, or send, what they are given: a later statement could read it.
const KEEPERS: [&str; 31] = [
    "set_config",
    "pg_notify",
    "pg_logical_emit_message",
    "setval",
    "lo_from_bytea",
    "lo_put",
    "lowrite",
    "lo_create",
    "lo_creat",
    "lo_open",
    "lo_truncate",
    "lo_truncate64",
    "pg_file_write",
    "pg_create_restore_point",
    "pg_replication_origin_create",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_export_snapshot",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "pg_log_backend_memory_contexts",
    "pg_set_relation_stats",
    "pg_restore_relation_stats",
    "pg_set_attribute_stats",
    "pg_restore_attribute_stats",
];

/// Whether the function of that name reads by means of its own.
pub(crate) fn reads_by_itself(name: &str) -> bool {
    READERS.contains(&name)
}

/// Whether the function of that name keeps or sends its arguments.
pub(crate) fn keeps(name: &str) -> bool {
    KEEPERS.contains(&name)
}

/// Relations of `pg_catalog` that hold samples of columns.
pub(crate) const STATISTICS: [&str; 5] =
    ["pg_statistic", "pg_stats", "pg_statistic_ext_data", "pg_stats_ext", "pg_stats_ext_exprs"];

#[cfg(test)]
mod tests {
    use super::{BUILT_IN, is_built_in};

    #[test]
    fn knows_what_is_built_in() {
        assert!(BUILT_IN.len() > 2_500);
        for name in ["lower", "count", "now", "jsonb_path_query", "uuidv7", "pg_sleep"] {
            assert!(is_built_in(name), "{name}");
        }
        assert!(!is_built_in("crosstab"));
    }
}
