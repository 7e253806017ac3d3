//! How far a long reading is: one line on a terminal that is written over, nothing elsewhere.

use crate::cli::Output;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Cells of the bar.
const WIDTH: u64 = 30;

/// A bar on standard error; it is wiped away when dropped.
pub(super) struct Progress {
    all: u64,
    started: Instant,
    shown: bool,
    visible: bool,
}

impl Progress {
    /// For `all` entries. It stays invisible unless standard error is a terminal, and with `--json`.
    pub(super) fn new(output: &Output, all: u64) -> Self {
        Self { all, started: Instant::now(), shown: false, visible: !output.json() && std::io::stderr().is_terminal() }
    }

    /// `done` of them are done.
    pub(super) fn show(&mut self, done: u64) {
        if self.visible {
            self.shown = true;
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r{}", bar(done, self.all, self.started.elapsed())).and_then(|()| err.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, all: u64, took: Duration) -> String {
    let part = |whole: u64| u128::from(done.min(all)) * u128::from(whole) / u128::from(all.max(1));
    let full = usize::try_from(part(WIDTH)).unwrap_or(0);
    let rest = usize::try_from(WIDTH).unwrap_or(0).saturating_sub(full);
    let rate = u128::from(done) * 1_000 / took.as_millis().max(1);
    format!("[{}{}] {:3} %  {done} of {all} entries, {rate}/s ", "#".repeat(full), " ".repeat(rest), part(100))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn the_bar_fills_up() {
        let bar = |done, all| super::bar(done, all, Duration::from_secs(2));
        assert_eq!(bar(0, 10), format!("[{}]   0 %  0 of 10 entries, 0/s ", " ".repeat(30)));
        assert_eq!(bar(5, 10), format!("[{}{}]  50 %  5 of 10 entries, 2/s ", "#".repeat(15), " ".repeat(15)));
        assert_eq!(bar(10, 10), format!("[{}] 100 %  10 of 10 entries, 5/s ", "#".repeat(30)));
        assert!(bar(0, 0).contains("  0 %"));
        assert!(bar(u64::MAX, u64::MAX).contains("100 %"));
        assert!(super::bar(5, 10, Duration::ZERO).contains("5000/s"));
    }
}
