//! Rate of processor time, from two readings and the time between them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::usage::{Cpu, Usage};

/// Minimum time between two readings: closer ones are too inexact, so the previous rate is returned.
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The last reading of each container and pod, by id.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Sample>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    at: Instant,
    usage: u64,
    rate: Option<u64>,
}

impl Rates {
    /// Returns the usage with its processor rate since the previous reading.
    pub(super) fn rated(&self, id: &str, mut usage: Usage) -> Usage {
        if let Some(cpu) = &mut usage.cpu {
            cpu.rate = self.rate(id, cpu, Instant::now());
        }
        usage
    }

    fn rate(&self, id: &str, cpu: &Cpu, at: Instant) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match samples.get_mut(id) {
            Some(sample) => {
                *sample = sample.then(cpu.usage, at);
                sample.rate
            }
            None => {
                samples.insert(id.to_owned(), Sample { at, usage: cpu.usage, rate: None });
                None
            }
        }
    }

    /// Forgets the readings of ids that `exists` does not know.
    pub(super) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| exists(id));
    }
}

impl Sample {
    fn then(self, usage: u64, at: Instant) -> Self {
        let passed = at.saturating_duration_since(self.at);
        if passed < MIN_SAMPLE_INTERVAL {
            return self;
        }
        // A smaller value means a new cgroup of the same name.
        let grown = usage.checked_sub(self.usage);
        let rate = |grown| u128::from(grown) * 1_000_000_000 / passed.as_nanos();
        Self { at, usage, rate: grown.and_then(|grown: u64| u64::try_from(rate(grown)).ok()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_rate_is_what_was_used_over_what_has_passed() {
        let (rates, start) = (Rates::default(), Instant::now());
        let rate = |usage, after| {
            rates.rate("a", &Cpu { usage, ..Cpu::default() }, start + Duration::from_millis(after))
        };
        assert_eq!(rate(5 * SECOND, 0), None);
        assert_eq!(rate(6 * SECOND, 999), None, "too early to tell");
        assert_eq!(rate(8 * SECOND, 2000), Some(3 * SECOND / 2));
        assert_eq!(rate(9 * SECOND, 2500), Some(3 * SECOND / 2), "too early for another");
        assert_eq!(rate(8 * SECOND, 12_000), Some(0));
        assert_eq!(rate(SECOND, 14_000), None, "it cannot shrink");
        assert_eq!(rate(2 * SECOND, 15_000), Some(SECOND));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let rates = Rates::default();
        for id in ["a", "b"] {
            rates.rate(id, &Cpu::default(), Instant::now());
        }
        rates.retain(|id| id == "b");
        assert_eq!(rates.0.lock().map(|samples| samples.len()).unwrap_or(0), 1);
    }
}
