//! Every maximum of this protocol. Those that all protocols share are in
//! [`proxy_core::limits::SessionLimits`].

/// Longest start-up packet without its length field, in bytes: the server's own
/// `MAX_STARTUP_PACKET_LENGTH` (src/include/libpq/pqcomm.h).
pub const STARTUP_MAX: usize = 10_000;

/// Longest password, token or SASL message from the client, in bytes. Entra's tokens with many groups
/// reach 8 KiB; nothing more is buffered of a caller that is not known.
pub const PASSWORD_MAX: usize = 16 << 10;

/// Longest message of the upstream while the gateway logs in, in bytes: challenges, settings, notices.
pub const UPSTREAM_LOGIN_MESSAGE_MAX: usize = 64 << 10;

/// Bytes of settings and notices that the upstream may send before it is ready. They are kept until then.
pub const UPSTREAM_GREETING_MAX: usize = 256 << 10;

/// Longest secret of a cancel key, in bytes (protocol 3.2 allows 256; the server makes 32).
pub const CANCEL_SECRET_MAX: usize = 256;

/// Longest message that steers (errors, notices that are rebuilt, row descriptions, tags) and must be held
/// whole, in bytes: 1,664 columns with names of 63 bytes are 140 KB; an error may quote a statement.
pub const CONTROL_MESSAGE_MAX: usize = 8 << 20;

/// Steps (messages that the server answers) that may be outstanding for each request of
/// `pipeline_max`: bounds pipelines of messages that are no requests (Bind, Describe, Close).
pub const STEPS_PER_REQUEST: usize = 4;

/// Client bytes that may wait for verdicts, beyond the message that reached the limit: 4 MiB.
pub const QUEUED_BYTES_MAX: usize = 4 << 20;

/// Bytes of all statement texts that the session remembers by name (64 MiB).
pub const PREPARED_BYTES_MAX: usize = 64 << 20;

/// Longest completion tag that is recorded, in bytes; the tags of a batch are joined by `;`.
pub const TAG_MAX: usize = 256;

/// Bytes of a refused result that are swallowed before the upstream is asked to cancel it (1 MiB): a short
/// one ends sooner by itself, and a late cancel could hit the next statement.
pub const REFUSED_BEFORE_CANCEL: u64 = 1 << 20;

/// Frames up to this size are copied next to rewritten rows instead of being sent by themselves.
pub const COPY_ALONG_MAX: usize = 4 << 10;

/// Largest first growth of a read buffer for a message that must be held whole, in bytes. Growth doubles
/// with what has arrived: a length field alone allocates no more than this.
pub const BUFFER_STEP: usize = 16 << 10;
