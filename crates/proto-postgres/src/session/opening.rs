//! The decision to open the session: its permit is the session's housekeeping permit.

use super::login::Caller;
use super::upstream_login::UpstreamLogin;
use super::{Core, State};
use crate::facts;
use crate::reply::{self, Severity};
use proxy_core::session::{Answer, UpstreamLogin as Target};
use proxy_core::{CloseReason, Input, RequestId};

/// Waiting for the verdict on `connect`.
#[derive(Debug)]
pub(super) struct Opening {
    caller: Caller,
    target: Target,
}

impl Opening {
    /// Asks.
    pub(super) fn begin(core: &mut Core, caller: Caller, target: Target) -> State {
        core.decide(facts::connect(caller.replication));
        State::Opening(Box::new(Self { caller, target }))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "`otherwise` lists every input")]
    pub(super) fn handle(self: Box<Self>, core: &mut Core, input: Input<'_>) -> State {
        match input {
            Input::Verdict { request: RequestId(0), verdict } => match verdict {
                Answer::Permitted { permit, disclosure: _ } => UpstreamLogin::begin(core, self.caller, self.target, permit),
                Answer::Held(notice) => {
                    core.send_client(reply::held(&notice));
                    State::Opening(self)
                }
                Answer::Denied(denial) => {
                    core.send_client(reply::denial(Severity::Fatal, &denial));
                    core.close(CloseReason::LoginRefused)
                }
            },
            input => core.otherwise(input, State::Opening(self)),
        }
    }
}
