//! Times, percentiles, and what the system says about this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Config, Error};
use crate::store::{Stats, Store};

/// What one measurement gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// How long all of it took.
    pub(super) took: Duration,
    /// How long each piece took.
    pub(super) each: Vec<Duration>,
    /// How many pieces there were.
    pub(super) pieces: usize,
    /// What the store wrote meanwhile.
    pub(super) wrote: Stats,
}

impl Measured {
    pub(super) fn per_s(&self) -> f64 {
        self.pieces as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Logical commits and arrivals: all that somebody waited for to become durable.
    pub(super) fn commits_per_s(&self) -> f64 {
        (self.wrote.logical_commits + self.wrote.arrivals) as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Runs `work` for 0, 1, … up to `pieces`, in so many tasks at once; `work` says how long what counts took.
pub(super) async fn spread<F, A>(
    store: &Store,
    (tasks, pieces): (usize, usize),
    (config, what): (&Config, &'static str),
    work: F,
) -> Result<Measured, Error>
where
    F: Fn(usize) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Duration, Error>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let before = store.stats();
    let mut set = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..tasks.clamp(1, pieces) {
        let (next, work, progress) = (Arc::clone(&next), work.clone(), Arc::clone(&config.progress));
        set.spawn(async move {
            let mut each = Vec::with_capacity(pieces / tasks.max(1) + 1);
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    return Ok::<_, Error>(each);
                }
                each.push(work(piece).await?);
                if piece.is_multiple_of(64) {
                    progress(what, piece as u64, pieces as u64);
                }
            }
        });
    }
    let mut each = Vec::with_capacity(pieces);
    while let Some(done) = set.join_next().await {
        each.append(&mut done??);
    }
    let took = begun.elapsed();
    Ok(Measured { took, each, pieces, wrote: since(before, store.stats()) })
}

pub(super) fn since(before: Stats, after: Stats) -> Stats {
    Stats {
        logical_commits: after.logical_commits - before.logical_commits,
        physical_commits: after.physical_commits - before.physical_commits,
        arrivals: after.arrivals - before.arrivals,
        physical_writes: after.physical_writes - before.physical_writes,
    }
}

/// The value below which the share `at` of the values lies.
pub(super) fn percentile(values: &mut [Duration], at: f64) -> Duration {
    if values.is_empty() {
        return Duration::ZERO;
    }
    values.sort_unstable();
    let place = (values.len() as f64 * at).ceil() as usize;
    values[place.saturating_sub(1).min(values.len() - 1)]
}

/// The middle one; of an even number, the upper.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub(super) fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

/// The memory that this process has resident, in MB; none where the system does not say.
pub(super) fn resident_mb() -> Option<f64> {
    from_status("VmRSS:")
}

/// The most memory that this process ever had resident, in MB; none where the system does not say.
pub(super) fn peak_resident_mb() -> Option<f64> {
    from_status("VmHWM:")
}

fn from_status(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The processor time that this process has used; none where the system does not say.
pub(super) fn processor_time() -> Option<Duration> {
    /// Linux counts it in hundredths of a second, whatever the kernel's own clock is.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let mut values: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let at = |values: &mut Vec<_>, at| percentile(values, at).as_millis();
        assert_eq!([at(&mut values, 0.5), at(&mut values, 0.99), at(&mut values, 1.0)], [50, 99, 100]);
    }

    #[test]
    fn the_percentile_of_nothing_is_zero() {
        assert_eq!(percentile(&mut [], 0.5), Duration::ZERO);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
