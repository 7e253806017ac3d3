//! What waits to be written to one peer: small pieces are copied together, large ones are not copied.

use crate::limits::COALESCE_BELOW;
use crate::socket::Stream;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Memory that an empty queue keeps (4 KiB): most statements and their answers fit.
const RETAINED_MAX: usize = 4 << 10;

/// A queue of bytes for one peer.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    queued: usize,
    needs_flush: bool,
}

impl Output {
    /// Appends `bytes`.
    pub fn push(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        if bytes.len() < COALESCE_BELOW {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(bytes);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued
    }

    /// Whether nothing waits, and what was written has left the process.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued == 0 && !self.needs_flush
    }

    /// Writes until nothing waits (`Ready`) or the peer takes no more (`Pending`).
    pub fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(chunk) = self.chunks.front_mut() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, chunk))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.needs_flush = true;
            self.queued -= n;
            chunk.advance(n);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        while !self.tail.is_empty() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, &self.tail))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.needs_flush = true;
            self.queued -= n;
            if n == self.tail.len() {
                self.tail.clear();
            } else {
                self.tail.advance(n);
            }
        }
        if self.needs_flush {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        if self.tail.capacity() > RETAINED_MAX || self.chunks.capacity() > 64 {
            self.release();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes everything that waits: a handshake's task writes it before it begins.
    #[must_use]
    pub fn take(&mut self) -> BytesMut {
        let mut all = BytesMut::with_capacity(self.queued);
        for chunk in self.chunks.drain(..) {
            all.extend_from_slice(&chunk);
        }
        all.extend_from_slice(&self.tail);
        *self = Self::default();
        all
    }

    /// Gives back memory that a burst has left.
    fn release(&mut self) {
        if self.queued == 0 && self.tail.capacity() > 0 {
            self.tail = BytesMut::new();
            self.chunks = VecDeque::new();
        }
    }
}
