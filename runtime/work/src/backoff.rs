//! Pauses between attempts at a step that failed.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(300);

/// Returns the pauses before the second attempt, the third and so on, without end: each twice as long as the one
/// before, up to five minutes.
pub fn retry_delays() -> impl Iterator<Item = Duration> + Send {
    std::iter::successors(Some(FIRST_DELAY), |pause| Some((*pause * 2).min(MAX_DELAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_do_not_end() {
        let seconds: Vec<_> = retry_delays().take(11).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }
}
