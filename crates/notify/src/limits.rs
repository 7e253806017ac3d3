//! Every maximum of this crate: name, value, reason.

use std::time::Duration;

/// Longest name, group, connection or digest in a notice, in characters (256).
pub const FIELD_MAX: usize = 256;
/// Longest summary of an action, or reason, in a notice, in characters (1,000).
pub const WORDS_MAX: usize = 1_000;
/// Most groups of a notice (20); policies that ask for more of them are a mistake.
pub const GROUPS_MAX: usize = 20;
/// Longest link, in bytes (2,000): Slack takes 3,000, old mail programs break longer ones.
pub const LINK_MAX: usize = 2_000;
/// Longest text of a statement in a notice, in characters (4,000). The page has all of it; Standard Webhooks advises messages
/// below 20 KB.
pub const STATEMENT_MAX: usize = 4_000;

/// Most channels (50).
pub const CHANNELS_MAX: usize = 50;
/// Longest name of a channel, in bytes (64): it is the name of a folder.
pub const CHANNEL_NAME_MAX: usize = 64;
/// Notices of one channel that wait to be delivered, unless [`Delivery`](crate::Delivery) says otherwise (1,000).
pub const PENDING_MAX: usize = 1_000;
/// Largest file of a spool that is read, in bytes (256 KiB): a notice at its limits is less than 64 KiB.
pub const SPOOL_FILE_MAX: u64 = 256 << 10;
/// Size of the file of dead letters beyond which the oldest are dropped, unless it is opened with another (16 MiB).
pub const DEAD_FILE_MAX: u64 = 16 << 20;

/// Time for one delivery, from resolving the name to the status of the answer (15 s).
pub const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for one address to accept a connection (5 s), so that a second address gets its turn.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried (8).
pub const ADDRESSES_MAX: usize = 8;
/// First wait before a notice is sent again (2 s) …
pub const RETRY_FIRST: Duration = Duration::from_secs(2);
/// … doubled each time up to this (10 min).
pub const RETRY_MAX: Duration = Duration::from_secs(600);
/// Longest `Retry-After` that is obeyed (1 h): a receiver cannot silence a channel for a year.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Attempts before a notice is a dead letter (20): some two hours.
pub const ATTEMPTS_MAX: u32 = 20;
/// Age at which a notice is a dead letter (24 h), however often it was tried.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Time that closing waits for a channel (5 s): what it was sending is sent again after the next start.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read, where one is read at all, in bytes (64 KiB).
pub const ANSWER_MAX: usize = 64 << 10;
/// Bytes that an SMTP server may send in one delivery (256 KiB), its TLS handshake included.
pub const SMTP_READ_MAX: usize = 256 << 10;
/// Lines that an SMTP server may say in one delivery (500): lettre reads a reply from its start again for each of its lines, so
/// that a long one of many lines would cost seconds of computing.
pub const SMTP_LINES_MAX: usize = 500;
/// Longest reply of an SMTP server before TLS, in bytes (8 KiB); RFC 5321 §4.5.3.1.5 has 512 for each line.
pub const SMTP_REPLY_MAX: usize = 8 << 10;
/// Most recipients of an e-mail channel (50); RFC 5321 §4.5.3.1.8 promises 100.
pub const RECIPIENTS_MAX: usize = 50;

/// How far the timestamp of a signed message may be from now (5 min): Slack's and Standard Webhooks' own advice.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// Signed messages that are remembered against replay (10,000). More within the tolerance are refused.
pub const REPLAYS_MAX: usize = 10_000;
/// Most secrets of a webhook at once (5): rotation needs two.
pub const SECRETS_MAX: usize = 5;
/// Signatures of one message that are tried (10).
pub const SIGNATURES_MAX: usize = 10;
/// Longest body whose signature is checked, in bytes (256 KiB): an interaction of Slack's repeats the message, 50 KiB at most.
pub const INBOUND_MAX: usize = 256 << 10;

/// Slack: the text of a section (3,000 characters), <https://docs.slack.dev/reference/block-kit/blocks/section-block>.
pub const SLACK_TEXT_MAX: usize = 3_000;
/// Slack: the text of one field of a section (2,000 characters).
pub const SLACK_FIELD_MAX: usize = 2_000;
/// Slack: fields of a section (10).
pub const SLACK_FIELDS_MAX: usize = 10;
/// Slack: the text of a header (150 characters).
pub const SLACK_HEADER_MAX: usize = 150;
/// Slack: the value of a button (2,000 characters).
pub const SLACK_VALUE_MAX: usize = 2_000;
/// Teams: a message (28 KB), which its workflows refuse beyond.
pub const TEAMS_MAX: usize = 28_000;
