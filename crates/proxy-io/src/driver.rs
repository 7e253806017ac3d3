//! One task per session: reads, feeds the state machine, carries out its actions, writes.
//!
//! Turns are given by the task and by the committer ([`turns`]). A turn is one `poll` function that makes progress on everything that can: control messages, the answer
//! that is awaited, writes, reads. It polls only what woke it ([`wakes`]), and reads from a peer only while the
//! other takes what it is sent.

mod actions;
mod decide;
mod turns;
mod wakes;

use crate::Committer;
use crate::clock;
use crate::commit::{Sequence, Submission};
use crate::limits::{CLOSE_TIMEOUT, CONTROL_QUEUE, OUTPUT_HIGH_WATER, PENDING_INPUT_MAX, POOLED_BUFFERS, READ_BUFFER};
use crate::output::Output;
use crate::registry::Control;
use crate::services::{LoginConversation, Opened, PeerInfo, Services};
use crate::socket::{Socket, Stream};
use crate::worker::ListenerSpec;
use bytes::BytesMut;
use proxy_core::session::{CancelKey, CloseReason, EndReason, Input, LoginAttempt, Peer, Session, TlsInfo};
use proxy_core::{Request, SessionAuthorizer, Timestamp};
use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;
use turns::Turns;
use wakes::{Ready, Source, Wakes};

/// What a session's task starts with.
pub struct Setup {
    /// The accepted connection.
    pub socket: Socket,
    /// The protocol's state machine.
    pub session: Box<dyn Session>,
    /// Where it comes from.
    pub peer: PeerInfo,
    /// The cancel key that it may offer.
    pub cancel_key: CancelKey,
    /// Its place among the logins under way.
    pub admission: Box<dyn Any + Send>,
    /// Its listener.
    pub spec: Arc<ListenerSpec>,
    /// Everything else.
    pub services: Arc<Services>,
    /// The worker's committer.
    pub committer: Arc<Committer>,
}

/// Runs one session to its end.
pub async fn run(setup: Setup) {
    let (control, mailbox) = mpsc::channel(CONTROL_QUEUE);
    setup.services.registry.enter(setup.peer.session, control);
    let turns = Turns::new(setup, mailbox);
    if let Some((driver, reason)) = poll_fn(|cx| turns.poll(cx)).await {
        driver.finish(reason).await;
    }
}

/// One side of the session.
#[derive(Debug, Default)]
struct Side {
    /// `None`: not connected (yet), or lent to a handshake.
    stream: Option<Stream>,
    buffer: BytesMut,
    output: Output,
    /// It sends no more.
    ended: bool,
    /// Its bytes were offered, and nothing has changed since.
    offered: bool,
    /// It takes no more now.
    blocked: bool,
    moved: u64,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Login,
    Expiry,
    Session,
    Closing,
}

/// Timers of a session. One `Sleep` waits for the earliest.
#[derive(Debug, Default)]
struct Deadlines {
    at: [Option<Instant>; 4],
    /// One was set since the timer was.
    changed: bool,
}

impl Deadlines {
    fn set(&mut self, deadline: Deadline, at: Option<Instant>) {
        self.at[deadline as usize] = at;
        self.changed = true;
    }

    /// Whether it is over at that time: it is not set any more then.
    fn take_due(&mut self, deadline: Deadline, at: Instant) -> bool {
        self.at[deadline as usize].take_if(|due| *due <= at).is_some()
    }

    /// The earliest.
    fn next(&self) -> Option<Instant> {
        self.at.iter().flatten().min().copied()
    }
}

struct Driver {
    session: Box<dyn Session>,
    peer: PeerInfo,
    cancel_key: CancelKey,
    admission: Option<Box<dyn Any + Send>>,
    spec: Arc<ListenerSpec>,
    services: Arc<Services>,
    committer: Arc<Committer>,
    mailbox: mpsc::Receiver<Control>,
    /// For the committer, which resumes the session.
    turns: Weak<Turns>,
    /// Which sources are to be polled.
    ready: Ready,
    client: Side,
    upstream: Side,
    tls: Option<TlsInfo>,
    upstream_tls: Option<TlsInfo>,
    login: Option<Box<dyn LoginConversation>>,
    attempt: Option<LoginAttempt>,
    opened: Option<Box<Opened>>,
    authorizer: Option<Box<dyn SessionAuthorizer>>,
    answers: Option<Box<dyn crate::UpstreamAnswers>>,
    /// What the session waits for: a handshake, a login, a connection. Boxed: never per statement.
    operation: Option<Pin<Box<dyn Future<Output = actions::Done> + Send>>>,
    /// Requests to be decided, in order.
    undecided: VecDeque<Box<Request>>,
    deciding: decide::Deciding,
    /// Memory for what is submitted, and for what was: used for each statement, and empty in between.
    submissions: Vec<Submission>,
    decided: Vec<decide::Decided>,
    sequence: Sequence,
    requests: Arc<AtomicU64>,
    started: bool,
    login_recorded: bool,
    deadlines: Deadlines,
    sleep: Pin<Box<Sleep>>,
    closing: Option<CloseReason>,
    /// When this turn began.
    now: Timestamp,
}

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A buffer with room for one read.
fn lease(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        *buffer = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
    // From its beginning again, where nothing refers to what it had: the same memory is in the processor's cache.
    if buffer.is_empty() && buffer.capacity() < READ_BUFFER && buffer.try_reclaim(READ_BUFFER) {
        return;
    }
    if buffer.capacity() - buffer.len() < READ_BUFFER / 4 {
        buffer.reserve(READ_BUFFER);
    }
}

/// Gives an empty buffer back.
fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > 0 {
        let buffer = std::mem::take(buffer);
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED_BUFFERS && buffer.capacity() <= 2 * READ_BUFFER {
                pool.push(buffer);
            }
        });
    }
}

fn source(peer: Peer) -> Source {
    match peer {
        Peer::Client => Source::Client,
        Peer::Upstream => Source::Upstream,
    }
}

/// What one read found.
enum Read {
    /// Bytes; whether more are there is not known.
    Some,
    /// Bytes, and no more for now.
    Last,
    End,
}

fn poll_read(stream: &mut Stream, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
    lease(buffer);
    match poll_read_buf(Pin::new(stream), cx, buffer) {
        Poll::Ready(Ok(0)) => Poll::Ready(Ok(Read::End)),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(if stream.is_drained(cx) { Read::Last } else { Read::Some })),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => {
            give_back(buffer);
            Poll::Pending
        }
    }
}

impl Driver {
    fn new(setup: Setup, mailbox: mpsc::Receiver<Control>, turns: Weak<Turns>) -> Self {
        let Setup { socket, session, peer, cancel_key, admission, spec, services, committer } = setup;
        let login = services.authenticate.begin(peer.clone());
        let deadline = Instant::now() + spec.login_timeout;
        let mut deadlines = Deadlines::default();
        deadlines.set(Deadline::Login, Some(deadline));
        Self {
            session,
            peer,
            cancel_key,
            admission: Some(admission),
            services,
            committer,
            mailbox,
            turns,
            ready: Ready::ALL,
            client: Side { stream: Some(Stream::Plain(socket)), ..Side::default() },
            upstream: Side::default(),
            tls: None,
            upstream_tls: None,
            login: Some(login),
            attempt: None,
            opened: None,
            authorizer: None,
            answers: None,
            operation: None,
            undecided: VecDeque::new(),
            deciding: decide::Deciding::Idle,
            submissions: Vec::new(),
            decided: Vec::new(),
            sequence: Sequence::default(),
            requests: Arc::default(),
            started: false,
            login_recorded: false,
            deadlines,
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
            closing: None,
            now: clock::now(),
            spec,
        }
    }

    /// Makes all the progress that can be made; `Ready` when the session is over.
    fn poll(&mut self, now: Timestamp, wakes: &Wakes, woken: Ready) -> Poll<CloseReason> {
        self.now = now;
        self.ready.add(woken);
        self.client.blocked &= !woken.has(Source::Client);
        self.upstream.blocked &= !woken.has(Source::Upstream);
        loop {
            let mut progress = self.poll_control(wakes);
            progress |= self.poll_deadlines(wakes);
            if self.closing.is_none() {
                progress |= self.poll_side(Peer::Client, wakes);
                progress |= self.poll_side(Peer::Upstream, wakes);
            }
            // What was read may have asked for it, and what is sent may depend on it.
            progress |= self.poll_answer(wakes);
            progress |= self.poll_outputs(wakes);
            if let Some(reason) = self.over() {
                return Poll::Ready(reason);
            }
            let again = self.deadlines.changed || (progress && self.has_more());
            if !again {
                return Poll::Pending;
            }
        }
    }

    /// Whether another round may find something to do, now that one has had its effects. Mailbox and timer are always
    /// asked until they have nothing.
    fn has_more(&self) -> bool {
        let unread = |side: &Side| !side.offered && !side.buffer.is_empty();
        let unsent = |side: &Side| side.stream.is_some() && !side.blocked && !side.output.is_empty();
        let polled = [Source::Client, Source::Upstream, Source::Answer].into_iter().any(|source| self.ready.has(source));
        polled || self.is_undecided() || [&self.client, &self.upstream].into_iter().any(|side| unread(side) || unsent(side))
    }

    /// Whether a request can be decided.
    fn is_undecided(&self) -> bool {
        !self.undecided.is_empty() && matches!(self.deciding, decide::Deciding::Idle)
    }

    /// What the session waits for: an operation, a decision.
    fn poll_answer(&mut self, wakes: &Wakes) -> bool {
        if !self.ready.has(Source::Answer) && !self.is_undecided() {
            return false;
        }
        // Each is polled until it has nothing, or is over. What begins meanwhile sets the mark again.
        self.ready.clear(Source::Answer);
        let mut cx = wakes.context(Source::Answer);
        self.poll_operation(&mut cx) | self.poll_decision(&mut cx)
    }

    /// The reason, when the session is closing and nothing is left to write.
    fn over(&self) -> Option<CloseReason> {
        let reason = self.closing.as_ref()?;
        let flushed = |side: &Side| side.stream.is_none() || side.output.is_empty();
        let busy = self.operation.is_some() && self.client.stream.is_none();
        (!busy && flushed(&self.client) && flushed(&self.upstream)).then(|| reason.clone())
    }

    fn side(&mut self, peer: Peer) -> &mut Side {
        match peer {
            Peer::Client => &mut self.client,
            Peer::Upstream => &mut self.upstream,
        }
    }

    /// Feeds one input and carries out what follows.
    fn feed(&mut self, input: Input<'_>) {
        let now = self.now;
        self.session.handle(now, input);
        self.carry_out(now);
    }

    /// Offers a peer's unread bytes to the session. What it takes may make the other's takeable.
    fn offer(&mut self, peer: Peer) {
        let now = self.now;
        let (side, other) = match peer {
            Peer::Client => (&mut self.client, &mut self.upstream),
            Peer::Upstream => (&mut self.upstream, &mut self.client),
        };
        let before = side.buffer.len();
        side.offered = true;
        self.session.handle(now, Input::Bytes { from: peer, buffer: &mut side.buffer });
        if side.buffer.len() != before {
            other.offered = false;
        }
        self.carry_out(now);
    }

    /// Something changed for the session: bytes that it left may be wanted now.
    fn offer_again(&mut self) {
        self.client.offered = false;
        self.upstream.offered = false;
    }

    fn poll_control(&mut self, wakes: &Wakes) -> bool {
        let mut progress = false;
        while self.closing.is_none() && self.ready.has(Source::Mailbox) {
            let Poll::Ready(Some(control)) = self.mailbox.poll_recv(&mut wakes.context(Source::Mailbox)) else {
                self.ready.clear(Source::Mailbox);
                break;
            };
            progress = true;
            match control {
                Control::End(reason) => self.end(reason),
                Control::Drain => {
                    self.feed(Input::Drain);
                    self.offer_again();
                }
                Control::Cancel => {
                    self.feed(Input::Cancel);
                    self.offer_again();
                }
                Control::Recheck => self.recheck(),
            }
        }
        progress
    }

    fn end(&mut self, reason: EndReason) {
        self.abandon_requests();
        self.feed(Input::End(reason.clone()));
        if self.closing.is_none() {
            self.close(CloseReason::Ended(reason));
        }
    }

    fn recheck(&mut self) {
        let now = clock::now();
        let Some(opened) = &self.opened else { return };
        if let Err(reason) = self.services.authenticate.still_valid(&opened.principal, now) {
            // A credential that only expired may be outlived where the connection says so.
            let outlives = reason == EndReason::Expired && opened.expires.is_none();
            if !outlives {
                self.end(reason);
                return;
            }
        }
        let Some(authorizer) = &mut self.authorizer else { return };
        if authorizer.still_connected(now).is_err() {
            self.end(EndReason::PolicyChanged);
        }
    }

    fn poll_deadlines(&mut self, wakes: &Wakes) -> bool {
        let mut progress = false;
        loop {
            let due = self.ready.has(Source::Timer);
            if !std::mem::take(&mut self.deadlines.changed) && !due {
                return progress;
            }
            let Some(next) = self.deadlines.next() else { return progress };
            // A timer that is set for earlier is left: when it goes off, it is set for what is next then. So a
            // deadline that every request puts off costs nothing.
            if next < self.sleep.deadline() || (due && next != self.sleep.deadline()) {
                self.sleep.as_mut().reset(next);
            } else if !due {
                return progress;
            }
            if self.sleep.as_mut().poll(&mut wakes.context(Source::Timer)).is_pending() {
                self.ready.clear(Source::Timer);
                return progress;
            }
            self.ready.set(Source::Timer);
            progress = true;
            self.deadline_passed(next);
        }
    }

    fn deadline_passed(&mut self, at: Instant) {
        if self.deadlines.take_due(Deadline::Closing, at) {
            // The peer does not take what is left: it is dropped.
            self.client.output = Output::default();
            self.upstream.output = Output::default();
            self.operation = None;
            self.client.stream = None;
            self.upstream.stream = None;
        }
        if self.deadlines.take_due(Deadline::Login, at) {
            self.end(EndReason::LoginTimeout);
        }
        if self.deadlines.take_due(Deadline::Expiry, at) {
            // The clock may have been set back meanwhile: what counts is the wall clock.
            let now = clock::now();
            let expires = self.opened.as_ref().and_then(|opened| opened.expires);
            match expires {
                Some(expires) if expires > now => self.expire_at(expires, now),
                Some(_) => self.end(EndReason::Expired),
                None => {}
            }
        }
        if self.deadlines.take_due(Deadline::Session, at) {
            self.feed(Input::Deadline);
            self.offer_again();
        }
    }

    /// Sets the timer for the credential's expiry: at most a minute ahead, so that a clock that jumps is noticed.
    fn expire_at(&mut self, expires: Timestamp, now: Timestamp) {
        let left = Duration::from_micros(expires.micros_since(now)).min(Duration::from_secs(60));
        self.deadlines.set(Deadline::Expiry, Some(Instant::now() + left));
    }

    /// Reads from one peer, if the other takes more, and feeds the session.
    fn poll_side(&mut self, peer: Peer, wakes: &Wakes) -> bool {
        let source = source(peer);
        let side = self.side(peer);
        if (side.offered || side.buffer.is_empty()) && !self.ready.has(source) {
            return false;
        }
        let mut progress = false;
        let waiting = self.is_waiting();
        let message_max = self.spec.message_max;
        let other_full = match peer {
            Peer::Client => self.upstream.output.len() >= OUTPUT_HIGH_WATER,
            Peer::Upstream => self.client.output.len() >= OUTPUT_HIGH_WATER,
        };
        let side = self.side(peer);
        if !side.offered && !side.buffer.is_empty() && !other_full && side.stream.is_some() {
            self.offer(peer);
            give_back(&mut self.side(peer).buffer);
            progress = true;
            if self.closing.is_some() {
                return progress;
            }
        }
        let side = self.side(peer);
        // What a session leaves while nothing is decided is one long frame; otherwise it is further requests.
        let room = if waiting { PENDING_INPUT_MAX } else { message_max.saturating_add(READ_BUFFER) };
        if side.ended || other_full || side.buffer.len() >= room || !self.ready.has(source) {
            return progress;
        }
        let side = self.side(peer);
        let Some(stream) = &mut side.stream else { return progress };
        match poll_read(stream, &mut side.buffer, &mut wakes.context(source)) {
            Poll::Pending => {
                self.ready.clear(source);
                progress
            }
            Poll::Ready(Ok(Read::Some)) => {
                self.offer(peer);
                true
            }
            Poll::Ready(Ok(Read::Last)) => {
                self.ready.clear(source);
                self.offer(peer);
                give_back(&mut self.side(peer).buffer);
                true
            }
            Poll::Ready(Ok(Read::End)) => {
                side.ended = true;
                self.feed(Input::Eof { from: peer });
                true
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(session = %self.peer.session, ?peer, %error, "reading failed");
                self.side(peer).ended = true;
                self.feed(Input::Eof { from: peer });
                true
            }
        }
    }

    fn poll_outputs(&mut self, wakes: &Wakes) -> bool {
        let mut progress = false;
        for peer in [Peer::Upstream, Peer::Client] {
            let side = self.side(peer);
            let Some(stream) = &mut side.stream else { continue };
            if side.output.is_empty() || side.blocked {
                continue;
            }
            let before = side.output.len();
            let polled = side.output.poll_write(stream, &mut wakes.context(source(peer)));
            side.blocked = polled.is_pending();
            let written = before - side.output.len();
            side.moved += written as u64;
            // Room again: the other peer may be read on.
            progress |= before >= OUTPUT_HIGH_WATER && side.output.len() < OUTPUT_HIGH_WATER;
            if let Poll::Ready(Err(error)) = polled {
                side.output = Output::default();
                side.stream = None;
                tracing::debug!(session = %self.peer.session, ?peer, %error, "writing failed");
                progress = true;
                if self.closing.is_none() {
                    self.end(EndReason::PeerFailed(peer));
                }
            }
        }
        progress
    }

    /// Begins to close; what was sent goes out first, for a limited time.
    fn close(&mut self, reason: CloseReason) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(reason);
        self.abandon_requests();
        // A handshake has the client's socket, or the client is gone: nothing can be said, and what else comes of it is
        // no longer wanted.
        if self.client.stream.is_none() {
            self.operation = None;
        }
        self.deadlines = Deadlines::default();
        self.deadlines.set(Deadline::Closing, Some(Instant::now() + CLOSE_TIMEOUT));
    }

    /// Says goodbye, records the end.
    async fn finish(mut self, reason: CloseReason) {
        self.services.metrics.closed(self.peer.protocol, &reason);
        self.services.metrics.moved(self.upstream.moved, self.client.moved);
        self.record_end(&reason);
        // The upstream first: it need not wait for a slow client.
        for side in [&mut self.upstream, &mut self.client] {
            if let Some(mut stream) = side.stream.take() {
                let _ = tokio::time::timeout(LINGER, linger(&mut stream)).await;
            }
        }
        self.services.registry.leave(self.peer.session, &self.cancel_key);
    }
}

/// Longest wait for a peer to read the last words (500 ms).
const LINGER: Duration = Duration::from_millis(500);

/// Says that no more comes, and reads until the peer has closed: a connection that is closed with unread bytes is
/// reset, and the reset can overtake the last error.
async fn linger(stream: &mut Stream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut waste = [0; 4_096];
    while stream.read(&mut waste).await? > 0 {}
    Ok(())
}
