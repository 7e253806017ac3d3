//! SET, RESET, `set_config` and ALTER … SET: which settings a session may change without being asked.
//!
//! A setting that is not in [`HARMLESS`] is the action `set` on the connection: those that make statements mean
//! something else, get around row-level security or triggers, change what the server logs, load code, and those
//! of applications and extensions (`app.user_id`), which row-level security often reads.

use super::state::Effect;
use super::walk::{Walker, connection, shown, string};
use pg_query::NodeEnum;
use pg_query::protobuf::{FuncCall, Node, RangeVar, VariableSetKind, VariableSetStmt, a_const};

/// Settings that change how a session's own results look, how long it waits, or how its own statements are
/// planned: sorted.
const HARMLESS: [&str; 118] = [
    "application_name",
    "array_nulls",
    "backend_flush_after",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "client_connection_check_interval",
    "client_encoding",
    "client_min_messages",
    "commit_delay",
    "commit_siblings",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "debug_parallel_query",
    "default_statistics_target",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "effective_io_concurrency",
    "enable_async_append",
    "enable_bitmapscan",
    "enable_distinct_reordering",
    "enable_gathermerge",
    "enable_group_by_reordering",
    "enable_hashagg",
    "enable_hashjoin",
    "enable_incremental_sort",
    "enable_indexonlyscan",
    "enable_indexscan",
    "enable_material",
    "enable_memoize",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_parallel_append",
    "enable_parallel_hash",
    "enable_partition_pruning",
    "enable_partitionwise_aggregate",
    "enable_partitionwise_join",
    "enable_presorted_aggregate",
    "enable_self_join_elimination",
    "enable_seqscan",
    "enable_sort",
    "enable_tidscan",
    "escape_string_warning",
    "extra_float_digits",
    "force_parallel_mode",
    "from_collapse_limit",
    "geqo",
    "geqo_effort",
    "geqo_generations",
    "geqo_pool_size",
    "geqo_seed",
    "geqo_selection_bias",
    "geqo_threshold",
    "gin_fuzzy_search_limit",
    "gin_pending_list_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "io_combine_limit",
    "jit",
    "jit_above_cost",
    "jit_inline_above_cost",
    "jit_optimize_above_cost",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "min_parallel_index_scan_size",
    "min_parallel_table_scan_size",
    "parallel_leader_participation",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "recursive_worktable_factor",
    "restrict_nonsystem_relation_kind",
    "search_path",
    "seed",
    "seq_page_cost",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronize_seqscans",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "temp_buffers",
    "temp_tablespaces",
    "timezone",
    "timezone_abbreviations",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_timeout",
    "vacuum_cost_delay",
    "vacuum_cost_limit",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// Encodings in which no byte of a quote can be a part of another character.
pub(super) fn is_plain_encoding(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let plain = ["utf8", "unicode", "sqlascii", "koi8", "koi8r", "koi8u", "alt", "win", "tcvn", "tcvn5712", "abc", "vscii"];
    let families = ["latin", "iso8859", "win125", "windows125", "win866", "windows866", "win874", "windows874", "euc"];
    plain.contains(&name.as_str()) || families.iter().any(|family| name.starts_with(family))
}

/// What a setting becomes.
enum Value<'v> {
    /// What it was when the session began.
    Initial,
    /// This text.
    Text(&'v str),
    /// A list, or something that is only known when it runs.
    Other,
}

impl Walker<'_> {
    pub(super) fn variable_set(&mut self, statement: &VariableSetStmt) {
        let VariableSetStmt { kind, name, args, jumble_args: _, is_local: _, location: _ } = statement;
        match VariableSetKind::try_from(*kind) {
            Ok(VariableSetKind::VarSetValue) => {
                let value = match args.as_slice() {
                    [one] => constant(one).map_or(Value::Other, Value::Text),
                    _ => Value::Other,
                };
                self.setting(name, &value);
            }
            Ok(VariableSetKind::VarSetDefault | VariableSetKind::VarReset) => self.setting(name, &Value::Initial),
            // To what it is already, in the function that is being made.
            Ok(VariableSetKind::VarSetCurrent) => {}
            // The session's own settings go back to what they were when it began.
            Ok(VariableSetKind::VarResetAll) => {}
            // SET TRANSACTION and SET SESSION CHARACTERISTICS: isolation, read only, deferrable, snapshot.
            Ok(VariableSetKind::VarSetMulti) => {
                if !matches!(name.as_str(), "TRANSACTION" | "SESSION CHARACTERISTICS" | "TRANSACTION SNAPSHOT") {
                    self.unexpected("SET");
                }
            }
            Ok(VariableSetKind::Undefined) | Err(_) => self.unexpected("SET"),
        }
    }

    fn setting(&mut self, name: &str, value: &Value<'_>) {
        self.found.literals_matter = true;
        let name = name.to_ascii_lowercase();
        match (name.as_str(), value) {
            // It goes back to what the session began with; if it was ever changed, it is uncertain already.
            (_, Value::Initial) => {}
            ("role" | "session_authorization", _) => {
                self.act("set_role", connection(), None);
                self.effect(Effect::UncertainPath);
            }
            ("search_path", _) => self.effect(Effect::UncertainPath),
            ("client_encoding", Value::Text(encoding)) if is_plain_encoding(encoding) => {}
            ("client_encoding", Value::Text(encoding)) => {
                let encoding = shown(encoding);
                self.unknown(format!("client_encoding {encoding} is not supported: its characters can hide quotes"));
            }
            ("client_encoding", _) => self.unknown("client_encoding is set to what is not a constant"),
            ("standard_conforming_strings", Value::Text(on)) if is_on(on) => {}
            ("standard_conforming_strings", _) => {
                self.unknown("standard_conforming_strings must stay on: statements could not be read");
            }
            (other, _) if HARMLESS.binary_search(&other).is_ok() => {}
            _ => self.act("set", connection(), None),
        }
    }

    /// `set_config(name, value, is_local)`.
    pub(super) fn set_config(&mut self, call: &FuncCall) {
        self.found.literals_matter = true;
        let name = call.args.first().and_then(constant);
        match name {
            Some(name) => {
                let value = call.args.get(1).and_then(constant).map_or(Value::Other, Value::Text);
                self.setting(name, &value);
            }
            None => {
                self.effect(Effect::UncertainPath);
                self.unknown("set_config with a name that is not a constant");
            }
        }
    }

    /// `UPDATE pg_settings` calls `set_config` for each row.
    pub(super) fn settings_row(&mut self, relation: &RangeVar) {
        if relation.relname == "pg_settings" {
            self.effect(Effect::UncertainPath);
            self.unknown("UPDATE pg_settings changes settings whose names are not constants: use SET");
        }
    }
}

/// The text of a constant; numbers and words as they are written.
fn constant(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            a_const::Val::Sval(text) => Some(&text.sval),
            a_const::Val::Fval(number) => Some(&number.fval),
            a_const::Val::Boolval(value) => Some(if value.boolval { "true" } else { "false" }),
            a_const::Val::Ival(value) => Some(if value.ival == 1 { "1" } else { "" }),
            a_const::Val::Bsval(_) => None,
        },
        // 'x'::text. A cast to another type may change the text.
        NodeEnum::TypeCast(cast) => {
            let names = &cast.type_name.as_ref()?.names;
            let plain = names.last().and_then(string) == Some("text") && names.len() <= 2;
            if plain { constant(cast.arg.as_deref()?) } else { None }
        }
        NodeEnum::String(text) => Some(&text.sval),
        _ => None,
    }
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1")
}

#[cfg(test)]
mod tests {
    use super::{HARMLESS, is_plain_encoding};

    #[test]
    fn names_are_sorted() {
        assert!(HARMLESS.is_sorted());
    }

    #[test]
    fn encodings_that_hide_quotes_are_not_plain() {
        for name in ["UTF8", "utf-8", "'unicode'", "SQL_ASCII", "LATIN1", "latin-9", "ISO_8859_5", "WIN1252", "EUC_JP", "KOI8R"] {
            assert!(is_plain_encoding(name), "{name}");
        }
        for name in ["SJIS", "shift_jis", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "", "win949", "windows932", "x"] {
            assert!(!is_plain_encoding(name), "{name}");
        }
    }
}
