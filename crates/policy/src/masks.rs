//! What a principal may not see in clear on a target, and what that means for one statement.

use crate::sql::Analysis;
use masking::{MaskPlan, MaskRules};
use proxy_core::{Catalog, CopyShape, Disclosure};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a request is refused on account of what it would show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// Whether any mask rule is about `connection`.
pub(crate) fn covers(rules: &MaskRules, connection: &str) -> bool {
    rules.connections.iter().any(|c| c == connection)
}

/// What is hidden from one principal on one target.
#[derive(Debug)]
pub(crate) enum MaskView {
    /// Nothing.
    Nothing,
    /// Rules are about the connection, but its catalogue is not known: which columns they mean cannot be told.
    Blind,
    /// These classes of the plan.
    Classes { plan: Arc<MaskPlan>, hidden: BTreeSet<String> },
}

impl MaskView {
    pub(crate) fn new(plan: Arc<MaskPlan>, _catalog: Arc<Catalog>, sees: impl Fn(&str) -> bool) -> Self {
        let hidden: BTreeSet<String> = plan.classes().into_iter().filter(|class| !sees(class)).collect();
        if hidden.is_empty() { Self::Nothing } else { Self::Classes { plan, hidden } }
    }

    pub(crate) fn hides_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(crate) fn hidden(&self) -> Vec<String> {
        match self {
            Self::Nothing | Self::Blind => Vec::new(),
            Self::Classes { hidden, .. } => hidden.iter().cloned().collect(),
        }
    }

    pub(crate) fn disclose(&self, analyses: &[Arc<Analysis>]) -> Result<Disclosure, Refusal> {
        let (plan, hidden) = match self {
            Self::Nothing => return Ok(Disclosure::default()),
            Self::Blind => return blind(analyses),
            Self::Classes { plan, hidden } => (plan, hidden),
        };
        let mut all = Disclosure::default();
        for _analysis in analyses {
            let one = masking::disclose(plan, hidden).map_err(|r| Refusal { message: r.message, remedy: r.remedy })?;
            all = Disclosure { rules: all.rules.or(one.rules), withhold_messages: all.withhold_messages || one.withhold_messages, copy: CopyShape::Pass };
        }
        Ok(all)
    }
}

fn blind(analyses: &[Arc<Analysis>]) -> Result<Disclosure, Refusal> {
    if analyses.iter().all(|analysis| analysis.relations.is_empty() && analysis.functions.is_empty()) {
        return Ok(Disclosure::default());
    }
    Err(Refusal {
        message: "columns of this connection are classified, but its catalogue could not be loaded, so it cannot be told which ones this request would show".to_owned(),
        remedy: "try again; if it lasts, `sallyport check --connect` says why the catalogue cannot be loaded".to_owned(),
    })
}
