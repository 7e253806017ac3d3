//! `sallyport serve`: the gateway.

use super::Failure;
use std::path::Path;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    crate::serve::run(file)
}
