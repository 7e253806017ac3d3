//! Which of a session's sources has something to say: only those are polled.
//!
//! Each source has a waker of its own, which marks the source and wakes the session's task. So a turn that a
//! peer's bytes began does not ask the timer, the mailbox and the other peer whether they had a part in it.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

/// A source of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Source {
    /// The client's stream, in both directions.
    Client,
    /// The upstream's stream, in both directions.
    Upstream,
    /// What the session waits for: an operation, a decision, the log.
    Answer,
    /// Kill, cancel and policy messages.
    Mailbox,
    /// The earliest deadline.
    Timer,
}

/// Sources that are to be polled. One leaves only when it was polled and had nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready(u8);

impl Ready {
    pub(super) const ALL: Self = Self((1 << (Source::Timer as u8 + 1)) - 1);

    pub(super) fn only(source: Source) -> Self {
        Self(bit(source))
    }

    pub(super) fn has(self, source: Source) -> bool {
        self.0 & bit(source) != 0
    }

    pub(super) fn set(&mut self, source: Source) {
        self.0 |= bit(source);
    }

    /// It was polled and had nothing: its waker will tell.
    pub(super) fn clear(&mut self, source: Source) {
        self.0 &= !bit(source);
    }

    pub(super) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

fn bit(source: Source) -> u8 {
    1 << source as u8
}

/// The wakers of a session's sources.
pub(super) struct Wakes {
    shared: Arc<Shared>,
    /// The task's own, as registered in `shared`.
    task: Option<Waker>,
    client: Waker,
    upstream: Waker,
    answer: Waker,
    mailbox: Waker,
    timer: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    /// Sources that woke the task since it last looked.
    woken: AtomicU8,
    task: Mutex<Option<Waker>>,
}

struct SourceWaker {
    shared: Arc<Shared>,
    source: Source,
}

impl Wake for SourceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever set the first mark wakes the task, and it has not looked yet.
        if self.shared.woken.fetch_or(bit(self.source), Ordering::AcqRel) == 0
            && let Some(task) = &*self.shared.task.lock()
        {
            task.wake_by_ref();
        }
    }
}

impl Wakes {
    pub(super) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        let waker = |source| Waker::from(Arc::new(SourceWaker { shared: shared.clone(), source }));
        Self {
            client: waker(Source::Client),
            upstream: waker(Source::Upstream),
            answer: waker(Source::Answer),
            mailbox: waker(Source::Mailbox),
            timer: waker(Source::Timer),
            task: None,
            shared,
        }
    }

    /// A turn begins: which sources woke the task since the last one.
    pub(super) fn begin(&mut self, cx: &Context<'_>) -> Ready {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            self.shared.task.lock().clone_from(&self.task);
        }
        Ready(self.shared.woken.swap(0, Ordering::AcqRel))
    }

    /// Wakes the task itself.
    pub(super) fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// For polling `source`.
    pub(super) fn context(&self, source: Source) -> Context<'_> {
        Context::from_waker(match source {
            Source::Client => &self.client,
            Source::Upstream => &self.upstream,
            Source::Answer => &self.answer,
            Source::Mailbox => &self.mailbox,
            Source::Timer => &self.timer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Ready, Source, Wakes};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_source_wakes_the_task_once_and_is_named() {
        let counting = Arc::<Counting>::default();
        let task = Waker::from(counting.clone());
        let mut wakes = Wakes::new();
        assert_eq!(wakes.begin(&Context::from_waker(&task)), Ready(0));
        wakes.context(Source::Upstream).waker().wake_by_ref();
        wakes.context(Source::Upstream).waker().wake_by_ref();
        wakes.context(Source::Timer).waker().wake_by_ref();
        assert_eq!(counting.0.load(Ordering::SeqCst), 1, "it is awake already");
        let woken = wakes.begin(&Context::from_waker(&task));
        assert!(woken.has(Source::Upstream) && woken.has(Source::Timer));
        assert!(!woken.has(Source::Client) && !woken.has(Source::Answer) && !woken.has(Source::Mailbox));
        wakes.context(Source::Client).waker().wake_by_ref();
        assert_eq!(counting.0.load(Ordering::SeqCst), 2, "it had looked meanwhile");
    }

    #[test]
    fn a_task_that_moved_is_woken_where_it_is() {
        let (old, new) = (Arc::<Counting>::default(), Arc::<Counting>::default());
        let mut wakes = Wakes::new();
        wakes.begin(&Context::from_waker(&Waker::from(old.clone())));
        wakes.begin(&Context::from_waker(&Waker::from(new.clone())));
        wakes.context(Source::Answer).waker().wake_by_ref();
        assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 1));
    }
}
