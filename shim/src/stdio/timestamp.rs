//! RFC 3339 timestamps with nine digits; the seconds are formatted only when they change.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of `2016-10-06T00:17:09.669794202Z`.
pub const LENGTH: usize = 30;

/// The last timestamp. Its seconds are formatted once and kept.
#[derive(Debug)]
pub struct Timestamp {
    second: Option<u64>,
    text: [u8; LENGTH],
}

impl Default for Timestamp {
    fn default() -> Self {
        Self { second: None, text: *b"0000-00-00T00:00:00.000000000Z" }
    }
}

impl Timestamp {
    /// The current time, in UTC.
    pub fn now(&mut self) -> &[u8; LENGTH] {
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// A point in time, counted from the Unix epoch.
    pub fn at(&mut self, since_epoch: Duration) -> &[u8; LENGTH] {
        let second = since_epoch.as_secs();
        if self.second != Some(second) {
            self.format_second(second);
            self.second = Some(second);
        }
        digits(&mut self.text[20..29], u64::from(since_epoch.subsec_nanos()));
        &self.text
    }

    fn format_second(&mut self, second: u64) {
        let (year, month, day) = civil_date(second / 86_400);
        let (hour, minute) = (second / 3_600 % 24, second / 60 % 60);
        for (place, value) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, hour),
            (14..16, minute),
            (17..19, second % 60),
        ] {
            digits(&mut self.text[place], value);
        }
    }
}

/// Fills `place` with the decimal digits of `value`, right aligned, with leading zeros.
fn digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day counted from the Unix epoch, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last and month lengths follow a linear formula.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    let day = days + 719_468;
    let (era, day) = (day / DAYS_PER_ERA, day % DAYS_PER_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, nanos: u32) -> String {
        String::from_utf8_lossy(Timestamp::default().at(Duration::new(seconds, nanos))).into_owned()
    }

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(text(seconds, 0), expected);
        }
    }

    #[test]
    fn nanoseconds_keep_their_leading_zeros() {
        assert_eq!(text(1_475_713_029, 669_794), "2016-10-06T00:17:09.000669794Z");
    }

    #[test]
    fn a_reused_timestamp_equals_a_fresh_one() {
        let mut reused = Timestamp::default();
        for step in 0..5_000_u64 {
            let at = Duration::new(1_700_000_000 + step * 977 / 10, (step * 199_999 % 1_000_000_000) as u32);
            assert_eq!(reused.at(at), Timestamp::default().at(at));
        }
    }
}
