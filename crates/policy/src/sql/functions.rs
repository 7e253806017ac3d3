//! Which functions do more than compute: by name, whatever their schema.
//!
//! A function of `pg_catalog` needs no permission of its own, unless it is here. What is here runs a text as SQL,
//! reads or writes what no table of the statement names, or acts on the server or on other sessions; then the
//! statement is `unknown`, with the reason. Extensions' functions in C are trusted in the same way, so those of
//! well-known extensions that run SQL are here as well.
//!
//! A text whose words may name any of these is keyed by its exact text ([`is_watched`]).

/// Whether `pg_catalog` has a function of that name, or the grammar makes one.
pub(super) fn is_built_in(name: &str) -> bool {
    masking::is_built_in(name) || SYNTAX.contains(&name)
}

/// Functions that the grammar itself calls in `pg_catalog`, by names that are not in every version's list.
const SYNTAX: [&str; 8] =
    ["timezone", "xmlexists", "like_escape", "similar_to_escape", "is_normalized", "normalize", "extract", "system_user"];

/// What a function does that its arguments do not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    /// It runs a text as SQL.
    RunsText,
    /// It reads or writes large objects.
    LargeObjects,
    /// It reads or writes the server's files, or shows its configuration.
    Files,
    /// It acts on the server as a whole, or on other sessions.
    Server,
    /// It reads the log of changes, or works a replication slot.
    Replication,
    /// It reads pages of tables as they are on disk.
    Pages,
}

impl Hidden {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::RunsText => "it runs a text as SQL",
            Self::LargeObjects => "it works on large objects, which have no policies of their own",
            Self::Files => "it works on the server's files",
            Self::Server => "it acts on the server or on other sessions",
            Self::Replication => "it works on replication",
            Self::Pages => "it reads tables' pages as they are on disk",
        }
    }
}

/// By exact name, sorted.
const NAMES: [(&str, Hidden); 87] = {
    use Hidden::{Files, LargeObjects, Pages, Replication, RunsText, Server};
    [
        ("brin_page_items", Pages),
        ("brin_revmap_data", Pages),
        ("bt_multi_page_stats", Pages),
        ("bt_page_items", Pages),
        ("bt_page_stats", Pages),
        ("connectby", RunsText),
        ("crosstab", RunsText),
        ("crosstab2", RunsText),
        ("crosstab3", RunsText),
        ("crosstab4", RunsText),
        ("crosstabn", RunsText),
        ("cursor_to_xml", RunsText),
        ("cursor_to_xmlschema", RunsText),
        ("database_to_xml", RunsText),
        ("database_to_xml_and_xmlschema", RunsText),
        ("database_to_xmlschema", RunsText),
        ("fsm_page_contents", Pages),
        ("get_raw_page", Pages),
        ("gin_leafpage_items", Pages),
        ("gin_metapage_info", Pages),
        ("gin_page_opaque_info", Pages),
        ("gist_page_items", Pages),
        ("gist_page_items_bytea", Pages),
        ("gist_page_opaque_info", Pages),
        ("hash_page_items", Pages),
        ("hash_page_stats", Pages),
        ("heap_page_item_attrs", Pages),
        ("heap_page_items", Pages),
        ("loread", LargeObjects),
        ("lowrite", LargeObjects),
        ("page_header", Pages),
        ("pg_available_wal_summaries", Replication),
        ("pg_backup_start", Server),
        ("pg_backup_stop", Server),
        ("pg_cancel_backend", Server),
        ("pg_create_restore_point", Server),
        ("pg_current_logfile", Files),
        ("pg_drop_replication_slot", Replication),
        ("pg_extension_config_dump", Server),
        ("pg_get_wal_block_info", Replication),
        ("pg_get_wal_record_info", Replication),
        ("pg_get_wal_records_info", Replication),
        ("pg_get_wal_records_info_till_end_of_wal", Replication),
        ("pg_get_wal_stats", Replication),
        ("pg_hba_file_rules", Files),
        ("pg_ident_file_mappings", Files),
        ("pg_import_system_collations", Server),
        ("pg_log_backend_memory_contexts", Server),
        ("pg_log_standby_snapshot", Server),
        ("pg_logdir_ls", Files),
        ("pg_logfile_rotate", Server),
        ("pg_nextoid", Server),
        ("pg_prewarm", Server),
        ("pg_promote", Server),
        ("pg_reload_conf", Server),
        ("pg_rotate_logfile", Server),
        ("pg_rotate_logfile_old", Server),
        ("pg_rotate_logfile_v2", Server),
        ("pg_show_all_file_settings", Files),
        ("pg_start_backup", Server),
        ("pg_stat_file", Files),
        ("pg_stat_force_next_flush", Server),
        ("pg_stat_statements_reset", Server),
        ("pg_stop_backup", Server),
        ("pg_stop_making_pinned_objects", Server),
        ("pg_switch_wal", Server),
        ("pg_switch_xlog", Server),
        ("pg_sync_replication_slots", Replication),
        ("pg_terminate_backend", Server),
        ("pgrowlocks", Pages),
        ("query_to_xml", RunsText),
        ("query_to_xml_and_xmlschema", RunsText),
        ("query_to_xmlschema", RunsText),
        ("run_command_on_all_nodes", RunsText),
        ("run_command_on_placements", RunsText),
        ("run_command_on_shards", RunsText),
        ("run_command_on_workers", RunsText),
        ("schema_to_xml", RunsText),
        ("schema_to_xml_and_xmlschema", RunsText),
        ("schema_to_xmlschema", RunsText),
        ("table_to_xml", RunsText),
        ("table_to_xml_and_xmlschema", RunsText),
        ("table_to_xmlschema", RunsText),
        ("ts_rewrite", RunsText),
        ("ts_stat", RunsText),
        ("tuple_data_split", Pages),
        ("xpath_table", RunsText),
    ]
};

/// By the beginning of the name.
const PREFIXES: [(&str, Hidden); 18] = {
    use Hidden::{Files, LargeObjects, Replication, RunsText, Server};
    [
        ("binary_upgrade_", Server),
        ("dblink", RunsText),
        ("lo_", LargeObjects),
        ("pg_background_", RunsText),
        ("pg_clear_", Server),
        ("pg_copy_", Replication),
        ("pg_create_logical_", Replication),
        ("pg_create_physical_", Replication),
        ("pg_execute_", Files),
        ("pg_file_", Files),
        ("pg_logical_", Replication),
        ("pg_ls_", Files),
        ("pg_read_", Files),
        ("pg_replication_", Replication),
        ("pg_restore_", Server),
        ("pg_stat_reset", Server),
        ("pg_wal_replay_", Server),
        ("pglogical_", Replication),
    ]
};

/// Schemas of extensions whose functions run what they are given, now or later.
const SCHEMAS: [(&str, Hidden); 4] =
    [("cron", Hidden::RunsText), ("dblink", Hidden::RunsText), ("pglogical", Hidden::Replication), ("pgq", Hidden::RunsText)];

/// What the function `name` does that its arguments do not show; `None`: nothing, if it is built in.
pub(super) fn hidden(schema: Option<&str>, name: &str) -> Option<Hidden> {
    if let Ok(at) = NAMES.binary_search_by_key(&name, |(known, _)| *known) {
        return NAMES.get(at).map(|(_, hidden)| *hidden);
    }
    let by_prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    let by_schema = || SCHEMAS.iter().find(|(known, _)| Some(*known) == schema);
    by_prefix.or_else(by_schema).map(|(_, hidden)| *hidden)
}

/// Types whose input function looks an object up by name.
const REG_TYPES: [&str; 12] = [
    "regclass",
    "regcollation",
    "regconfig",
    "regdatabase",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Marks the hashes of all words that are watched by their exact name.
const WATCHED: [bool; 8192] = {
    let mut marks = [false; 8192];
    let mut at = 0;
    while at < NAMES.len() {
        marks[hash(NAMES[at].0.as_bytes())] = true;
        at += 1;
    }
    let mut at = 0;
    while at < REG_TYPES.len() {
        marks[hash(REG_TYPES[at].as_bytes())] = true;
        at += 1;
    }
    marks[hash(b"set_config")] = true;
    marks
};

/// Of a word of two bytes or more.
const fn hash(word: &[u8]) -> usize {
    let ends = word[0] as u32 | (word[1] as u32) << 8 | (word[word.len() - 1] as u32) << 16;
    let middle = word[word.len() / 2] as u32;
    ((ends ^ (word.len() as u32) << 24 ^ middle << 12).wrapping_mul(0x9e37_79b1) >> 19) as usize
}

/// Whether this word (folded, or quoted without its quotes) could name something that depends on a literal:
/// every name of this module, the reg types, `set_config`, and all that begins with `pg_`.
#[inline]
pub(super) fn is_watched(word: &[u8]) -> bool {
    match word {
        [b'p', b'g', b'_', ..] | [b'l', b'o', b'_', ..] | [b'p', b'g', b'l', b'o', ..] => return true,
        [b'd', b'b', b'l', b'i', ..] | [b'b', b'i', b'n', b'a', b'r', b'y', b'_', ..] => return true,
        [] | [_] => return false,
        _ => {}
    }
    WATCHED[hash(word)] && is_watched_name(word)
}

fn is_watched_name(word: &[u8]) -> bool {
    NAMES.binary_search_by_key(&word, |(known, _)| known.as_bytes()).is_ok()
        || REG_TYPES.iter().any(|name| name.as_bytes() == word)
        || word == b"set_config"
}

#[cfg(test)]
mod tests {
    use super::{NAMES, PREFIXES, REG_TYPES, hidden, is_built_in, is_watched};

    #[test]
    fn names_are_sorted() {
        assert!(NAMES.is_sorted_by_key(|(name, _)| *name));
        assert!(PREFIXES.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn every_name_is_watched() {
        let exact = NAMES.iter().map(|(name, _)| *name).chain(REG_TYPES).chain(["set_config", "pg_notify", "lo_put"]);
        for name in exact {
            assert!(is_watched(name.as_bytes()), "{name}");
        }
        for (prefix, _) in PREFIXES {
            assert!(is_watched(format!("{prefix}x").as_bytes()), "{prefix}");
            assert!(hidden(None, &format!("{prefix}x")).is_some());
        }
        for word in ["select", "id", "x", "region", "location", "pgbench_accounts", "binary", "dba", "regclas", ""] {
            assert!(!is_watched(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn what_computes_is_not_hidden() {
        for name in ["lower", "count", "pg_sleep", "pg_get_viewdef", "pg_advisory_lock", "nextval", "has_table_privilege"] {
            assert_eq!(hidden(Some("pg_catalog"), name), None, "{name}");
            assert!(is_built_in(name), "{name}");
        }
    }
}
