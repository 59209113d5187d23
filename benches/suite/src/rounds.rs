//! Interleaved rounds: floor, dlock, peer, floor, … so that what else the machine does meets all of them alike.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;

use crate::spread::Spread;

/// Does an operation so often, and says how long that took.
pub(crate) type Run = Box<dyn FnMut(u32) -> BoxFuture<'static, Result<Duration>>>;

/// Times operations that follow each other, one by one.
///
/// The typical time is the median: on a machine that does something else too, the mean of short operations is mostly what
/// the few of them cost that were interrupted for milliseconds.
pub(crate) struct Stopwatch {
    last: Instant,
    laps: Vec<Duration>,
}

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch {
            laps: Vec::new(),
            last: Instant::now(),
        }
    }

    /// One operation has ended.
    pub(crate) fn lap(&mut self) {
        let now = Instant::now();
        self.laps.push(now.duration_since(self.last));
        self.last = now;
    }

    /// The time that all of them would take, if each were like the median.
    pub(crate) fn typical(mut self) -> Duration {
        self.laps.sort_unstable();
        let median = self.laps.get(self.laps.len() / 2).copied();
        let count = u32::try_from(self.laps.len()).unwrap_or(u32::MAX);
        median.unwrap_or_default() * count
    }
}

/// One of those that are compared.
pub(crate) struct Contender {
    pub(crate) name: String,
    run: Run,
}

impl Contender {
    pub(crate) fn new<F>(
        name: impl Into<String>,
        mut run: impl FnMut(u32) -> F + 'static,
    ) -> Contender
    where
        F: Future<Output = Result<Duration>> + Send + 'static,
    {
        Contender {
            name: name.into(),
            run: Box::new(move |count| Box::pin(run(count))),
        }
    }

    /// The time of `count` operations.
    pub(crate) async fn run(&mut self, count: u32) -> Result<Duration> {
        (self.run)(count)
            .await
            .with_context(|| format!("while `{}` was measured", self.name))
    }
}

/// What the rounds of one contender measured.
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// Microseconds for one operation.
    pub(crate) micros: Spread,
    /// The time of this one ÷ the time of the first, round by round.
    pub(crate) ratio: Spread,
}

/// Runs all contenders in turn, `rounds` times; the first is what the others are compared with.
///
/// In each round each of them does as many operations as fit into `slice`, so all have the same share of the time.
pub(crate) async fn interleave(
    contenders: &mut [Contender],
    rounds: usize,
    slice: Duration,
) -> Result<Vec<Outcome>> {
    let mut counts = Vec::new();
    for contender in &mut *contenders {
        counts.push(fitting(contender, slice).await?);
    }
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for ((contender, count), times) in contenders.iter_mut().zip(&counts).zip(&mut times) {
            let time = contender.run(*count).await?;
            times.push(time.as_secs_f64() * 1e6 / f64::from(*count));
        }
    }
    let base = times.first().cloned().unwrap_or_default();
    let outcome = |(contender, times): (&Contender, &Vec<f64>)| Outcome {
        name: contender.name.clone(),
        micros: Spread::of(times.iter().copied()),
        ratio: Spread::of(times.iter().zip(&base).map(|(time, base)| time / base)),
    };
    Ok(contenders.iter().zip(&times).map(outcome).collect())
}

/// How many operations fill the slice; finding out warms everything up.
async fn fitting(contender: &mut Contender, slice: Duration) -> Result<u32> {
    let mut count = 1;
    loop {
        let time = contender.run(count).await?;
        if time >= slice / 4 || count >= 1 << 20 {
            let fit = f64::from(count) * slice.as_secs_f64() / time.as_secs_f64();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to what fits"
            )]
            return Ok(fit.clamp(1.0, f64::from(1 << 22)) as u32);
        }
        count *= 2;
    }
}
