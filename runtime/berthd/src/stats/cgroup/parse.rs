//! Parsers of control files. Unreadable values are left out: no value is better than a wrong one.

use super::super::usage::{Pressure, Stall};

/// Parses a single number; `None` for `max`.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Parses one number per line.
pub(super) fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    text.split(|byte| *byte == b'\n').filter_map(number)
}

/// Parses a name and a number per line.
pub(super) fn fields(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        Some((&line[..at], number(&line[at..])?))
    })
}

/// Returns the number after `name`; 0 when it is missing.
pub(super) fn field(text: &[u8], name: &str) -> u64 {
    fields(text).find(|(key, _)| *key == name.as_bytes()).map_or(0, |(_, value)| value)
}

/// Parses `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the line `full`, which some kernels leave out.
pub(super) fn pressure(text: &[u8]) -> Option<Pressure> {
    let stall =
        |which| str::from_utf8(text).ok()?.lines().find_map(|line| line.strip_prefix(which)).map(stall);
    Some(Pressure { some: stall("some ")?, full: stall("full ").unwrap_or_default() })
}

fn stall(pairs: &str) -> Stall {
    let mut stall = Stall::default();
    for (name, value) in pairs.split_ascii_whitespace().filter_map(|pair| pair.split_once('=')) {
        let share = || value.parse().unwrap_or(0.0);
        match name {
            "avg10" => stall.avg10 = share(),
            "avg60" => stall.avg60 = share(),
            "avg300" => stall.avg300 = share(),
            "total" => stall.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    stall
}

/// Splits the major and minor number of a block device from a line such as `8:16 rbytes=0 ...` or `8:16 Read 0`.
pub(super) fn device(line: &str) -> Option<(u32, u32, &str)> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, rest))
}
