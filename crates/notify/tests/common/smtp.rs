//! A small SMTP server: takes one message for each connection, and keeps what was said.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Commands, each with whether it came within TLS.
    pub commands: Vec<(bool, String)>,
    /// The message, without the dots that SMTP adds.
    pub message: Option<String>,
}

#[derive(Clone, Default)]
pub struct Options {
    pub tls: Option<TlsAcceptor>,
    pub implicit: bool,
    pub starttls: bool,
    /// Said with the answer to STARTTLS, in the clear.
    pub injected: &'static str,
    /// The answers to RCPT, before 250.
    pub rcpt: Arc<Mutex<Vec<&'static str>>>,
    /// Instead of a greeting.
    pub greeting: Option<String>,
}

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    sessions: Arc<Mutex<Vec<Session>>>,
}

impl Server {
    pub async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), sessions: Arc::default() };
        let sessions = Arc::clone(&server.sessions);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (options, sessions) = (options.clone(), Arc::clone(&sessions));
                tokio::spawn(async move {
                    let mut session = Session::default();
                    talk(stream, &options, &mut session).await;
                    sessions.lock().push(session);
                });
            }
        });
        server
    }

    pub fn sessions(&self) -> Vec<Session> {
        self.sessions.lock().clone()
    }

    pub async fn wait_for(&self, count: usize) -> Vec<Session> {
        super::until("SMTP sessions", || Some(self.sessions()).filter(|all| all.len() >= count)).await
    }
}

async fn talk(mut stream: tokio::net::TcpStream, options: &Options, session: &mut Session) {
    if options.implicit {
        let Ok(stream) = options.tls.as_ref().unwrap().accept(stream).await else { return };
        serve(stream, options, session, true, true).await;
        return;
    }
    if serve(&mut stream, options, session, false, true).await {
        let Ok(stream) = options.tls.as_ref().unwrap().accept(stream).await else { return };
        serve(stream, options, session, true, false).await;
    }
}

/// Whether TLS begins now.
async fn serve<S>(stream: S, options: &Options, session: &mut Session, encrypted: bool, greet: bool) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    if greet {
        let greeting = options.greeting.clone().unwrap_or_else(|| "220 mail.test\r\n".to_owned());
        if stream.write_all(greeting.as_bytes()).await.is_err() {
            return false;
        }
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return false;
        }
        session.commands.push((encrypted, line.trim_end().to_owned()));
        let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" if options.starttls && !encrypted => "250-mail.test\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n".to_owned(),
            "EHLO" => "250-mail.test\r\n250 AUTH PLAIN LOGIN\r\n".to_owned(),
            "STARTTLS" => format!("220 go\r\n{}", options.injected),
            "AUTH" => "235 ok\r\n".to_owned(),
            "RCPT" => options.rcpt.lock().pop().unwrap_or("250 ok\r\n").to_owned(),
            "DATA" => "354 go\r\n".to_owned(),
            "QUIT" => "221 bye\r\n".to_owned(),
            _ => "250 ok\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        match verb.as_str() {
            "STARTTLS" => return true,
            "QUIT" => return false,
            "DATA" => {
                session.message = Some(message(&mut stream).await);
                stream.write_all(b"250 taken\r\n").await.unwrap();
                stream.flush().await.unwrap();
            }
            _ => {}
        }
    }
}

async fn message<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> String {
    let mut message = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line == ".\r\n" {
            return message;
        }
        message.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
