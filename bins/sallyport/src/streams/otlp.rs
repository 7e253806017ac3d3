//! OTLP logs over HTTP, protobuf (opentelemetry.io, OTLP 1.x): each batch is one ExportLogsServiceRequest.
//!
//! A log record's body is the entry in the stream's format, as text; its attributes say what a query starts from.
//! Acknowledged: 2xx. What a partial success rejects must not be sent again, says the specification: it is counted.

use super::batch::{Batch, Item, Weight};
use super::http::Http;
use super::sink::{SinkError, Taken};
use crate::config::Stream;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use proxy_io::clock::now;

/// A collector.
pub(super) struct Otlp {
    http: Http,
    format: &'static str,
    log_id: String,
    host: String,
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(1_000)
}

impl Otlp {
    pub(super) fn new(stream: &Stream, url: &str) -> Result<Self, String> {
        let http = Http::new(stream, url, "application/x-protobuf")?;
        let host = control_plane::machine::host_name().unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { http, format: stream.format.as_str(), log_id: String::new(), host })
    }

    /// The log that the records are of.
    pub(super) fn of_log(&mut self, id: &str) {
        id.clone_into(&mut self.log_id);
    }

    fn record(&self, item: &Item, observed: u64) -> LogRecord {
        let (number, name) = match item.weight {
            Weight::Information => (SeverityNumber::Info, "INFO"),
            Weight::Notice => (SeverityNumber::Info2, "INFO2"),
            Weight::Warning => (SeverityNumber::Warn, "WARN"),
        };
        let mut attributes = vec![
            attribute("sallyport.log.index", Value::IntValue(i64::try_from(item.index).unwrap_or(i64::MAX))),
            text("sallyport.log.id", &*self.log_id),
            text("sallyport.event", item.kind.as_str()),
            text("sallyport.format", self.format),
        ];
        attributes.extend(item.session.as_ref().map(|id| text("session.id", id)));
        LogRecord {
            time_unix_nano: nanos(item.time.0),
            observed_time_unix_nano: observed,
            severity_number: number.into(),
            severity_text: name.to_owned(),
            body: Some(AnyValue { value: Some(Value::StringValue(String::from_utf8_lossy(&item.line).into_owned())) }),
            attributes,
            event_name: format!("sallyport.{}", item.kind.as_str()),
            ..LogRecord::default()
        }
    }

    fn request(&self, batch: &Batch) -> ExportLogsServiceRequest {
        let observed = nanos(now().0);
        let resource = Resource {
            attributes: vec![
                text("service.name", "sallyport"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("host.name", &*self.host),
            ],
            ..Resource::default()
        };
        let scope = InstrumentationScope { name: "sallyport.audit".to_owned(), ..InstrumentationScope::default() };
        let log_records = batch.items.iter().map(|item| self.record(item, observed)).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }],
        }
    }

    pub(super) async fn send(&self, batch: &Batch) -> Result<Taken, SinkError> {
        let answer = self.http.post(self.request(batch).encode_to_vec()).await?;
        Ok(partial(&answer))
    }
}

/// What an answer says about entries that were not taken. One that cannot be read says nothing: the status was good.
fn partial(answer: &[u8]) -> Taken {
    let partial = ExportLogsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or_else(Taken::default, |partial| Taken {
        rejected: u64::try_from(partial.rejected_log_records).unwrap_or(0),
        why: partial.error_message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    #[test]
    fn a_partial_success_is_taken_with_what_it_rejected() {
        let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records: 3, error_message: "too old".into() });
        let answer = ExportLogsServiceResponse { partial_success }.encode_to_vec();
        assert_eq!(partial(&answer), Taken { rejected: 3, why: "too old".into() });
        assert_eq!(partial(b""), Taken::default());
        assert_eq!(partial(b"{}"), Taken::default());
    }
}
