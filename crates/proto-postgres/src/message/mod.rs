//! Messages: one file for each family, with parse, encode and tests.
//!
//! Parsed messages borrow from the frame. The session parses what it needs; [`ClientMessage`] and
//! [`UpstreamMessage`] parse any frame whole, for `sallyport inspect` and the tests.

pub mod authentication;
pub mod copy;
pub mod extended;
pub mod function_call;
pub mod rows;
pub mod simple;
pub mod startup;
pub mod status;

use crate::error::Malformed;
use crate::frame::{Reader, write};
use crate::types::{ClientTag, UpstreamTag};
use bytes::BytesMut;

pub use authentication::{Authentication, SaslInitialResponse};
pub use copy::CopyResponse;
pub use extended::{Bind, BindLayout, Close, Describe, Execute, Parse, Target};
pub use function_call::FunctionCall;
pub use rows::{DataRow, Field, RowDescription};
pub use simple::Query;
pub use startup::{StartupPacket, split_options};
pub use status::{BackendKeyData, ErrorFields, NegotiateProtocolVersion, Notification, ParameterStatus, TransactionStatus};

/// Any message of the client after its start-up packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// Bind.
    Bind(Bind<'a>),
    /// Close.
    Close(Close<'a>),
    /// CopyData.
    CopyData(&'a [u8]),
    /// CopyDone.
    CopyDone,
    /// CopyFail, with its reason.
    CopyFail(&'a [u8]),
    /// Describe.
    Describe(Describe<'a>),
    /// Execute.
    Execute(Execute<'a>),
    /// Flush.
    Flush,
    /// FunctionCall.
    FunctionCall(FunctionCall<'a>),
    /// Parse.
    Parse(Parse<'a>),
    /// PasswordMessage or one of its kin: which one, the bytes do not say.
    Password(&'a [u8]),
    /// Query.
    Query(Query<'a>),
    /// Sync.
    Sync,
    /// Terminate.
    Terminate,
}

impl<'a> ClientMessage<'a> {
    /// Parses the body of a frame of type `tag`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(tag: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match ClientTag(tag) {
            ClientTag::BIND => Self::Bind(Bind::parse(body)?),
            ClientTag::CLOSE => Self::Close(Close::parse(body)?),
            ClientTag::COPY_DATA => Self::CopyData(body),
            ClientTag::COPY_DONE => empty(body, Self::CopyDone)?,
            ClientTag::COPY_FAIL => Self::CopyFail(only_cstr(body)?),
            ClientTag::DESCRIBE => Self::Describe(Describe::parse(body)?),
            ClientTag::EXECUTE => Self::Execute(Execute::parse(body)?),
            ClientTag::FLUSH => empty(body, Self::Flush)?,
            ClientTag::FUNCTION_CALL => Self::FunctionCall(FunctionCall::parse(body)?),
            ClientTag::PARSE => Self::Parse(Parse::parse(body)?),
            ClientTag::PASSWORD => Self::Password(body),
            ClientTag::QUERY => Self::Query(Query::parse(body)?),
            ClientTag::SYNC => empty(body, Self::Sync)?,
            ClientTag::TERMINATE => empty(body, Self::Terminate)?,
            _ => return Err(Malformed::Type),
        })
    }

    /// Appends the message's frame.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Bind(m) => m.encode(out),
            Self::Close(m) => m.encode(out),
            Self::CopyData(data) => write(out, ClientTag::COPY_DATA.0, |out| out.extend_from_slice(data)),
            Self::CopyDone => write(out, ClientTag::COPY_DONE.0, |_| {}),
            Self::CopyFail(reason) => write(out, ClientTag::COPY_FAIL.0, |out| crate::frame::put_cstr(out, reason)),
            Self::Describe(m) => m.encode(out),
            Self::Execute(m) => m.encode(out),
            Self::Flush => write(out, ClientTag::FLUSH.0, |_| {}),
            Self::FunctionCall(m) => m.encode(out),
            Self::Parse(m) => m.encode(out),
            Self::Password(data) => write(out, ClientTag::PASSWORD.0, |out| out.extend_from_slice(data)),
            Self::Query(m) => m.encode(out),
            Self::Sync => write(out, ClientTag::SYNC.0, |_| {}),
            Self::Terminate => write(out, ClientTag::TERMINATE.0, |_| {}),
        }
    }
}

/// Any message of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamMessage<'a> {
    /// Authentication….
    Authentication(Authentication<'a>),
    /// BackendKeyData.
    BackendKeyData(BackendKeyData<'a>),
    /// BindComplete.
    BindComplete,
    /// CloseComplete.
    CloseComplete,
    /// CommandComplete, with its tag.
    CommandComplete(&'a [u8]),
    /// CopyBothResponse.
    CopyBothResponse(CopyResponse),
    /// CopyData.
    CopyData(&'a [u8]),
    /// CopyDone.
    CopyDone,
    /// CopyInResponse.
    CopyInResponse(CopyResponse),
    /// CopyOutResponse.
    CopyOutResponse(CopyResponse),
    /// DataRow.
    DataRow(DataRow<'a>),
    /// EmptyQueryResponse.
    EmptyQueryResponse,
    /// ErrorResponse.
    ErrorResponse(ErrorFields<'a>),
    /// FunctionCallResponse: the value, `None` is NULL.
    FunctionCallResponse(Option<&'a [u8]>),
    /// NegotiateProtocolVersion.
    NegotiateProtocolVersion(NegotiateProtocolVersion<'a>),
    /// NoData.
    NoData,
    /// NoticeResponse.
    NoticeResponse(ErrorFields<'a>),
    /// NotificationResponse.
    NotificationResponse(Notification<'a>),
    /// ParameterDescription: type numbers.
    ParameterDescription(Vec<u32>),
    /// ParameterStatus.
    ParameterStatus(ParameterStatus<'a>),
    /// ParseComplete.
    ParseComplete,
    /// PortalSuspended.
    PortalSuspended,
    /// ReadyForQuery.
    ReadyForQuery(TransactionStatus),
    /// RowDescription.
    RowDescription(RowDescription<'a>),
}

impl<'a> UpstreamMessage<'a> {
    /// Parses the body of a frame of type `tag`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(tag: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match UpstreamTag(tag) {
            UpstreamTag::AUTHENTICATION => Self::Authentication(Authentication::parse(body)?),
            UpstreamTag::BACKEND_KEY_DATA => Self::BackendKeyData(BackendKeyData::parse(body)?),
            UpstreamTag::BIND_COMPLETE => empty(body, Self::BindComplete)?,
            UpstreamTag::CLOSE_COMPLETE => empty(body, Self::CloseComplete)?,
            UpstreamTag::COMMAND_COMPLETE => Self::CommandComplete(only_cstr(body)?),
            UpstreamTag::COPY_BOTH_RESPONSE => Self::CopyBothResponse(CopyResponse::parse(body)?),
            UpstreamTag::COPY_DATA => Self::CopyData(body),
            UpstreamTag::COPY_DONE => empty(body, Self::CopyDone)?,
            UpstreamTag::COPY_IN_RESPONSE => Self::CopyInResponse(CopyResponse::parse(body)?),
            UpstreamTag::COPY_OUT_RESPONSE => Self::CopyOutResponse(CopyResponse::parse(body)?),
            UpstreamTag::DATA_ROW => Self::DataRow(DataRow::parse(body)?),
            UpstreamTag::EMPTY_QUERY_RESPONSE => empty(body, Self::EmptyQueryResponse)?,
            UpstreamTag::ERROR_RESPONSE => Self::ErrorResponse(ErrorFields::parse(body)?),
            UpstreamTag::FUNCTION_CALL_RESPONSE => {
                let mut reader = Reader::new(body);
                let value = reader.value()?;
                reader.end()?;
                Self::FunctionCallResponse(value)
            }
            UpstreamTag::NEGOTIATE_PROTOCOL_VERSION => Self::NegotiateProtocolVersion(NegotiateProtocolVersion::parse(body)?),
            UpstreamTag::NO_DATA => empty(body, Self::NoData)?,
            UpstreamTag::NOTICE_RESPONSE => Self::NoticeResponse(ErrorFields::parse(body)?),
            UpstreamTag::NOTIFICATION_RESPONSE => Self::NotificationResponse(Notification::parse(body)?),
            UpstreamTag::PARAMETER_DESCRIPTION => Self::ParameterDescription(rows::parse_parameter_description(body)?),
            UpstreamTag::PARAMETER_STATUS => Self::ParameterStatus(ParameterStatus::parse(body)?),
            UpstreamTag::PARSE_COMPLETE => empty(body, Self::ParseComplete)?,
            UpstreamTag::PORTAL_SUSPENDED => empty(body, Self::PortalSuspended)?,
            UpstreamTag::READY_FOR_QUERY => Self::ReadyForQuery(TransactionStatus::parse(body)?),
            UpstreamTag::ROW_DESCRIPTION => Self::RowDescription(RowDescription::parse(body)?),
            _ => return Err(Malformed::Type),
        })
    }

    /// Appends the message's frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let bare = |out: &mut BytesMut, tag: UpstreamTag| write(out, tag.0, |_| {});
        match self {
            Self::Authentication(m) => m.encode(out),
            Self::BackendKeyData(m) => m.encode(out),
            Self::BindComplete => bare(out, UpstreamTag::BIND_COMPLETE),
            Self::CloseComplete => bare(out, UpstreamTag::CLOSE_COMPLETE),
            Self::CommandComplete(tag) => {
                write(out, UpstreamTag::COMMAND_COMPLETE.0, |out| crate::frame::put_cstr(out, tag));
            }
            Self::CopyBothResponse(m) => m.encode(UpstreamTag::COPY_BOTH_RESPONSE, out),
            Self::CopyData(data) => write(out, UpstreamTag::COPY_DATA.0, |out| out.extend_from_slice(data)),
            Self::CopyDone => bare(out, UpstreamTag::COPY_DONE),
            Self::CopyInResponse(m) => m.encode(UpstreamTag::COPY_IN_RESPONSE, out),
            Self::CopyOutResponse(m) => m.encode(UpstreamTag::COPY_OUT_RESPONSE, out),
            Self::DataRow(m) => m.encode(out),
            Self::EmptyQueryResponse => bare(out, UpstreamTag::EMPTY_QUERY_RESPONSE),
            Self::ErrorResponse(m) => m.encode(UpstreamTag::ERROR_RESPONSE, out),
            Self::FunctionCallResponse(value) => {
                write(out, UpstreamTag::FUNCTION_CALL_RESPONSE.0, |out| extended::put_value(out, *value));
            }
            Self::NegotiateProtocolVersion(m) => m.encode(out),
            Self::NoData => bare(out, UpstreamTag::NO_DATA),
            Self::NoticeResponse(m) => m.encode(UpstreamTag::NOTICE_RESPONSE, out),
            Self::NotificationResponse(m) => m.encode(out),
            Self::ParameterDescription(types) => rows::encode_parameter_description(types, out),
            Self::ParameterStatus(m) => m.encode(out),
            Self::ParseComplete => bare(out, UpstreamTag::PARSE_COMPLETE),
            Self::PortalSuspended => bare(out, UpstreamTag::PORTAL_SUSPENDED),
            Self::ReadyForQuery(status) => status.encode(out),
            Self::RowDescription(m) => m.encode(out),
        }
    }
}

/// `message`, if the body is empty.
fn empty<T>(body: &[u8], message: T) -> Result<T, Malformed> {
    Reader::new(body).end()?;
    Ok(message)
}

/// A body that is one string.
pub(crate) fn only_cstr(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.end()?;
    Ok(text)
}
