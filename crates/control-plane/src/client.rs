//! The command line's side of the API: HTTP over the gateway's own socket.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest answer that is held, in bytes (256 MiB): listings that can be longer are streamed.
const ANSWER_MAX: usize = 256 << 20;
/// Longest wait for the head of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the API did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gateway serves this folder.
    #[error("no gateway is running here: {} does not answer", .0.display())]
    NotRunning(PathBuf),
    /// The socket is there, and is not for this user.
    #[error("{} cannot be opened by this user; run it as the gateway's user, or as root", .0.display())]
    NotAllowed(PathBuf),
    /// The gateway refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The connection broke, or the answer is not one.
    #[error("the gateway's answer cannot be read: {0}")]
    Broken(String),
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// A gateway's socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the gateway of this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed(self.socket.clone()),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(self.socket.clone()),
            _ => broken(error),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let bytes = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header("host", "sallyport");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(bytes)).map_err(broken)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answer.map_err(|_| broken("none within a minute"))?.map_err(broken)
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        read(self.send(Method::GET, path, None).await?).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        read(self.send(Method::POST, path, Some(body)).await?).await
    }

    /// Asks for plain text: the status, and the text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<(u16, String), ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        let status = response.status().as_u16();
        let body = collect(response).await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Asks for a listing with one JSON document in each line, and hands over each as it comes.
    ///
    /// # Errors
    /// [`ClientError`], or what `each` returns.
    pub async fn lines<E: From<ClientError>>(&self, path: &str, each: impl FnMut(Value) -> Result<(), E>) -> Result<(), E> {
        take_lines(self.send(Method::GET, path, None).await.map_err(E::from)?, each).await
    }

    /// The same, of something to be done.
    ///
    /// # Errors
    /// [`ClientError`], or what `each` returns.
    pub async fn post_lines<E: From<ClientError>>(
        &self,
        path: &str,
        body: &Value,
        each: impl FnMut(Value) -> Result<(), E>,
    ) -> Result<(), E> {
        take_lines(self.send(Method::POST, path, Some(body)).await.map_err(E::from)?, each).await
    }
}

/// Hands over each line of an answer as it comes.
async fn take_lines<E: From<ClientError>>(
    response: Response<Incoming>,
    mut each: impl FnMut(Value) -> Result<(), E>,
) -> Result<(), E> {
    if !response.status().is_success() {
        read(response).await.map_err(E::from)?;
        return Ok(());
    }
    let mut body = response.into_body();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| E::from(broken(error)))?;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        let complete = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest.drain(..complete).as_slice().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value: Value = serde_json::from_slice(line).map_err(|error| E::from(broken(error)))?;
            if let Some(message) = value["error"].as_str().filter(|_| value.get("index").is_none()) {
                return Err(E::from(broken(message)));
            }
            each(value)?;
        }
    }
    Ok(())
}

impl Client {
    /// Asks for an answer of any length, and hands over its bytes as they come.
    ///
    /// # Errors
    /// [`ClientError`], or what `each` returns. An answer that breaks off is [`ClientError::Broken`].
    pub async fn bytes<E: From<ClientError>>(&self, path: &str, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let response = self.send(Method::GET, path, None).await.map_err(E::from)?;
        if !response.status().is_success() {
            read(response).await.map_err(E::from)?;
            return Ok(());
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| E::from(broken(error)))?;
            if let Some(data) = frame.data_ref() {
                each(data)?;
            }
        }
        Ok(())
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    Ok(Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(broken)?.to_bytes())
}

async fn read(response: Response<Incoming>) -> Result<Value, ClientError> {
    let status = response.status();
    let body = collect(response).await?;
    let value: Result<Value, _> = serde_json::from_slice(&body);
    if status == StatusCode::OK {
        return value.map_err(broken);
    }
    let message = value.ok().and_then(|value| value["error"].as_str().map(str::to_owned));
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
    Err(ClientError::Refused { status: status.as_u16(), message })
}
