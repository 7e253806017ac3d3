//! What a session does to the catalogue: until it is loaded anew, the gateway's picture of names is old.
//!
//! ```text
//!  forwarded ALTER TABLE ─▶ running ─completed─▶ stale ─(load)─▶ settled      outside a transaction
//!                                   └─────────▶ uncommitted ─COMMIT completed─▶ stale
//! ```
//!
//! While it runs, or is not committed, nobody else can see what it did, the gateway included. An expression
//! over a table that was renamed meanwhile could not be traced to the columns that it shows.
//!
//! Once it is committed, every session on the target sees it: all of them are stale, until one has loaded the catalogue.

use crate::sql::Analysis;
use pg_query::NodeEnum;
use pg_query::protobuf::TransactionStmtKind;
use proxy_core::RequestId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a request does to the transaction that it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Boundary {
    /// Nothing.
    #[default]
    None,
    /// It leaves an explicit transaction open.
    Opens,
    /// It ends the transaction, and leaves none open.
    Ends,
}

impl Boundary {
    /// What the statements of `analysis` do in all, in their order.
    pub(crate) fn of(analysis: &Analysis) -> Self {
        let statements = analysis.tree.iter().flat_map(|tree| &tree.stmts);
        let nodes = statements.filter_map(|raw| raw.stmt.as_ref()?.node.as_ref());
        nodes.map(Self::of_statement).fold(Self::None, Self::and_then)
    }

    fn of_statement(node: &NodeEnum) -> Self {
        let NodeEnum::TransactionStmt(statement) = node else { return Self::None };
        match TransactionStmtKind::try_from(statement.kind) {
            Ok(TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart) => Self::Opens,
            Ok(TransactionStmtKind::TransStmtCommit | TransactionStmtKind::TransStmtRollback) => {
                if statement.chain {
                    Self::Opens
                } else {
                    Self::Ends
                }
            }
            Ok(TransactionStmtKind::TransStmtPrepare) => Self::Ends,
            Ok(
                TransactionStmtKind::Undefined
                | TransactionStmtKind::TransStmtSavepoint
                | TransactionStmtKind::TransStmtRelease
                | TransactionStmtKind::TransStmtRollbackTo
                | TransactionStmtKind::TransStmtCommitPrepared
                | TransactionStmtKind::TransStmtRollbackPrepared,
            )
            | Err(_) => Self::None,
        }
    }

    /// This one, and then `next`.
    pub(crate) fn and_then(self, next: Self) -> Self {
        if next == Self::None { self } else { next }
    }
}

/// More requests than a pipeline may hold ([`proxy_core::limits::SessionLimits::pipeline_max`]).
const FORWARDED_MAX: u64 = 65_536;

/// The changes that all sessions on one target have made: counts.
#[derive(Debug, Default)]
pub(crate) struct TargetChanges {
    made: AtomicU64,
    /// Those that a catalogue has, which was loaded since.
    loaded: AtomicU64,
}

/// The changes of one session.
#[derive(Debug, Default)]
pub(crate) struct CatalogChanges {
    target: Arc<TargetChanges>,
    /// Of the target's changes, those that it took up.
    heard: u64,
    /// Of the target's changes, those before the load that it asked for.
    asked: u64,
    /// Something completed since the catalogue was loaded.
    pub(crate) stale: bool,
    /// Counts what made it stale: a load that was asked for before is not new enough.
    pub(crate) epoch: u64,
    /// Forwarded requests whose completion matters.
    running: BTreeMap<RequestId, Running>,
    /// A transaction was opened in so many words, and not ended.
    open: bool,
    /// Within it, the catalogue was changed.
    uncommitted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    changes: bool,
    boundary: Boundary,
}

impl CatalogChanges {
    /// Whether names may mean to the session what the gateway's catalogue does not say.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.stale || self.uncommitted || self.running.values().any(|running| running.changes)
    }

    /// A session on a target.
    pub(crate) fn on(target: Arc<TargetChanges>) -> Self {
        let mut changes = Self::default();
        changes.heard = target.loaded.load(Ordering::Acquire);
        changes.target = target;
        changes
    }

    /// Takes up what other sessions have changed, and have loaded.
    pub(crate) fn hear(&mut self) {
        let made = self.target.made.load(Ordering::Acquire);
        if made != self.heard {
            self.heard = made;
            self.stale = true;
            self.epoch += 1;
        }
        // A load that began after all that this session knows of was for it as well.
        self.stale &= self.target.loaded.load(Ordering::Acquire) < self.heard;
    }

    /// The catalogue is about to be loaded.
    pub(crate) fn loading(&mut self) {
        self.asked = self.target.made.load(Ordering::Acquire);
    }

    /// It was loaded.
    pub(crate) fn loaded(&mut self) {
        self.stale = false;
        self.target.loaded.fetch_max(self.asked, Ordering::AcqRel);
    }

    /// A request is forwarded.
    pub(crate) fn forwarded(&mut self, request: RequestId, changes: bool, boundary: Boundary) {
        // Those whose end was never told (a pipeline that was given up) have ended by now, one way or another.
        let long_ago = RequestId(request.0.saturating_sub(FORWARDED_MAX));
        while let Some((&old, _)) = self.running.first_key_value().filter(|(old, _)| **old < long_ago) {
            self.completed(old, false);
        }
        if changes || boundary != Boundary::None {
            self.running.insert(request, Running { changes, boundary });
        }
    }

    /// A request has ended.
    pub(crate) fn completed(&mut self, request: RequestId, succeeded: bool) {
        let Some(running) = self.running.remove(&request) else { return };
        // A batch that failed may have committed a part of what it did.
        self.uncommitted |= running.changes;
        match running.boundary {
            // After a failed COMMIT the transaction may be open still: it takes one that succeeds.
            Boundary::Ends if succeeded => self.open = false,
            Boundary::Opens => self.open = true,
            Boundary::Ends | Boundary::None => {}
        }
        // COMMIT AND CHAIN ends one transaction and opens another: what it committed can be seen.
        let visible = self.uncommitted && (!self.open || (running.boundary == Boundary::Opens && !running.changes));
        self.uncommitted &= self.open;
        self.stale |= visible;
        self.epoch += u64::from(visible);
        if visible {
            self.heard = self.target.made.fetch_add(1, Ordering::AcqRel) + 1;
        }
    }
}

impl Drop for CatalogChanges {
    /// What became of a change whose end was not told is not known.
    fn drop(&mut self) {
        if self.uncommitted || self.running.values().any(|running| running.changes) {
            self.target.made.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Boundary, CatalogChanges, TargetChanges};
    use proxy_core::RequestId;
    use std::sync::Arc;

    #[test]
    fn a_change_is_stale_when_it_completes() {
        let mut changes = CatalogChanges::default();
        changes.forwarded(RequestId(1), true, Boundary::None);
        assert!(changes.is_unsettled() && !changes.stale);
        changes.completed(RequestId(1), false);
        assert!(changes.stale, "a batch that failed may have committed a part");
    }

    #[test]
    fn a_change_in_a_transaction_is_stale_when_the_transaction_ends() {
        let mut changes = CatalogChanges::default();
        changes.forwarded(RequestId(1), false, Boundary::Opens);
        changes.completed(RequestId(1), true);
        changes.forwarded(RequestId(2), true, Boundary::None);
        changes.completed(RequestId(2), true);
        assert!(!changes.stale && changes.is_unsettled());
        changes.forwarded(RequestId(3), false, Boundary::Ends);
        changes.completed(RequestId(3), false);
        assert!(!changes.stale, "a COMMIT that was skipped ended nothing");
        changes.forwarded(RequestId(4), false, Boundary::Ends);
        changes.completed(RequestId(4), true);
        assert!(changes.stale);
        changes.stale = false;
        assert!(!changes.is_unsettled());
    }

    #[test]
    fn what_one_session_changes_makes_all_on_the_target_stale_until_one_has_loaded_it() {
        let target = Arc::new(TargetChanges::default());
        let mut sessions = [0, 1, 2].map(|_| CatalogChanges::on(target.clone()));
        let [one, other, third] = &mut sessions;
        one.forwarded(RequestId(1), true, Boundary::None);
        other.hear();
        assert!(!other.is_unsettled());
        one.completed(RequestId(1), true);
        other.hear();
        assert!(other.stale && other.epoch == 1);
        // A change that comes while the catalogue is loaded is not in it.
        other.loading();
        one.forwarded(RequestId(2), true, Boundary::None);
        one.completed(RequestId(2), true);
        other.loaded();
        other.hear();
        third.hear();
        assert!(other.stale && third.stale);
        other.loading();
        other.loaded();
        other.hear();
        assert!(!other.is_unsettled());
        let mut later = CatalogChanges::on(target.clone());
        later.hear();
        assert!(!later.is_unsettled());
        // A session that ends within its change may have made it.
        later.forwarded(RequestId(1), true, Boundary::None);
        drop(later);
        other.hear();
        assert!(other.stale);
    }

    #[test]
    fn other_statements_change_nothing() {
        let mut changes = CatalogChanges::default();
        changes.forwarded(RequestId(1), false, Boundary::None);
        assert!(!changes.is_unsettled());
        changes.completed(RequestId(1), true);
        assert!(!changes.is_unsettled());
    }
}
