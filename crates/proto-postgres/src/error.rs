//! Errors by blame. "Not enough bytes yet" is not one: it is `Ok(None)`.

/// A message whose bytes do not follow the protocol's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The length field is smaller than itself, or too large for the protocol.
    #[error("invalid message length")]
    Length,
    /// The message ends inside a field.
    #[error("insufficient data left in message")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("invalid message format")]
    Trailing,
    /// A string has no terminator.
    #[error("invalid string in message")]
    MissingNul,
    /// A count is negative, or a length is below −1.
    #[error("invalid count or length in message")]
    Negative,
    /// A field has a value that the protocol does not define.
    #[error("invalid value in message")]
    Value,
    /// A Bind has neither none, nor one, nor as many format codes as parameters.
    #[error("bind message has a wrong number of parameter formats")]
    FormatCount,
    /// The message type is not one that this peer sends.
    #[error("invalid message type")]
    Type,
}

/// Why a session cannot go on, by blame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// The client sent a message that cannot be read.
    #[error("client: {0}")]
    ClientMalformed(Malformed),
    /// The client sent something out of turn.
    #[error("client: message type {got:#04x} in state {state}")]
    ClientViolation {
        /// Where the session was.
        state: &'static str,
        /// The message type.
        got: u8,
    },
    /// The upstream sent a message that cannot be read.
    #[error("upstream: {0}")]
    UpstreamMalformed(Malformed),
    /// The upstream sent something out of turn.
    #[error("upstream: message type {got:#04x} in state {state}")]
    UpstreamViolation {
        /// Where the session was.
        state: &'static str,
        /// The message type.
        got: u8,
    },
    /// The upstream sent a message that must be held whole and is too long for it.
    #[error("upstream: message type {got:#04x} of {length} bytes is longer than {limit}")]
    UpstreamLimit {
        /// The message type.
        got: u8,
        /// Its length.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
}
