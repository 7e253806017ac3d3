//! Asking all witnesses of a log at once.

use super::client::{WitnessClient, WitnessError, WitnessSetupError};
use crate::config::WitnessConfig;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tlog::{Hash, Note};

/// How long the others are waited for once enough witnesses have cosigned: who is slow is not to hold up the log, and who is
/// a little slower is not to be left out.
const GRACE: Duration = Duration::from_secs(2);

/// One witness, and the size that it is believed to have cosigned last.
#[derive(Debug)]
struct Asked {
    client: WitnessClient,
    known: AtomicU64,
}

/// The witnesses of a log.
#[derive(Debug)]
pub struct Witnesses {
    all: Vec<Asked>,
    min: usize,
}

/// A checkpoint, and who has cosigned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The checkpoint as it was given, with a line of each witness in `by`, in the order of the configuration.
    pub note: String,
    /// The names of those who have cosigned.
    pub by: Vec<String>,
    /// The names of those who have not, and why.
    pub missing: Vec<(String, WitnessError)>,
    /// A witness that has cosigned more entries than the checkpoint has: the log must not go on.
    pub ahead: Option<(String, u64)>,
    /// A witness that has cosigned, up to that size, other entries than the log has: the log must not go on.
    pub forked: Option<(String, u64)>,
    /// Whether as many have cosigned as must.
    pub enough: bool,
}

impl Witnesses {
    /// Those of a configuration; `min` of them must cosign.
    ///
    /// # Errors
    /// [`WitnessSetupError`].
    pub fn new(witnesses: &[WitnessConfig], min: usize) -> Result<Self, WitnessSetupError> {
        let asked = |config| Ok(Asked { client: WitnessClient::new(config)?, known: AtomicU64::new(0) });
        Ok(Self { all: witnesses.iter().map(asked).collect::<Result<_, _>>()?, min })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many must cosign.
    #[must_use]
    pub fn min(&self) -> usize {
        self.min
    }

    /// Asks all witnesses to cosign the checkpoint `note`, which the log has signed, at the same time, and returns when all
    /// have answered, when enough have and the others were waited for a little, or when none takes longer than it may (12
    /// seconds). `proof`: as in [`WitnessClient::cosign`].
    ///
    /// Call it with checkpoints of one log in the order of their sizes, one call at a time: a witness that has cosigned a
    /// later one is ahead of an earlier one. `note` has the log's signatures alone: each call adds the cosignatures anew.
    pub async fn cosign(&self, note: &str, proof: impl Fn(u64, u64) -> Option<Vec<Hash>> + Sync) -> Cosigned {
        let mut answers: Vec<Option<Result<String, WitnessError>>> = vec![None; self.all.len()];
        let mut asked: FuturesUnordered<_> = self.all.iter().enumerate().map(|(at, one)| one.ask(at, note, &proof)).collect();
        let (mut cosigned, mut left) = (0, None);
        loop {
            if cosigned >= self.min && left.is_none() {
                left = Some(tokio::time::Instant::now() + GRACE);
            }
            let next = match left {
                Some(until) => tokio::time::timeout_at(until, asked.next()).await.unwrap_or(None),
                None => asked.next().await,
            };
            let Some((at, answer)) = next else { break };
            cosigned += usize::from(answer.is_ok());
            answers[at] = Some(answer);
        }
        drop(asked);
        self.sum_up(note, answers)
    }

    fn sum_up(&self, note: &str, answers: Vec<Option<Result<String, WitnessError>>>) -> Cosigned {
        let mut sum = Cosigned { note: note.to_owned(), by: vec![], missing: vec![], ahead: None, forked: None, enough: false };
        for (one, answer) in self.all.iter().zip(answers) {
            let name = one.client.name().to_owned();
            let error = match answer.unwrap_or(Err(WitnessError::TimedOut)) {
                Ok(line) => {
                    sum.note.push_str(&line);
                    sum.by.push(name);
                    continue;
                }
                Err(error) => error,
            };
            if let WitnessError::Ahead { size } = error {
                sum.ahead.get_or_insert((name.clone(), size));
            }
            if let WitnessError::Forked { size } = error {
                sum.forked.get_or_insert((name.clone(), size));
            }
            sum.missing.push((name, error));
        }
        sum.enough = sum.by.len() >= self.min;
        sum
    }
}

impl Asked {
    async fn ask(
        &self,
        at: usize,
        note: &str,
        proof: &(impl Fn(u64, u64) -> Option<Vec<Hash>> + Sync),
    ) -> (usize, Result<String, WitnessError>) {
        let answer = self.client.cosign(note, self.known.load(Ordering::Relaxed), proof).await;
        if answer.is_ok()
            && let Ok(note) = Note::parse(note.as_bytes())
            && let Ok(checkpoint) = note.checkpoint()
        {
            self.known.store(checkpoint.size, Ordering::Relaxed);
        }
        (at, answer)
    }
}
