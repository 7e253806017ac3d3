use super::*;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

const PASSWORD: &[u8] = b"sp_kabcdefghij_secret";

fn verifier() -> ScramVerifier {
    ScramVerifier::for_password(PASSWORD).unwrap()
}

/// An exchange with another implementation's client.
fn exchange(server: &mut ScramServer, mechanism: &str, mut client: ScramSha256) -> Result<(), ScramError> {
    let challenge = server.first(mechanism, client.message())?;
    client.update(&challenge).unwrap();
    let last = server.last(client.message())?;
    client.finish(&last).expect("the client believes the server");
    Ok(())
}

fn unbound() -> ChannelBinding {
    ChannelBinding::unrequested()
}

#[test]
fn another_implementation_s_client_logs_in() {
    let mut server = ScramServer::new(verifier(), None);
    assert_eq!(exchange(&mut server, SCRAM_SHA_256, ScramSha256::new(PASSWORD, unbound())), Ok(()), "y, and nothing offered");
    let mut server = ScramServer::new(verifier(), None);
    assert_eq!(exchange(&mut server, SCRAM_SHA_256, ScramSha256::new(PASSWORD, ChannelBinding::unsupported())), Ok(()));
    let mut server = ScramServer::new(verifier(), Some(vec![7; 32]));
    let bound = ChannelBinding::tls_server_end_point(vec![7; 32]);
    assert_eq!(exchange(&mut server, SCRAM_SHA_256_PLUS, ScramSha256::new(PASSWORD, bound)), Ok(()));
    let mut server = ScramServer::new(verifier(), Some(vec![7; 32]));
    assert_eq!(
        exchange(&mut server, SCRAM_SHA_256, ScramSha256::new(PASSWORD, ChannelBinding::unsupported())),
        Ok(()),
        "a client without channel binding may log in where it is offered"
    );
}

#[test]
fn a_wrong_password_and_a_mock_fail_in_the_same_way() {
    let mut server = ScramServer::new(verifier(), None);
    assert_eq!(exchange(&mut server, SCRAM_SHA_256, ScramSha256::new(b"wrong", unbound())), Err(ScramError::Proof));
    let mut doomed = ScramServer::doomed(ScramVerifier::mock(b"secret", "nobody"), None);
    assert_eq!(exchange(&mut doomed, SCRAM_SHA_256, ScramSha256::new(PASSWORD, unbound())), Err(ScramError::Proof));
    // Even if its verifier were satisfied.
    let mut doomed = ScramServer::doomed(verifier(), None);
    assert_eq!(exchange(&mut doomed, SCRAM_SHA_256, ScramSha256::new(PASSWORD, unbound())), Err(ScramError::Proof));
}

#[test]
fn somebody_between_is_noticed() {
    let mut server = ScramServer::new(verifier(), Some(vec![7; 32]));
    let other = ChannelBinding::tls_server_end_point(vec![8; 32]);
    assert_eq!(exchange(&mut server, SCRAM_SHA_256_PLUS, ScramSha256::new(PASSWORD, other)), Err(ScramError::Binding));
    // The offer of PLUS was removed on the way: the client says `y`.
    let mut server = ScramServer::new(verifier(), Some(vec![7; 32]));
    assert_eq!(exchange(&mut server, SCRAM_SHA_256, ScramSha256::new(PASSWORD, unbound())), Err(ScramError::Downgrade));
}

fn first(binding: Option<Vec<u8>>, mechanism: &str, message: &str) -> Result<String, ScramError> {
    let mut server = ScramServer::new(verifier(), binding);
    server.first_with_nonce(mechanism, message.as_bytes(), "SERVER").map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn first_messages() {
    let offered = || Some(vec![7; 32]);
    assert!(first(None, SCRAM_SHA_256, "n,,n=,r=abc").unwrap().starts_with("r=abcSERVER,s="));
    assert!(first(None, SCRAM_SHA_256, "n,,n=someone,r=abc,x=ignored").is_ok());
    assert!(first(offered(), SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,n=,r=abc").unwrap().ends_with(",i=4096"));
    assert_eq!(first(None, SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,n=,r=abc"), Err(ScramError::Mechanism));
    for mechanism in ["SCRAM-SHA-1", "PLAIN", "", "scram-sha-256"] {
        assert_eq!(first(offered(), mechanism, "n,,n=,r=abc"), Err(ScramError::Mechanism), "{mechanism}");
    }
    let malformed = [
        (SCRAM_SHA_256_PLUS, "n,,n=,r=abc"),
        (SCRAM_SHA_256_PLUS, "y,,n=,r=abc"),
        (SCRAM_SHA_256_PLUS, "p=tls-unique,,n=,r=abc"),
        (SCRAM_SHA_256, "p=tls-server-end-point,,n=,r=abc"),
        (SCRAM_SHA_256, "n,a=admin,n=,r=abc"),
        (SCRAM_SHA_256, "n,,m=ext,n=,r=abc"),
        (SCRAM_SHA_256, "n,,n=,r=abc,m=ext"),
        (SCRAM_SHA_256, "n,,n=,r=abc,1=x"),
        (SCRAM_SHA_256, "n,,n=,r=abc,"),
        (SCRAM_SHA_256, "n,,n=,r="),
        (SCRAM_SHA_256, "n,,n=,r=a b"),
        (SCRAM_SHA_256, "n,,n=,r=ä"),
        (SCRAM_SHA_256, "n,,n="),
        (SCRAM_SHA_256, "n,,r=abc"),
        (SCRAM_SHA_256, "n,,n=\0,r=abc"),
        (SCRAM_SHA_256, "z,,n=,r=abc"),
        (SCRAM_SHA_256, "n"),
        (SCRAM_SHA_256, ""),
    ];
    for (mechanism, message) in malformed {
        let got = first(offered(), mechanism, message);
        assert!(matches!(got, Err(ScramError::Malformed(_))), "{message:?}: {got:?}");
    }
    assert!(matches!(first(None, SCRAM_SHA_256, &format!("n,,n=,r={}", "a".repeat(257))), Err(ScramError::Malformed(_))));
    assert_eq!(first(None, SCRAM_SHA_256, &format!("n,,n=,r={}", "a".repeat(5000))), Err(ScramError::TooLong));
}

/// The exchange of RFC 7677 §3.
fn rfc_server() -> ScramServer {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let mut server = ScramServer::new(ScramVerifier::derive(b"pencil", &salt, super::super::ITERATIONS), None);
    let challenge = server.first_with_nonce(SCRAM_SHA_256, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert_eq!(String::from_utf8(challenge.unwrap()).unwrap(), expected);
    server
}

const RFC_NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

#[test]
fn the_exchange_of_rfc_7677() {
    let last = rfc_server().last(format!("c=biws,r={RFC_NONCE},p={RFC_PROOF}").as_bytes());
    assert_eq!(last.unwrap(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn last_messages() {
    let last = |message: &str| rfc_server().last(message.as_bytes());
    let (nonce, proof) = (RFC_NONCE, RFC_PROOF);
    assert_eq!(last(&format!("c=eSws,r={nonce},p={proof}")), Err(ScramError::Binding), "another flag than at first");
    assert_eq!(last(&format!("c=,r={nonce},p={proof}")), Err(ScramError::Binding));
    assert_eq!(last(&format!("c=biws,r={nonce}x,p={proof}")), Err(ScramError::Nonce));
    assert_eq!(last(&format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={proof}")), Err(ScramError::Nonce));
    let other = STANDARD.encode([0; 32]);
    assert_eq!(last(&format!("c=biws,r={nonce},p={other}")), Err(ScramError::Proof));
    assert_eq!(last(&format!("c=biws,r={nonce},x=y,p={proof}")), Err(ScramError::Proof), "an extension is signed too");
    for bad in [
        String::new(),
        format!("c=biws,r={nonce}"),
        format!("r={nonce},p={proof}"),
        format!("c=biws,p={proof}"),
        format!("c=biws,r={nonce},p=AAAA"),
        format!("c=biws,r={nonce},p={proof},x=y"),
        format!("c=biws,r={nonce},m=x,p={proof}"),
    ] {
        assert!(matches!(last(&bad), Err(ScramError::Malformed(_))), "{bad}");
    }
    assert_eq!(rfc_server().last(&[b'x'; 5000]), Err(ScramError::TooLong));
    assert!(matches!(rfc_server().last(&[0xff]), Err(ScramError::Malformed(_))));
}

#[test]
fn an_exchange_is_used_once() {
    let good = format!("c=biws,r={RFC_NONCE},p={RFC_PROOF}");
    let mut server = rfc_server();
    assert_eq!(server.first(SCRAM_SHA_256, b"n,,n=,r=abc"), Err(ScramError::Sequence));
    assert_eq!(server.last(good.as_bytes()), Err(ScramError::Sequence), "over after an error");
    let mut server = rfc_server();
    assert!(server.last(b"c=biws").is_err());
    assert_eq!(server.last(good.as_bytes()), Err(ScramError::Sequence), "one guess for each challenge");
    assert_eq!(ScramServer::new(verifier(), None).last(b""), Err(ScramError::Sequence));
}

#[test]
fn nonces_differ() {
    let nonces = (0..100).map(|_| nonce().unwrap()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(nonces.len(), 100);
    assert!(nonces.iter().all(|nonce| is_nonce(nonce)));
}

proptest! {
    #[test]
    fn no_messages_make_it_panic(one in proptest::collection::vec(any::<u8>(), 0..80), two in "[c=biws,rpn0-9+/ ]{0,80}") {
        let mock = ScramVerifier::mock(b"secret", "x");
        for (first, last) in [(one.as_slice(), two.as_bytes()), (two.as_bytes(), one.as_slice()), (b"n,,n=,r=a".as_slice(), two.as_bytes())] {
            let mut server = ScramServer::doomed(mock.clone(), None);
            let _ = server.first(SCRAM_SHA_256, first);
            prop_assert!(server.last(last).is_err());
        }
    }
}
