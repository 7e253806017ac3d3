//! What a session is for.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One registered target as a session sees it: `[[connection]]`, and the database chosen in it.
/// Its credential is not here: the driver alone holds that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The connection's name.
    pub connection: String,
    /// `HOST:PORT`, as configured.
    pub address: String,
    /// Database (or what the protocol has in its place).
    pub database: String,
    /// The login that the gateway uses upstream.
    pub upstream_user: String,
    /// Who answers for the target.
    pub owner: Option<String>,
    /// Free attributes for policies.
    pub tags: BTreeMap<String, String>,
}
