//! What a principal may not see in clear on a target, and what that means for one request.

use crate::sql::{Analysis, SqlState};
use masking::{Circumstances, Flows, MaskPlan, Refusal};
use proxy_core::{CopyShape, Disclosure};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is hidden from one principal on one target.
#[derive(Debug)]
pub(crate) enum MaskView {
    /// Nothing.
    Nothing,
    /// Rules are about the connection, but its catalogue is not known: which columns they mean cannot be told.
    Blind,
    /// These classes of the plan; at least one.
    Classes { plan: Arc<MaskPlan>, hidden: BTreeSet<String> },
}

impl MaskView {
    /// What `plan` hides from whoever `sees` some of its classes.
    pub(crate) fn new(plan: Arc<MaskPlan>, sees: impl Fn(&str) -> bool) -> Self {
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

    /// What may come back of a request that is all of `analyses` (one, or those that a name may stand for),
    /// and whether it changes what names mean.
    ///
    /// # Errors
    /// It would show what is hidden in a way that cannot be masked.
    pub(crate) fn disclose(
        &self,
        analyses: &[Arc<Analysis>],
        state: &SqlState,
        catalog_stale: bool,
    ) -> Result<(Disclosure, bool), Refusal> {
        let (plan, hidden) = match self {
            Self::Nothing => return Ok((Disclosure::default(), false)),
            Self::Blind => return blind(analyses),
            Self::Classes { plan, hidden } => (plan, hidden),
        };
        // A batch may use the temporary tables that it makes: its own effects count, which only ever add meanings.
        let mut state = std::borrow::Cow::Borrowed(state);
        for analysis in analyses.iter().filter(|analysis| !analysis.effects.is_empty()) {
            state.to_mut().apply(analysis);
        }
        let names = state.names(plan.catalog());
        let mut flows = Flows::default();
        for analysis in analyses {
            match &analysis.tree {
                Some(tree) => flows.merge(masking::flows(tree, plan, &names)),
                None if analysis.facts.unknown.is_empty() => {}
                None => return Err(unparsed()),
            }
        }
        let copy = analyses.iter().find_map(|analysis| analysis.copy.as_ref()).and_then(crate::sql::CopyStatement::out);
        let redefines = flows.redefines;
        let disclosure = masking::disclose(plan, hidden, &flows, &Circumstances { copy, catalog_stale })?;
        // Whether a name stands for a COPY or for something else is not known: its stream cannot be read.
        if analyses.len() > 1 && !matches!(disclosure.copy, CopyShape::Pass) {
            return Err(unparsed());
        }
        Ok((disclosure, redefines))
    }
}

fn unparsed() -> Refusal {
    Refusal {
        message: "it cannot be told whether this request would show columns that are masked".to_owned(),
        remedy: "write it in simpler terms, or ask for the action unmask on the classes of this connection".to_owned(),
    }
}

fn blind(analyses: &[Arc<Analysis>]) -> Result<(Disclosure, bool), Refusal> {
    let parsed = |analysis: &Arc<Analysis>| analysis.tree.is_some() && analysis.facts.unknown.is_empty();
    if analyses.iter().all(|analysis| parsed(analysis) && analysis.relations.is_empty() && analysis.functions.is_empty()) {
        return Ok((Disclosure::default(), false));
    }
    Err(Refusal {
        message: "columns of this connection are classified, but its catalogue could not be loaded, so it cannot be told which of them this request would show".to_owned(),
        remedy: "try again; if it lasts, `sallyport check --connect` says why the catalogue cannot be loaded".to_owned(),
    })
}
