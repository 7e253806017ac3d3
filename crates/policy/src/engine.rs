//! The policies and mask rules that are active, for all sessions.

use crate::catalog_source::CatalogSource;
use crate::changes::TargetChanges;
use crate::limits::UNRESOLVED_REFRESH_MIN;
use crate::masks::MaskView;
use crate::problem::LoadError;
use crate::session::Decider;
use crate::set::PolicySet;
use masking::{MaskPlan, MaskRules};
use parking_lot::{Mutex, RwLock};
use proxy_core::pipeline::SessionFacts;
use proxy_core::{Authorizer, Catalog, SessionAuthorizer, Target, Timestamp};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Decides for all sessions. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct PolicyEngine {
    pub(crate) shared: Arc<Shared>,
}

/// What a policy set that became active replaced: for the record's `Activated`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The set's SHA-256, hexadecimal.
    pub digest: String,
    /// That of the one before.
    pub previous: String,
    /// `+ id`, `- id`, `~ id`. Empty: nothing changed.
    pub difference: Vec<String>,
}

/// What is active.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) set: Arc<PolicySet>,
    pub(crate) masks: Arc<MaskRules>,
    pub(crate) masks_generation: u64,
    /// Whether a policy reads the statement's text.
    pub(crate) reads_statement: bool,
    /// Whether no policy reads what differs between two requests that do the same to the same object.
    pub(crate) reads_operations_alone: bool,
}

/// What sessions share.
pub(crate) struct Shared {
    /// Tells engines apart in what threads remember.
    pub(crate) id: u64,
    active: RwLock<Arc<Active>>,
    /// Grows with each change of `active`.
    generation: AtomicU64,
    pub(crate) catalogs: Arc<dyn CatalogSource>,
    plans: Mutex<HashMap<(String, String), Plan>>,
    /// When a catalogue was last loaded for the sake of a name: target and name to time.
    asked: Mutex<HashMap<(String, String, String), Timestamp>>,
    /// By connection and database.
    changes: Mutex<HashMap<(String, String), Arc<TargetChanges>>>,
}

/// Mask rules applied to one catalogue.
struct Plan {
    catalog: Arc<Catalog>,
    masks_generation: u64,
    plan: Arc<MaskPlan>,
}

/// Targets whose changes are remembered, after which those without sessions are forgotten.
const CHANGED_MAX: usize = 1_024;

/// Most names whose last refresh is remembered.
const ASKED_MAX: usize = 1_024;

impl PolicyEngine {
    /// An engine that decides by `set`, masks by `masks`, and knows what `catalogs` knows.
    #[must_use]
    pub fn new(set: PolicySet, masks: MaskRules, catalogs: Arc<dyn CatalogSource>) -> Self {
        static ENGINES: AtomicU64 = AtomicU64::new(0);
        let shared = Shared {
            id: ENGINES.fetch_add(1, Ordering::Relaxed),
            active: RwLock::new(Arc::new(Active::new(Arc::new(set), Arc::new(masks), 0))),
            generation: AtomicU64::new(0),
            catalogs,
            plans: Mutex::new(HashMap::new()),
            asked: Mutex::new(HashMap::new()),
            changes: Mutex::new(HashMap::new()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The set that is active.
    #[must_use]
    pub fn policies(&self) -> Arc<PolicySet> {
        self.shared.active().0.set.clone()
    }

    /// Makes `set` the active one. Sessions meet it at their next decision.
    pub fn activate(&self, set: PolicySet) -> Activation {
        let set = Arc::new(set);
        let before = self.shared.replace(|active| Active::new(set.clone(), active.masks.clone(), active.masks_generation));
        Activation {
            digest: set.digest().to_owned(),
            previous: before.set.digest().to_owned(),
            difference: set.difference(&before.set),
        }
    }

    /// Loads the folder `dir` and makes it the active set.
    ///
    /// # Errors
    /// It does not load: the set that was active stays.
    pub fn reload(&self, dir: &Path) -> Result<Activation, LoadError> {
        Ok(self.activate(PolicySet::load(dir)?))
    }

    /// Makes `masks` the active mask rules. Sessions meet them at their next decision.
    pub fn set_masks(&self, masks: MaskRules) {
        let masks = Arc::new(masks);
        self.shared.replace(|active| Active::new(active.set.clone(), masks.clone(), active.masks_generation + 1));
    }
}

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine").field("policies", &self.policies().version()).finish_non_exhaustive()
    }
}

impl Authorizer for PolicyEngine {
    fn open(&self, session: &SessionFacts) -> Box<dyn SessionAuthorizer> {
        Box::new(Decider::new(self.shared.clone(), session))
    }
}

impl Active {
    fn new(set: Arc<PolicySet>, masks: Arc<MaskRules>, masks_generation: u64) -> Self {
        let reads = set.reads();
        Self {
            reads_statement: reads.context("statement"),
            reads_operations_alone: !["statement", "statements", "kinds", "unknown", "sensitive_catalog"]
                .iter()
                .any(|name| reads.context(name)),
            set,
            masks,
            masks_generation,
        }
    }
}

impl Shared {
    /// Grows whenever [`Shared::active`] answers differently.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What is active, and the generation by which to tell that it is not any more.
    pub(crate) fn active(&self) -> (Arc<Active>, u64) {
        // Under the lock, so that the two belong together.
        let active = self.active.read();
        (active.clone(), self.generation.load(Ordering::Acquire))
    }

    /// Replaces what is active; returns what was.
    fn replace(&self, next: impl FnOnce(&Active) -> Active) -> Arc<Active> {
        let mut active = self.active.write();
        let next = Arc::new(next(&active));
        let before = std::mem::replace(&mut *active, next);
        self.generation.fetch_add(1, Ordering::Release);
        before
    }

    /// What sessions have changed in `target`.
    pub(crate) fn changes(&self, target: &Target) -> Arc<TargetChanges> {
        let mut changes = self.changes.lock();
        if changes.len() >= CHANGED_MAX {
            // Those of targets on which no session is open.
            changes.retain(|_, changes| Arc::strong_count(changes) > 1);
        }
        changes.entry((target.connection.clone(), target.database.clone())).or_default().clone()
    }

    /// Whether the catalogue may be loaded anew because it does not have `name`; it counts as done.
    pub(crate) fn may_refresh(&self, now: Timestamp, target: &Target, name: &str) -> bool {
        let mut asked = self.asked.lock();
        let key = (target.connection.clone(), target.database.clone(), name.to_owned());
        let recent = |at: &Timestamp| u128::from(now.micros_since(*at)) < UNRESOLVED_REFRESH_MIN.as_micros();
        if asked.get(&key).is_some_and(recent) {
            return false;
        }
        if asked.len() >= ASKED_MAX {
            asked.retain(|_, at| recent(at));
        }
        if asked.len() >= ASKED_MAX {
            return false;
        }
        asked.insert(key, now);
        true
    }

    /// What the active mask rules hide in `target` from whoever `sees` some of the classes.
    pub(crate) fn mask_view(
        &self,
        active: &Active,
        target: &Target,
        catalog: Option<&Arc<Catalog>>,
        sees: impl Fn(&str) -> bool,
    ) -> MaskView {
        if !active.masks.covers(&target.connection) {
            return MaskView::Nothing;
        }
        let Some(catalog) = catalog else { return MaskView::Blind };
        MaskView::new(self.plan(active, target, catalog), sees)
    }

    fn plan(&self, active: &Active, target: &Target, catalog: &Arc<Catalog>) -> Arc<MaskPlan> {
        let key = (target.connection.clone(), target.database.clone());
        let fits = |plan: &&Plan| Arc::ptr_eq(&plan.catalog, catalog) && plan.masks_generation == active.masks_generation;
        if let Some(known) = self.plans.lock().get(&key).filter(fits) {
            return known.plan.clone();
        }
        // Made without the lock: sessions on other targets do not wait. Two may make the same one.
        let plan = Arc::new(MaskPlan::build(&active.masks, &target.connection, catalog));
        let made = Plan { catalog: catalog.clone(), masks_generation: active.masks_generation, plan: plan.clone() };
        self.plans.lock().insert(key, made);
        plan
    }
}
