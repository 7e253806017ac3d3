//! The policies that `sallyport init` writes: what a new user reads first.

use crate::problem::LoadError;
use crate::set::PolicySet;
use std::path::PathBuf;

/// File names and texts.
pub const STARTER: [(&str, &str); 3] = [
    ("10-access.cedar", include_str!("../starter/10-access.cedar")),
    ("20-safety.cedar", include_str!("../starter/20-safety.cedar")),
    ("30-data.cedar", include_str!("../starter/30-data.cedar")),
];

/// The starter policies as a set.
///
/// # Errors
/// They do not load. A test keeps that from being shipped.
pub fn starter() -> Result<PolicySet, LoadError> {
    PolicySet::parse(STARTER.map(|(name, text)| (PathBuf::from(name), text.to_owned())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_starter_policies_load_without_a_warning() {
        let set = super::starter().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(set.warnings(), &[]);
        assert_eq!(set.policies().iter().filter(|policy| policy.approval.is_some()).count(), 2);
        assert!(set.policies().iter().all(|policy| policy.description.is_some()), "each says what it is for");
    }
}
