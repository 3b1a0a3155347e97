//! PAX extended headers: records of `length key=value\n`, the value being any bytes.

use std::io;

use rustix::fs::Timespec;
use tar::Header;

use super::archive::malformed;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one extended header, in their order.
#[derive(Debug, Default)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(crate) fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (record, rest) = split(bytes).ok_or_else(|| malformed("a broken PAX record"))?;
            records.push(record);
            bytes = rest;
        }
        Ok(Records(records))
    }

    /// Returns the value of `key`: the last one counts, an empty one means none.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        let mut found = self.0.iter().rev();
        let (_, value) = found.find(|(name, _)| name == key.as_bytes())?;
        (!value.is_empty()).then_some(value.as_slice())
    }

    pub(crate) fn number(&self, key: &str) -> io::Result<Option<u64>> {
        self.get(key).map(decimal).transpose()
    }

    pub(crate) fn require(&self, key: &str) -> io::Result<u64> {
        self.number(key)?.ok_or_else(|| malformed(&format!("a sparse entry without {key}")))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    pub(crate) fn path(&self, header: &Header) -> Vec<u8> {
        let named = self.get("GNU.sparse.name").or_else(|| self.get("path"));
        named.map_or_else(|| header.path_bytes().into_owned(), <[u8]>::to_vec)
    }

    pub(crate) fn target(&self, header: &Header) -> Vec<u8> {
        let in_header = || header.link_name_bytes().unwrap_or_default().into_owned();
        self.get("linkpath").map_or_else(in_header, <[u8]>::to_vec)
    }

    pub(crate) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named = |(key, value): (&[u8], &[u8])| {
            let name = key.strip_prefix(XATTR)?;
            Some((name.to_vec(), value.to_vec()))
        };
        self.iter().filter_map(named).collect()
    }
}

type Record = (Vec<u8>, Vec<u8>);

fn split(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space]).ok()?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let text = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some(((text[..equals].to_vec(), text[equals + 1..].to_vec()), rest))
}

pub(crate) fn decimal(text: &[u8]) -> io::Result<u64> {
    let digits = str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| malformed(&format!("{:?} is not a number", String::from_utf8_lossy(text))))
}

/// Parses `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped.
pub(crate) fn timestamp(text: &[u8]) -> io::Result<Timespec> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = text.split_at(dot.unwrap_or(text.len()));
    let seconds = decimal(whole)?.min(i64::MAX as u64) as i64;
    let nanos = nanoseconds(fraction.get(1..).unwrap_or_default())?;
    Ok(match (negative, nanos) {
        (false, _) => Timespec { tv_sec: seconds, tv_nsec: nanos },
        (true, 0) => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        (true, _) => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - nanos },
    })
}

fn nanoseconds(fraction: &[u8]) -> io::Result<i64> {
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0'));
    let text: Vec<u8> = digits.take(9).collect();
    decimal(&text).map(|nanos| nanos as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_may_hold_newlines_and_equal_signs() {
        let records = Records::parse(b"31 SCHILY.xattr.user.a=\x01\n=\n\x0a\x00b\n").unwrap();
        assert_eq!(records.xattrs(), [(b"user.a".to_vec(), b"\x01\n=\n\x0a\x00b".to_vec())]);
    }

    #[test]
    fn the_last_record_of_a_key_counts_and_an_empty_one_removes_it() {
        let records = Records::parse(b"6 a=1\n6 a=2\n6 b=3\n5 b=\n").unwrap();
        assert_eq!(records.get("a"), Some(&b"2"[..]));
        assert_eq!(records.get("b"), None);
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [&b"x"[..], b"99 a=1\n", b"6 a=1 ", b"5 abc\n", b"3 a", b"0 a=b\n", b"+6 a=1\n"] {
            assert!(Records::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn timestamps_keep_nanoseconds_on_both_sides_of_the_epoch() {
        let of = |text: &[u8]| timestamp(text).map(|t| (t.tv_sec, t.tv_nsec)).unwrap();
        assert_eq!(of(b"1350244992.023960108"), (1_350_244_992, 23_960_108));
        assert_eq!(of(b"7"), (7, 0));
        assert_eq!(of(b"7.5"), (7, 500_000_000));
        assert_eq!(of(b"-1.25"), (-2, 750_000_000));
        assert_eq!(of(b"-3"), (-3, 0));
        assert_eq!(of(b"1.0000000019"), (1, 1));
        assert!(timestamp(b"1.x").is_err());
        assert!(timestamp(b"").is_err());
    }
}
