//! Why a token is refused.

use crate::limits::{CLAIMS_MAX, ROLES_MAX, TOKEN_MAX};
use proxy_core::Timestamp;
use proxy_core::session::LoginRefusal;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why a token is refused. The display form is the whole reason, for the record; [`Self::public`] is what the
/// caller may see. Neither holds any part of the token but `iss`, `aud`, `kid`, `alg` and `tid`, shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than the limit.
    #[error("the token is {0} bytes long; the limit is {TOKEN_MAX}")]
    TooLong(usize),
    /// Not a signed JSON Web Token.
    #[error("not a signed JSON Web Token: {0}")]
    Malformed(Malformed),
    /// Its `alg` is not accepted: `none`, a symmetric one, or unknown.
    #[error("the signature algorithm {0:?} is not accepted")]
    Algorithm(String),
    /// Its header has `crit`: an extension that must be understood, and is not.
    #[error("the token's header demands an extension (\"crit\")")]
    CriticalExtension,
    /// Its type says that it is something else: an ID token, a refresh token.
    #[error("the token's type is {0:?}, not an access token's")]
    WrongType(String),
    /// No `[[issuer]]` has its `iss`.
    #[error("the issuer {0:?} is not configured")]
    UnknownIssuer(String),
    /// None of the issuer's keys has its `kid`.
    #[error("issuer {issuer:?} has no key {kid:?}")]
    UnknownKey {
        /// The issuer's name.
        issuer: String,
        /// The token's `kid`; `None`: it names none, and not exactly one key fits.
        kid: Option<String>,
    },
    /// The key that it names is for another algorithm.
    #[error("key {kid:?} of issuer {issuer:?} is not for the algorithm {algorithm}")]
    KeyMismatch {
        /// The issuer's name.
        issuer: String,
        /// The token's `kid`.
        kid: Option<String>,
        /// The token's `alg`.
        algorithm: String,
    },
    /// The key signs for another issuer (Entra).
    #[error("the signing key belongs to the issuer {0:?}")]
    KeyOfOtherIssuer(String),
    /// The signature does not hold.
    #[error("the signature does not hold (issuer {0:?})")]
    BadSignature(String),
    /// A claim that is needed is missing, or not of its type.
    #[error("the claim {0:?} is missing, empty or malformed")]
    Claim(&'static str),
    /// Meant for somebody else.
    #[error("the audience is {got:?}; issuer {issuer:?} accepts {accepted:?}")]
    WrongAudience {
        /// The issuer's name.
        issuer: String,
        /// The token's `aud`.
        got: Vec<String>,
        /// What is accepted.
        accepted: Vec<String>,
    },
    /// Expired.
    #[error("the token expired at {at}", at = rfc3339(*.since))]
    Expired {
        /// When.
        since: Timestamp,
    },
    /// Not valid yet, even with the configured skew.
    #[error("the token is valid from {at} on; check the clocks", at = rfc3339(*.from))]
    NotYetValid {
        /// From when.
        from: Timestamp,
    },
    /// Issued longer ago than the issuer's `token_age_max`.
    #[error("the token was issued at {at}, too long ago", at = rfc3339(*.issued))]
    TooOld {
        /// When.
        issued: Timestamp,
    },
    /// Its `tid` is not the tenant of its `iss` (Entra).
    #[error("the tenant {0:?} does not belong to the issuer")]
    WrongTenant(String),
    /// It has no role (Entra).
    #[error("the token has no roles: the application was not assigned one")]
    MissingRoles,
    /// More roles than the limit, or too long ones.
    #[error("the token has more than {ROLES_MAX} roles, or one that is too long")]
    TooManyRoles,
    /// More scalar claims than the limit.
    #[error("the token has more than {CLAIMS_MAX} scalar claims")]
    TooManyClaims,
    /// It is bound to a key (`cnf`), whose possession cannot be proved here.
    #[error("the token is bound to its holder's key (\"cnf\"), which cannot be checked here")]
    SenderConstrained,
    /// The issuer's keys cannot be had, or only such as are too old.
    #[error("the keys of issuer {issuer:?} cannot be had: {cause}")]
    KeysUnavailable {
        /// The issuer's name.
        issuer: String,
        /// Why.
        cause: String,
    },
}

/// What is malformed in a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not three parts.
    #[error("it does not consist of three parts")]
    Parts,
    /// The header is not base64url of a JSON object, or `alg` or another member is not a text.
    #[error("its header cannot be read")]
    Header,
    /// The claims are not base64url of a JSON object.
    #[error("its claims cannot be read")]
    Claims,
    /// A name occurs twice: readers would differ on which one counts.
    #[error("a name occurs twice in it")]
    Duplicate,
    /// The signature is not base64url.
    #[error("its signature cannot be read")]
    Signature,
}

impl TokenError {
    /// What the caller may see: a sentence, and what to do.
    #[must_use]
    pub fn public(&self) -> (String, &'static str) {
        match self {
            Self::TooLong(_) => (self.to_string(), "ask the issuer for a token with fewer claims"),
            Self::Malformed(_) => (
                "the password is neither a token nor a machine key".to_owned(),
                "send the access token, or a machine key, as the password",
            ),
            Self::Algorithm(_) | Self::CriticalExtension | Self::SenderConstrained => {
                (self.to_string(), "ask the issuer for a bearer token signed with RS256, ES256 or EdDSA")
            }
            Self::WrongType(_) => (self.to_string(), "send the access token"),
            Self::UnknownIssuer(_) => {
                ("the token's issuer is not accepted here".to_owned(), "use a token of a configured issuer")
            }
            Self::UnknownKey { .. } | Self::KeyMismatch { .. } | Self::KeyOfOtherIssuer(_) | Self::BadSignature(_) => (
                "the token's signature cannot be verified".to_owned(),
                "get a new token; if that fails too, ask the gateway's administrator",
            ),
            Self::Claim(name) => {
                (format!("the token's claim \"{name}\" is missing or malformed"), "ask the issuer's administrator")
            }
            Self::WrongAudience { .. } => (
                "the token is not meant for this gateway: its audience is another".to_owned(),
                "ask the issuer for a token with the gateway's audience",
            ),
            Self::Expired { .. } => (self.to_string(), "get a new token"),
            Self::NotYetValid { .. } => (self.to_string(), "check the clocks of the issuer and the gateway"),
            Self::TooOld { .. } => (self.to_string(), "get a new token"),
            Self::WrongTenant(_) => ("the token's tenant is not accepted here".to_owned(), "use a token of a configured tenant"),
            Self::MissingRoles => {
                (self.to_string(), "assign a role of the gateway's application to the caller, and get a new token")
            }
            Self::TooManyRoles | Self::TooManyClaims => (self.to_string(), "ask the issuer's administrator for a smaller token"),
            Self::KeysUnavailable { .. } => {
                ("the token cannot be verified now: its issuer's keys are out of reach".to_owned(), "try again in a minute")
            }
        }
    }

    /// The sort of refusal.
    #[must_use]
    pub fn refusal(&self) -> LoginRefusal {
        if matches!(self, Self::KeysUnavailable { .. }) { LoginRefusal::Unavailable } else { LoginRefusal::Credential }
    }

    /// A short fixed word: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::Malformed(_) => "malformed",
            Self::Algorithm(_) => "algorithm",
            Self::CriticalExtension => "critical_extension",
            Self::WrongType(_) => "wrong_type",
            Self::UnknownIssuer(_) => "unknown_issuer",
            Self::UnknownKey { .. } => "unknown_key",
            Self::KeyMismatch { .. } | Self::KeyOfOtherIssuer(_) => "key_mismatch",
            Self::BadSignature(_) => "bad_signature",
            Self::Claim(_) => "claim",
            Self::WrongAudience { .. } => "wrong_audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::TooOld { .. } => "too_old",
            Self::WrongTenant(_) => "wrong_tenant",
            Self::MissingRoles => "missing_roles",
            Self::TooManyRoles | Self::TooManyClaims => "limit",
            Self::SenderConstrained => "sender_constrained",
            Self::KeysUnavailable { .. } => "keys_unavailable",
        }
    }
}

/// The moment in UTC, to the second.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(at.seconds()).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| format!("second {}", at.seconds()))
}

/// A peer's text, shortened and without control characters: for messages and the record.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 128;
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN_MAX {
            shown.push('…');
            break;
        }
        shown.push(if character.is_control() { '\u{fffd}' } else { character });
    }
    shown
}
