//! Wire newtypes and named values. Unknown values survive a round trip.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::fmt;

macro_rules! tags {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $constant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub u8);

        impl $name {
            $($(#[$doc])* pub const $constant: Self = Self($value);)*

            /// The specification's name; `None`: not a message of this side.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$constant => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({:#04x})", stringify!($name), self.0),
                }
            }
        }
    };
}

tags! {
    /// Type of a message that the client sends. `p` is one of four, by context.
    ClientTag {
        /// Bind.
        BIND = b'B', "Bind";
        /// Close.
        CLOSE = b'C', "Close";
        /// CopyData.
        COPY_DATA = b'd', "CopyData";
        /// CopyDone.
        COPY_DONE = b'c', "CopyDone";
        /// CopyFail.
        COPY_FAIL = b'f', "CopyFail";
        /// Describe.
        DESCRIBE = b'D', "Describe";
        /// Execute.
        EXECUTE = b'E', "Execute";
        /// Flush.
        FLUSH = b'H', "Flush";
        /// FunctionCall.
        FUNCTION_CALL = b'F', "FunctionCall";
        /// Parse.
        PARSE = b'P', "Parse";
        /// PasswordMessage, SASLInitialResponse, SASLResponse or GSSResponse.
        PASSWORD = b'p', "Password";
        /// Query.
        QUERY = b'Q', "Query";
        /// Sync.
        SYNC = b'S', "Sync";
        /// Terminate.
        TERMINATE = b'X', "Terminate";
    }
}

tags! {
    /// Type of a message that the upstream sends.
    UpstreamTag {
        /// Authentication….
        AUTHENTICATION = b'R', "Authentication";
        /// BackendKeyData.
        BACKEND_KEY_DATA = b'K', "BackendKeyData";
        /// BindComplete.
        BIND_COMPLETE = b'2', "BindComplete";
        /// CloseComplete.
        CLOSE_COMPLETE = b'3', "CloseComplete";
        /// CommandComplete.
        COMMAND_COMPLETE = b'C', "CommandComplete";
        /// CopyBothResponse.
        COPY_BOTH_RESPONSE = b'W', "CopyBothResponse";
        /// CopyData.
        COPY_DATA = b'd', "CopyData";
        /// CopyDone.
        COPY_DONE = b'c', "CopyDone";
        /// CopyInResponse.
        COPY_IN_RESPONSE = b'G', "CopyInResponse";
        /// CopyOutResponse.
        COPY_OUT_RESPONSE = b'H', "CopyOutResponse";
        /// DataRow.
        DATA_ROW = b'D', "DataRow";
        /// EmptyQueryResponse.
        EMPTY_QUERY_RESPONSE = b'I', "EmptyQueryResponse";
        /// ErrorResponse.
        ERROR_RESPONSE = b'E', "ErrorResponse";
        /// FunctionCallResponse.
        FUNCTION_CALL_RESPONSE = b'V', "FunctionCallResponse";
        /// NegotiateProtocolVersion.
        NEGOTIATE_PROTOCOL_VERSION = b'v', "NegotiateProtocolVersion";
        /// NoData.
        NO_DATA = b'n', "NoData";
        /// NoticeResponse.
        NOTICE_RESPONSE = b'N', "NoticeResponse";
        /// NotificationResponse.
        NOTIFICATION_RESPONSE = b'A', "NotificationResponse";
        /// ParameterDescription.
        PARAMETER_DESCRIPTION = b't', "ParameterDescription";
        /// ParameterStatus.
        PARAMETER_STATUS = b'S', "ParameterStatus";
        /// ParseComplete.
        PARSE_COMPLETE = b'1', "ParseComplete";
        /// PortalSuspended.
        PORTAL_SUSPENDED = b's', "PortalSuspended";
        /// ReadyForQuery.
        READY_FOR_QUERY = b'Z', "ReadyForQuery";
        /// RowDescription.
        ROW_DESCRIPTION = b'T', "RowDescription";
    }
}

/// The first number of a start-up packet: a protocol version, or a request that is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// 3.0.
    pub const V3_0: Self = Self(3 << 16);
    /// 3.2: longer cancel keys (PostgreSQL 18).
    pub const V3_2: Self = Self((3 << 16) | 2);
    /// CancelRequest.
    pub const CANCEL: Self = Self((1234 << 16) | 5678);
    /// SSLRequest.
    pub const SSL: Self = Self((1234 << 16) | 5679);
    /// GSSENCRequest.
    pub const GSSENC: Self = Self((1234 << 16) | 5680);

    /// Major number.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0 >> 16
    }

    /// Minor number.
    #[must_use]
    pub fn minor(self) -> u32 {
        self.0 & 0xffff
    }
}

impl fmt::Debug for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// How a value travels: 0 text, 1 binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FormatCode(pub i16);

impl FormatCode {
    /// Text.
    pub const TEXT: Self = Self(0);
    /// Binary.
    pub const BINARY: Self = Self(1);
}

/// A SQLSTATE: five characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    /// `protocol_violation`.
    pub const PROTOCOL_VIOLATION: Self = Self("08P01");
    /// `sqlclient_unable_to_establish_sqlconnection`.
    pub const CANNOT_CONNECT: Self = Self("08001");
    /// `connection_failure`.
    pub const CONNECTION_FAILURE: Self = Self("08006");
    /// `feature_not_supported`.
    pub const NOT_SUPPORTED: Self = Self("0A000");
    /// `invalid_parameter_value`.
    pub const INVALID_PARAMETER: Self = Self("22023");
    /// `invalid_authorization_specification`.
    pub const INVALID_AUTHORIZATION: Self = Self("28000");
    /// `invalid_password`.
    pub const INVALID_PASSWORD: Self = Self("28P01");
    /// `invalid_catalog_name`.
    pub const INVALID_DATABASE: Self = Self("3D000");
    /// `insufficient_privilege`.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    /// `undefined_object`.
    pub const UNDEFINED_OBJECT: Self = Self("42704");
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: Self = Self("53300");
    /// `program_limit_exceeded`.
    pub const LIMIT_EXCEEDED: Self = Self("54000");
    /// `query_canceled`.
    pub const QUERY_CANCELED: Self = Self("57014");
    /// `admin_shutdown`.
    pub const ADMIN_SHUTDOWN: Self = Self("57P01");
    /// `cannot_connect_now`.
    pub const CANNOT_CONNECT_NOW: Self = Self("57P03");
    /// `idle_session_timeout`.
    pub const IDLE_TIMEOUT: Self = Self("57P05");
    /// `system_error`.
    pub const SYSTEM_ERROR: Self = Self("58000");
    /// `io_error`.
    pub const IO_ERROR: Self = Self("58030");
    /// `successful_completion`.
    pub const SUCCESS: Self = Self("00000");
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
