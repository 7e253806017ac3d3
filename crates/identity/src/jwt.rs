//! A signed JSON Web Token in compact form (RFC 7519, RFC 7515 §7.1), taken apart before anything of it is trusted.

use crate::error::{Malformed, TokenError, shown};
use crate::jwks::algorithm;
use crate::limits::TOKEN_MAX;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use proxy_core::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// A token's parts. Nothing of it is verified.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) algorithm_name: String,
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Claims,
    /// Header and claims as they stand in the token: what is signed.
    pub(crate) signed: &'a str,
    /// The signature, base64url.
    pub(crate) signature: &'a str,
}

impl<'a> Unverified<'a> {
    pub(crate) fn parse(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::TooLong(token.len()));
        }
        let parts = || TokenError::Malformed(Malformed::Parts);
        let token = std::str::from_utf8(token).map_err(|_| parts())?;
        let (signed, signature) = token.rsplit_once('.').ok_or_else(parts)?;
        let (header, claims) = signed.split_once('.').ok_or_else(parts)?;
        if claims.contains('.') {
            return Err(parts());
        }
        let header = object(header, Malformed::Header)?;
        let (algorithm_name, algorithm) = check_header(&header)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= 1024 => Some(id.clone()),
            Some(_) => return Err(TokenError::Malformed(Malformed::Header)),
        };
        let claims = Claims(object(claims, Malformed::Claims)?);
        if URL_SAFE_NO_PAD.decode(signature).map_or(true, |bytes| bytes.is_empty()) {
            return Err(TokenError::Malformed(Malformed::Signature));
        }
        Ok(Self { algorithm, algorithm_name, key_id, claims, signed, signature })
    }
}

fn check_header(header: &Map<String, Value>) -> Result<(String, Algorithm), TokenError> {
    let malformed = || TokenError::Malformed(Malformed::Header);
    let name = header.get("alg").and_then(Value::as_str).ok_or_else(malformed)?;
    let algorithm = algorithm(name).ok_or_else(|| TokenError::Algorithm(shown(name)))?;
    // RFC 7515 §4.1.11: an extension that is not understood makes the token invalid, and we understand none.
    if header.contains_key("crit") {
        return Err(TokenError::CriticalExtension);
    }
    // RFC 7515 §4.1.9: `application/` may be left out; RFC 9068 §2.1: at+jwt.
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) => {
            let lower = kind.to_ascii_lowercase();
            if !matches!(lower.strip_prefix("application/").unwrap_or(&lower), "jwt" | "at+jwt") {
                return Err(TokenError::WrongType(shown(kind)));
            }
        }
        Some(_) => return Err(malformed()),
    }
    // RFC 7519 §5.2: a token within a token.
    match header.get("cty") {
        None => Ok((name.to_owned(), algorithm)),
        Some(kind) => Err(TokenError::WrongType(shown(kind.as_str().unwrap_or("?")))),
    }
}

fn object(part: &str, what: Malformed) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed(what))?;
    let object: Object = serde_json::from_slice(&json).map_err(|_| TokenError::Malformed(what))?;
    if object.duplicate { Err(TokenError::Malformed(Malformed::Duplicate)) } else { Ok(object.members) }
}

/// A JSON object that notices names which occur twice (RFC 7519 §4 lets readers refuse them).
struct Object {
    members: Map<String, Value>,
    duplicate: bool,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut object = Object { members: Map::new(), duplicate: false };
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    object.duplicate |= object.members.insert(name, value).is_some();
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A token's claims.
#[derive(Debug, Clone)]
pub(crate) struct Claims(pub(crate) Map<String, Value>);

impl Claims {
    /// A text that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// One text, or a list of texts (`aud`).
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Value::String(text) => Some(vec![text]),
            Value::Array(list) => list.iter().map(Value::as_str).collect(),
            _ => None,
        }
    }

    /// A moment (RFC 7519 §2, NumericDate: seconds, fractions allowed). `Ok(None)`: there is no such claim.
    pub(crate) fn moment(&self, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
        // Beyond the year 9999 there is only nonsense.
        const SECONDS_MAX: i64 = 253_402_300_799;
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let refuse = || TokenError::Claim(name);
        let moment = match (value.as_i64(), value.as_f64()) {
            (Some(seconds), _) if (0..=SECONDS_MAX).contains(&seconds) => Timestamp::from_seconds(seconds),
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range was just checked")]
            (None, Some(seconds)) if (0.0..=SECONDS_MAX as f64).contains(&seconds) => Timestamp((seconds * 1e6) as i64),
            _ => return Err(refuse()),
        };
        Ok(Some(moment))
    }

    /// The value at a name, or at a path with dots. A name that itself has dots (`https://example.com/roles`) wins.
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(path) {
            return Some(value);
        }
        let mut steps = path.split('.');
        let mut value = self.0.get(steps.next()?)?;
        for step in steps {
            value = value.get(step)?;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    fn parse(header: &str, claims: &str) -> Result<(), TokenError> {
        Unverified::parse(format!("{}.{}.c2ln", part(header), part(claims)).as_bytes()).map(|_| ())
    }

    #[test]
    fn types_of_access_tokens_are_accepted_and_others_are_not() {
        for good in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"] {
            assert_eq!(parse(&format!(r#"{{"alg":"RS256","typ":"{good}"}}"#), "{}"), Ok(()), "{good}");
        }
        assert_eq!(parse(r#"{"alg":"RS256"}"#, "{}"), Ok(()));
        for bad in ["dpop+jwt", "logout+jwt", "secevent+jwt", ""] {
            let header = format!(r#"{{"alg":"RS256","typ":"{bad}"}}"#);
            assert_eq!(parse(&header, "{}"), Err(TokenError::WrongType(bad.to_owned())));
        }
        assert!(matches!(parse(r#"{"alg":"RS256","cty":"JWT"}"#, "{}"), Err(TokenError::WrongType(_))));
    }

    #[test]
    fn algorithms_outside_the_list_are_refused_before_anything_else() {
        for bad in ["none", "None", "HS256", "HS512", "RS1", "PS384", "PS512", "ES512", "ES256K", "rs256", ""] {
            let got = parse(&format!(r#"{{"alg":"{bad}"}}"#), "not json");
            assert_eq!(got, Err(TokenError::Algorithm(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let bad = |token: &str| Unverified::parse(token.as_bytes()).map(|_| ()).unwrap_err();
        for token in ["", ".", "a.b", "a", "a.b.c.d", "\u{1f980}"] {
            assert_eq!(bad(token), TokenError::Malformed(Malformed::Parts), "{token}");
        }
        assert_eq!(Unverified::parse(&[0xff, 0xfe]).map(|_| ()).unwrap_err(), TokenError::Malformed(Malformed::Parts));
        assert_eq!(bad("..").to_owned(), TokenError::Malformed(Malformed::Header));
        assert_eq!(bad("e30=.e30.c2ln"), TokenError::Malformed(Malformed::Header), "padding");
        let header = part(r#"{"alg":"ES256"}"#);
        assert_eq!(bad(&format!("{header}.e30.")), TokenError::Malformed(Malformed::Signature));
        assert_eq!(bad(&format!("{header}.e30.!!")), TokenError::Malformed(Malformed::Signature));
        for claims in ["[]", "1", "{", "{}{}", "\"x\"", "null"] {
            assert_eq!(parse(r#"{"alg":"ES256"}"#, claims), Err(TokenError::Malformed(Malformed::Claims)), "{claims}");
        }
        for header in ["[]", r#"{"typ":"JWT"}"#, r#"{"alg":1}"#, r#"{"alg":"ES256","kid":1}"#, r#"{"alg":"ES256","typ":1}"#] {
            assert_eq!(parse(header, "{}"), Err(TokenError::Malformed(Malformed::Header)), "{header}");
        }
    }

    #[test]
    fn names_that_occur_twice_are_refused() {
        let twice = Err(TokenError::Malformed(Malformed::Duplicate));
        assert_eq!(parse(r#"{"alg":"ES256","alg":"RS256"}"#, "{}"), twice);
        assert_eq!(parse(r#"{"alg":"ES256"}"#, r#"{"sub":"a","s\u0075b":"b"}"#), twice);
    }

    #[test]
    fn critical_extensions_are_refused() {
        assert_eq!(parse(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, "{}"), Err(TokenError::CriticalExtension));
        assert_eq!(parse(r#"{"alg":"ES256","crit":[]}"#, "{}"), Err(TokenError::CriticalExtension));
    }

    #[test]
    fn a_token_beyond_the_limit_is_refused_unread() {
        assert_eq!(Unverified::parse(&vec![b'.'; TOKEN_MAX + 1]).map(|_| ()), Err(TokenError::TooLong(TOKEN_MAX + 1)));
    }

    #[test]
    fn moments() {
        let claims = |json: &str| Claims(serde_json::from_str::<Map<String, Value>>(json).unwrap());
        assert_eq!(claims(r#"{"exp":12}"#).moment("exp"), Ok(Some(Timestamp(12_000_000))));
        assert_eq!(claims(r#"{"exp":12.5}"#).moment("exp"), Ok(Some(Timestamp(12_500_000))));
        assert_eq!(claims("{}").moment("exp"), Ok(None));
        for bad in ["\"12\"", "-1", "1e300", "null", "[1]", "99999999999999999999", "-0.5", "253402300800"] {
            let got = claims(&format!(r#"{{"exp":{bad}}}"#)).moment("exp");
            assert_eq!(got, Err(TokenError::Claim("exp")), "{bad}");
        }
    }

    #[test]
    fn a_path_with_dots_and_a_name_with_dots() {
        let json = r#"{"realm_access":{"roles":["a"]},"https://x.example/roles":["b"]}"#;
        let claims = Claims(serde_json::from_str(json).unwrap());
        assert_eq!(claims.at("realm_access.roles"), Some(&serde_json::json!(["a"])));
        assert_eq!(claims.at("https://x.example/roles"), Some(&serde_json::json!(["b"])));
        assert_eq!(claims.at("realm_access.groups"), None);
        assert_eq!(claims.at("none.roles"), None);
    }
}
