//! For tests: keys that sign by themselves, and a small HTTP server on loopback.

use crate::http::HttpClient;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// 2026-11-24T12:00:00Z, roughly.
pub(crate) const NOW: i64 = 1_795_521_600;

pub(crate) fn now() -> proxy_core::Timestamp {
    proxy_core::Timestamp::from_seconds(NOW)
}

pub(crate) fn http() -> HttpClient {
    static CLIENT: OnceLock<HttpClient> = OnceLock::new();
    CLIENT.get_or_init(|| HttpClient::new(None).unwrap()).clone()
}

pub(crate) enum TestKey {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl TestKey {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero().to_vec();
                let e = public.exponent().big_endian_without_leading_zero().to_vec();
                json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
            }
            Self::P256(pair) | Self::P384(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": if x.len() == 32 { "P-256" } else { "P-384" }, "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
        };
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let encoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &rng, message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&rng, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub(crate) fn token_with_header(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    pub(crate) fn token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        self.token_with_header(&json!({"alg": algorithm, "kid": kid, "typ": "JWT"}), claims)
    }
}

pub(crate) fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// What the server does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    Json(String),
    Raw(&'static str),
    Endless,
    Silence,
}

/// Replies and requests seen, by path.
type Paths = (HashMap<String, Reply>, HashMap<String, usize>);

/// A server on loopback. It answers what it was told to, and counts.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) base: String,
    state: Arc<parking_lot::Mutex<Paths>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { base, state: Arc::default() };
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(shared.clone().serve(socket));
            }
        });
        server
    }

    /// A provider whose discovery document and keys are in order.
    pub(crate) async fn provider(keys: &[Value]) -> Self {
        let server = Self::start().await;
        let document = json!({"issuer": server.base, "jwks_uri": format!("{}/keys", server.base)});
        server.set("/.well-known/openid-configuration", Reply::Json(document.to_string()));
        server.set("/keys", Reply::Json(key_set(keys)));
        server
    }

    pub(crate) fn set(&self, path: &str, reply: Reply) {
        self.state.lock().0.insert(path.to_owned(), reply);
    }

    pub(crate) fn hits(&self, path: &str) -> usize {
        self.state.lock().1.get(path).copied().unwrap_or(0)
    }

    async fn serve(self, mut socket: tokio::net::TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1024];
            match socket.read(&mut byte).await {
                Ok(count) if count > 0 => request.extend_from_slice(&byte[..count]),
                _ => return,
            }
        }
        let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
        let reply = {
            let mut state = self.state.lock();
            *state.1.entry(path.clone()).or_default() += 1;
            state.0.get(&path).cloned()
        };
        let head =
            |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        match reply {
            None => drop(socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await),
            Some(Reply::Json(body)) => {
                // So that logins at the same time meet the same fetch.
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(socket.write_all(format!("{}{body}", head(body.len())).as_bytes()).await);
            }
            Some(Reply::Raw(text)) => drop(socket.write_all(text.as_bytes()).await),
            Some(Reply::Endless) => {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while socket.write_all(&[b' '; 65536]).await.is_ok() {}
            }
            Some(Reply::Silence) => tokio::time::sleep(Duration::from_secs(60)).await,
        }
    }
}
