//! The target's credential: read when it is needed, held as a secret, never handed out.

use crate::config::Secret;
use identity::{SaltedPasswords, UpstreamAuth};
use proxy_core::SecretBytes;
use proxy_core::session::{UpstreamChallenge, UpstreamFailure};
use proxy_io::{UpstreamAnswers, UpstreamCredential};
use std::sync::Arc;

/// A connection's login name and password reference.
pub(super) struct Credential {
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) cache: Arc<SaltedPasswords>,
    /// Whether the password may be sent as it is: inside TLS to a verified server, or to this host.
    pub(super) cleartext: bool,
}

impl UpstreamCredential for Credential {
    fn begin(&self, server_end_point: Option<Vec<u8>>) -> Result<Box<dyn UpstreamAnswers>, UpstreamFailure> {
        let password = match &self.password {
            None => SecretBytes::new(Vec::new()),
            Some(secret) => secret.get().map_err(|error| {
                tracing::error!(%error, "a target's password cannot be read");
                UpstreamFailure::Credential
            })?,
        };
        let auth = UpstreamAuth::new(&self.user, password, self.cache.clone(), server_end_point).allow_cleartext(self.cleartext);
        Ok(Box::new(Answers(auth)))
    }
}

struct Answers(UpstreamAuth);

impl UpstreamAnswers for Answers {
    fn answer(&mut self, challenge: UpstreamChallenge) -> Result<SecretBytes, UpstreamFailure> {
        let answer = self.0.answer(challenge);
        if answer.is_err()
            && let Some(error) = self.0.error()
        {
            tracing::error!(%error, "the login to a target failed");
        }
        answer
    }
}
