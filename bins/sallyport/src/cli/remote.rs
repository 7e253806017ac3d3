//! Asking the running gateway.

use super::{Failure, load};
use control_plane::client::{Client, ClientError};
use std::future::Future;
use std::path::Path;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let remedy = match &error {
            ClientError::NotRunning(_) => "; start it with `sallyport serve`, or name its configuration with `-c FILE`",
            ClientError::NotAllowed(_) | ClientError::Refused { .. } | ClientError::Broken(_) => "",
        };
        Self::finding(format!("{error}{remedy}"))
    }
}

/// The gateway of this configuration.
pub(super) fn gateway(file: &Path) -> Result<Client, Failure> {
    Ok(Client::new(&load(file)?.admin_socket()))
}

/// Runs a command's requests.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::finding(format!("no event loop: {error}")))?.block_on(work)
}

/// A part of a path or a query, with everything escaped that could mean something in it.
pub(super) use identity::form_encoded as encode;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_is_escaped() {
        assert_eq!(encode("dev/ci bot&x=é"), "dev%2Fci%20bot%26x%3D%C3%A9");
    }
}
