//! The functions that clients call by number: those of large objects. libpq asks the server for their
//! numbers, which are fixed (`pg_proc.dat`).

/// The name, in `pg_catalog`, of the large-object function with this number.
pub(crate) fn name(oid: u32) -> Option<&'static str> {
    Some(match oid {
        715 => "lo_create",
        764 => "lo_import",
        765 => "lo_export",
        767 => "lo_import",
        952 => "lo_open",
        953 => "lo_close",
        954 => "loread",
        955 => "lowrite",
        956 => "lo_lseek",
        957 => "lo_creat",
        958 => "lo_tell",
        964 => "lo_unlink",
        1004 => "lo_truncate",
        3170 => "lo_lseek64",
        3171 => "lo_tell64",
        3172 => "lo_truncate64",
        3457 => "lo_from_bytea",
        3458 => "lo_get",
        3459 => "lo_get",
        3460 => "lo_put",
        _ => return None,
    })
}
