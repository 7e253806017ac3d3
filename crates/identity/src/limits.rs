//! Every maximum of this crate: name, value, reason.

use std::time::Duration;

/// Longest token, in bytes (16 KiB): Entra's with many groups are a few thousand.
pub const TOKEN_MAX: usize = 16 << 10;
/// Longest text of one claim that is kept as an attribute for policies, in bytes (1 KiB). Longer ones are left out.
pub const CLAIM_VALUE_MAX: usize = 1 << 10;
/// Longest name of a claim that is kept, in bytes (128). Longer ones are left out.
pub const CLAIM_NAME_MAX: usize = 128;
/// Most scalar claims of a token (64). A token with more is refused: to leave some out could hide one that a policy forbids.
pub const CLAIMS_MAX: usize = 64;
/// Most roles of a token (512). A token with more is refused, for the same reason.
pub const ROLES_MAX: usize = 512;
/// Longest role, in bytes (256).
pub const ROLE_MAX: usize = 256;
/// Longest subject, alias or id, in bytes (512). OpenID Connect allows 255 for `sub`; Kubernetes and GitHub use longer ones.
pub const SUBJECT_MAX: usize = 512;
/// Longest clock difference with an issuer that may be configured (5 minutes).
pub const SKEW_MAX: Duration = Duration::from_secs(300);

/// Longest discovery document or key set, in bytes (1 MiB): the largest published ones are some 50 KiB.
pub const DOCUMENT_MAX: usize = 1 << 20;
/// Most keys that are taken from one key set (256).
pub const JWKS_KEYS_MAX: usize = 256;
/// Longest time for one HTTP request to an issuer, from connecting to the last byte (5 s).
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Age at which keys are refreshed in the background (1 h).
pub const KEYS_REFRESH: Duration = Duration::from_secs(3600);
/// Age of a key file at which it is read again (30 s): reading it costs nothing.
pub const KEY_FILE_REFRESH: Duration = Duration::from_secs(30);
/// Age beyond which keys that could not be refreshed are not used any more (24 h).
pub const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Shortest time between two fetches because of an unknown key id (5 minutes): anybody can invent one.
pub const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(300);
/// The same where the keys are in a file (5 s).
pub const UNKNOWN_KEY_INTERVAL_FILE: Duration = Duration::from_secs(5);
/// Shortest time between two attempts to reach an issuer that did not answer (15 s).
pub const FAILED_FETCH_INTERVAL: Duration = Duration::from_secs(15);

/// Most machine keys of one store, revoked ones included (10,000).
pub const MACHINE_KEYS_MAX: usize = 10_000;
/// Most entries of the kill list (10,000).
pub const REVOCATIONS_MAX: usize = 10_000;
/// Largest file of machine keys or revocations that is read, in bytes (32 MiB).
pub const STORE_FILE_MAX: u64 = 32 << 20;
/// Longest description of a machine key, in bytes (1 KiB).
pub const DESCRIPTION_MAX: usize = 1 << 10;

/// Longest SASL message of a client, in bytes (4 KiB): with a proof and a 64-byte binding some 300 are usual.
pub const SASL_MESSAGE_MAX: usize = 4 << 10;
/// Longest nonce of a peer, in bytes (256): usual are 24 to 48.
pub const NONCE_MAX: usize = 256;
/// Longest salt that an upstream may send, decoded, in bytes (1 KiB): usual are 16.
pub const SALT_MAX: usize = 1 << 10;
/// Fewest SCRAM iterations that are accepted of an upstream (4,096, RFC 7677 §4): fewer would make it cheap to
/// guess the password from the answer.
pub const ITERATIONS_MIN: u32 = 4_096;
/// Most SCRAM iterations that are accepted of an upstream (1,000,000, some 0.2 s): RUSTSEC-2026-0179.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Most salted passwords that are remembered (1,024).
pub const SALTED_MAX: usize = 1_024;
/// Longest password for an upstream, in bytes (16 KiB): a token can be one.
pub const PASSWORD_MAX: usize = 16 << 10;
