use super::super::{ScramServer, ScramVerifier};
use super::*;
use proptest::prelude::*;

fn cache() -> Arc<SaltedPasswords> {
    Arc::new(SaltedPasswords::new().unwrap())
}

fn auth(password: &str, binding: Option<Vec<u8>>) -> UpstreamAuth {
    UpstreamAuth::new("gateway", SecretBytes::new(password.into()), cache(), binding)
}

fn start(mechanisms: &[&str]) -> UpstreamChallenge {
    UpstreamChallenge::SaslStart(mechanisms.iter().map(|name| (*name).to_owned()).collect())
}

fn split(answer: &SecretBytes) -> (String, Vec<u8>) {
    let zero = answer.expose().iter().position(|byte| *byte == 0).unwrap();
    (String::from_utf8(answer.expose()[..zero].to_vec()).unwrap(), answer.expose()[zero + 1..].to_vec())
}

/// A whole login against our own server side.
fn log_in(
    auth: &mut UpstreamAuth,
    offered: &[&str],
    server_binding: Option<Vec<u8>>,
    password: &[u8],
) -> Result<String, UpstreamFailure> {
    let mut server = ScramServer::new(ScramVerifier::for_password(password).unwrap(), server_binding);
    let (mechanism, first) = split(&auth.answer(start(offered))?);
    let challenge = server.first(&mechanism, &first).map_err(|_| UpstreamFailure::Credential)?;
    let proof = auth.answer(UpstreamChallenge::SaslContinue(challenge))?;
    assert!(!auth.may_complete(), "the server has not proved itself yet");
    let last = server.last(proof.expose()).map_err(|_| UpstreamFailure::Credential)?;
    let answer = auth.answer(UpstreamChallenge::SaslFinal(last))?;
    assert!(answer.expose().is_empty());
    assert!(auth.may_complete());
    Ok(mechanism)
}

const BOTH: &[&str] = &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256];

#[test]
fn channel_binding_is_used_where_it_can_be() {
    let binding = || Some(vec![9; 32]);
    assert_eq!(log_in(&mut auth("p", binding()), BOTH, binding(), b"p").unwrap(), SCRAM_SHA_256_PLUS);
    assert_eq!(log_in(&mut auth("p", None), BOTH, binding(), b"p").unwrap(), SCRAM_SHA_256);
    assert_eq!(log_in(&mut auth("p", binding()), &[SCRAM_SHA_256], None, b"p").unwrap(), SCRAM_SHA_256);
    // Another certificate than ours, and an offer that was removed on the way.
    assert!(log_in(&mut auth("p", Some(vec![8; 32])), BOTH, binding(), b"p").is_err());
    assert!(log_in(&mut auth("p", binding()), &[SCRAM_SHA_256], binding(), b"p").is_err());
}

#[test]
fn channel_binding_can_be_required() {
    let mut missing = auth("p", Some(vec![9; 32])).require_binding(true);
    assert!(!missing.may_complete(), "not without a login either");
    assert_eq!(missing.answer(start(&[SCRAM_SHA_256])), Err(UpstreamFailure::Credential));
    assert_eq!(missing.error(), Some(&UpstreamAuthError::BindingRequired));
    let mut md5 = auth("p", Some(vec![9; 32])).require_binding(true).allow_cleartext(true);
    assert_eq!(md5.answer(UpstreamChallenge::Md5([0; 4])), Err(UpstreamFailure::Credential));
    let mut good = auth("p", Some(vec![9; 32])).require_binding(true);
    assert!(log_in(&mut good, BOTH, Some(vec![9; 32]), b"p").is_ok());
}

/// RFC 7677 §3, from the client's side. PostgreSQL's user name in the exchange is empty, so only the derived
/// values are the RFC's.
#[test]
fn the_keys_of_rfc_7677() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let salted = cache().salted(b"pencil", &salt, NonZeroU32::new(4096).unwrap());
    let auth_message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let key = client_key(&salted);
    let proof = xor(&key, &hmac_sha256(&sha256(&*key), auth_message.as_bytes()));
    assert_eq!(STANDARD.encode(proof.as_slice()), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let signature = hmac_sha256(&*server_key(&salted), auth_message.as_bytes());
    assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn our_proof_is_the_one_of_another_implementation() {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    let mut theirs = ScramSha256::new("I\u{ad}X".as_bytes(), ChannelBinding::unsupported());
    let nonce = String::from_utf8(theirs.message().to_vec()).unwrap().split_once("r=").unwrap().1.to_owned();
    let mut ours = auth("I\u{ad}X", None);
    ours.begin(vec![SCRAM_SHA_256.to_owned()], nonce.clone()).unwrap();
    let challenge = format!("r={nonce}SERVER,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=8192").into_bytes();
    theirs.update(&challenge).unwrap();
    let proof = ours.answer(UpstreamChallenge::SaslContinue(challenge)).unwrap();
    assert_eq!(proof.expose(), theirs.message());
}

#[test]
fn md5_and_cleartext() {
    // From PostgreSQL: md5(md5('secret' || 'gateway') || salt).
    let mut md5 = auth("secret", None);
    let answer = md5.answer(UpstreamChallenge::Md5([1, 2, 3, 4])).unwrap();
    assert!(answer.expose().starts_with(b"md5") && answer.expose().len() == 35);
    assert!(md5.may_complete());
    let mut refused = auth("secret", None);
    assert_eq!(refused.answer(UpstreamChallenge::Cleartext), Err(UpstreamFailure::Credential));
    assert_eq!(refused.error(), Some(&UpstreamAuthError::Cleartext));
    let mut allowed = auth("secret", None).allow_cleartext(true);
    assert_eq!(allowed.answer(UpstreamChallenge::Cleartext).unwrap().expose(), b"secret");
    assert_eq!(allowed.answer(UpstreamChallenge::Cleartext), Err(UpstreamFailure::Protocol), "once");
}

fn continue_with(text: &str) -> (Result<SecretBytes, UpstreamFailure>, Option<UpstreamAuthError>) {
    let mut auth = auth("p", None);
    auth.begin(vec![SCRAM_SHA_256.to_owned()], "mine".to_owned()).unwrap();
    let got = auth.answer(UpstreamChallenge::SaslContinue(text.into()));
    (got, auth.error().cloned())
}

#[test]
fn a_hostile_server_s_first_message() {
    for (count, accepted) in [
        ("4096", true),
        ("1000000", true),
        ("4095", false),
        ("1", false),
        ("0", false),
        ("1000001", false),
        ("4294967297", false),
    ] {
        let (got, error) = continue_with(&format!("r=mineX,s=AAAA,i={count}"));
        assert_eq!(got.is_ok(), accepted, "{count}");
        assert_eq!(matches!(error, Some(UpstreamAuthError::Iterations(_))), !accepted, "{count}");
    }
    for bad in [
        "r=mine,s=AAAA,i=4096",
        "r=other,s=AAAA,i=4096",
        "r=mineX,s=,i=4096",
        "r=mineX,s=!,i=4096",
        "r=mineX,s=AAAA",
        "r=mineX,s=AAAA,i=-4096",
        "r=mineX,s=AAAA,i=+4096",
        "r=mineX,s=AAAA,i=99999999999999999999999",
        "m=x,r=mineX,s=AAAA,i=4096",
        "s=AAAA,r=mineX,i=4096",
        "r=mineX Y,s=AAAA,i=4096",
        "",
    ] {
        let (got, error) = continue_with(bad);
        assert_eq!(got, Err(UpstreamFailure::Protocol), "{bad}");
        assert!(matches!(error, Some(UpstreamAuthError::Malformed(_))), "{bad}: {error:?}");
    }
    assert!(continue_with(&format!("r=mineX,s={},i=4096", STANDARD.encode([0; 1025]))).0.is_err());
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    let proved = || {
        let mut auth = auth("p", None);
        auth.begin(vec![SCRAM_SHA_256.to_owned()], "mine".to_owned()).unwrap();
        auth.answer(UpstreamChallenge::SaslContinue(b"r=mineX,s=AAAA,i=4096".to_vec())).unwrap();
        auth
    };
    let last = |message: String| {
        let mut auth = proved();
        let got = auth.answer(UpstreamChallenge::SaslFinal(message.into_bytes()));
        assert!(!auth.may_complete());
        (got, auth.error().cloned().unwrap())
    };
    let forged = last(format!("v={}", STANDARD.encode([0; 32])));
    assert_eq!(forged, (Err(UpstreamFailure::Protocol), UpstreamAuthError::ServerProof));
    let refused = last("e=invalid-proof".to_owned());
    assert_eq!(refused, (Err(UpstreamFailure::Credential), UpstreamAuthError::Refused("invalid-proof".to_owned())));
    for bad in ["", "v=", "v=AAAA", "x"] {
        assert_eq!(last(bad.to_owned()).0, Err(UpstreamFailure::Protocol), "{bad}");
    }
    // Out of turn.
    let mut again = proved();
    assert_eq!(again.answer(UpstreamChallenge::SaslContinue(b"r=mineX,s=AAAA,i=4096".to_vec())), Err(UpstreamFailure::Protocol));
    assert_eq!(auth("p", None).answer(UpstreamChallenge::SaslFinal(b"v=AAAA".to_vec())), Err(UpstreamFailure::Protocol));
    let mut switched = proved();
    assert_eq!(switched.answer(UpstreamChallenge::Md5([0; 4])), Err(UpstreamFailure::Protocol), "no fall back in the middle");
}

#[test]
fn unsupported_mechanisms_and_unusable_passwords() {
    let mut other = auth("p", None);
    assert_eq!(other.answer(start(&["OAUTHBEARER"])), Err(UpstreamFailure::Credential));
    let mut plus_alone = auth("p", None);
    assert_eq!(plus_alone.answer(start(&[SCRAM_SHA_256_PLUS])), Err(UpstreamFailure::Credential));
    for bad in ["", "a\0b"] {
        let mut auth = auth(bad, None).allow_cleartext(true);
        assert_eq!(auth.answer(UpstreamChallenge::Cleartext), Err(UpstreamFailure::Credential));
        assert_eq!(auth.error(), Some(&UpstreamAuthError::Password));
    }
}

#[test]
fn salted_passwords_are_remembered_within_a_bound() {
    let cache = cache();
    let count = NonZeroU32::new(4096).unwrap();
    let few = NonZeroU32::new(1).unwrap();
    let first = cache.salted(b"p", b"salt", count);
    assert_eq!(*cache.salted(b"p", b"salt", count), *first);
    assert_eq!(cache.entries.lock().order.len(), 1);
    assert_ne!(*cache.salted(b"q", b"salt", count), *first, "a rotated password");
    assert_ne!(*cache.salted(b"p", b"tlas", count), *first);
    for salt in 0..SALTED_MAX as u32 + 10 {
        cache.salted(b"p", &salt.to_be_bytes(), few);
    }
    let entries = cache.entries.lock();
    assert_eq!((entries.order.len(), entries.salted.len()), (SALTED_MAX, SALTED_MAX));
}

#[test]
fn the_password_is_in_no_debug_output() {
    let cache = cache();
    let auth = UpstreamAuth::new("gateway", SecretBytes::new(b"hunter2".to_vec()), Arc::clone(&cache), None);
    cache.salted(b"hunter2", b"salt", NonZeroU32::new(1).unwrap());
    assert!(!format!("{auth:?}{cache:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn no_server_makes_it_panic(one in "[rsivemine=,A/0-9]{0,60}", two in proptest::collection::vec(any::<u8>(), 0..60)) {
        for (first, last) in [(one.as_bytes(), two.as_slice()), (two.as_slice(), one.as_bytes())] {
            let mut auth = auth("p", None);
            auth.begin(vec![SCRAM_SHA_256.to_owned()], "mine".to_owned()).unwrap();
            let _ = auth.answer(UpstreamChallenge::SaslContinue(first.to_vec()));
            prop_assert!(auth.answer(UpstreamChallenge::SaslFinal(last.to_vec())).is_err());
        }
    }
}
