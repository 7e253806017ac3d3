//! Counts what came of requests, where it is recorded. (Requests and entries themselves are counted by the
//! driver: see `serve/adapters.rs`.)

use super::{Counter, Histogram, Metrics, family};
use proxy_core::record::{ApprovalStep, Entry, Event, Outcome, OutcomeStatus};
use proxy_core::{Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Of so many appends one is timed.
const TIMED: u64 = 16;

const STEPS: [ApprovalStep; 5] =
    [ApprovalStep::Requested, ApprovalStep::Approved, ApprovalStep::Denied, ApprovalStep::Expired, ApprovalStep::Withdrawn];
const STATUSES: [OutcomeStatus; 5] =
    [OutcomeStatus::Completed, OutcomeStatus::Failed, OutcomeStatus::Skipped, OutcomeStatus::Refused, OutcomeStatus::Unknown];

/// A store whose entries are counted.
pub struct MeteredStore {
    store: Arc<dyn Store>,
    seconds: Histogram,
    appends: AtomicU64,
    statuses: [Counter; 5],
    steps: [Counter; 5],
    request_seconds: Histogram,
    rows: Counter,
    columns: [Counter; 3],
}

impl MeteredStore {
    /// Counts what goes to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, metrics: &Metrics) -> Self {
        Self {
            store,
            seconds: metrics.histogram(&family::AUDIT_SECONDS, &[]),
            appends: AtomicU64::new(0),
            statuses: STATUSES.map(|status| metrics.counter(&family::REQUEST_OUTCOMES, &[status.as_str()])),
            steps: STEPS.map(|step| metrics.counter(&family::APPROVALS, &[step.as_str()])),
            request_seconds: metrics.histogram(&family::REQUEST_SECONDS, &[]),
            rows: metrics.counter(&family::ROWS, &[]),
            columns: ["passed", "masked", "refused"].map(|fate| metrics.counter(&family::COLUMNS, &[fate])),
        }
    }

    fn count(&self, entry: &Entry) {
        match &entry.event {
            Event::Outcome(outcome) => self.count_outcome(outcome),
            Event::Approval { step, .. } => self.count_step(*step),
            Event::GatewayStarted { .. }
            | Event::GatewayStopped { .. }
            | Event::Activated { .. }
            | Event::ReloadRefused { .. }
            | Event::LoginFailed { .. }
            | Event::SessionStarted(_)
            | Event::SessionEnded { .. }
            | Event::Request(_)
            | Event::Administration { .. }
            | Event::LogRead { .. }
            | Event::ClockJump { .. }
            | Event::Heartbeat
            | Event::LogKey(_)
            | Event::Destroyed(_) => {}
        }
    }

    fn count_outcome(&self, outcome: &Outcome) {
        if let Some((_, counter)) = STATUSES.iter().zip(&self.statuses).find(|(status, _)| **status == outcome.status) {
            counter.inc();
        }
        self.request_seconds.observe_micros(outcome.duration_micros);
        let [passed, masked, refused] = &self.columns;
        let counts = [
            (&self.rows, outcome.rows),
            (passed, u64::from(outcome.columns_passed)),
            (masked, u64::from(outcome.columns_masked)),
            (refused, u64::from(outcome.columns_refused)),
        ];
        for (counter, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            counter.add(count);
        }
    }

    fn count_step(&self, step: ApprovalStep) {
        if let Some((_, counter)) = STEPS.iter().zip(&self.steps).find(|(known, _)| **known == step) {
            counter.inc();
        }
    }
}

impl Store for MeteredStore {
    fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
        // An append takes little longer than reading the clock twice.
        let timed = self.appends.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIMED).then(Instant::now);
        let first = self.store.append(entries)?;
        if let Some(start) = timed {
            self.seconds.observe(start.elapsed());
        }
        entries.iter().for_each(|entry| self.count(entry));
        Ok(first)
    }

    fn blocks(&self) -> bool {
        self.store.blocks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_core::{RequestId, Timestamp};

    struct Refusing(bool);

    impl Store for Refusing {
        fn append(&self, _: &[Entry]) -> Result<u64, StoreError> {
            if self.0 { Err(StoreError::Closed) } else { Ok(0) }
        }

        fn blocks(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_is_recorded_is_counted_and_what_is_refused_is_not() {
        let outcome = Outcome {
            request: RequestId(1),
            status: OutcomeStatus::Completed,
            code: None,
            tag: None,
            rows: 3,
            bytes: 10,
            duration_micros: 1_500,
            columns_passed: 2,
            columns_masked: 1,
            columns_refused: 0,
            masked_classes: vec![],
        };
        let entry = Entry { time: Timestamp(0), session: None, event: Event::Outcome(Box::new(outcome)) };
        let metrics = Metrics::new();
        assert!(MeteredStore::new(Arc::new(Refusing(true)), &metrics).append(std::slice::from_ref(&entry)).is_err());
        assert_eq!(metrics.counter(&family::ROWS, &[]).get(), 0);
        MeteredStore::new(Arc::new(Refusing(false)), &metrics).append(&[entry]).unwrap();
        let text = metrics.render();
        for line in [
            "sallyport_rows_total 3",
            "sallyport_result_columns_total{fate=\"masked\"} 1",
            "sallyport_request_outcomes_total{status=\"completed\"} 1",
            "sallyport_request_seconds_sum 0.0015",
            "sallyport_audit_append_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
