//! Signals, by the names and numbers that images and callers use.

use std::{fmt, str::FromStr};

use nix::sys::signal::Signal as NixSignal;

use super::Error;

/// First real-time signal of programs: the C library reserves 32 and 33.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal's number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The default stop signal.
    pub const TERM: Self = Self(15);
    /// SIGKILL, which cannot be caught or ignored.
    pub const KILL: Self = Self(9);

    /// Returns the number for kill(2).
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NixSignal::try_from(self.0) {
            Ok(named) => f.write_str(named.as_str()),
            Err(_) => named_from_rtmin(self.0, f),
        }
    }
}

fn named_from_rtmin(number: i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match number - RTMIN {
        0 => f.write_str("SIGRTMIN"),
        30 => f.write_str("SIGRTMAX"),
        above if above > 0 => write!(f, "SIGRTMIN+{above}"),
        _ => write!(f, "{number}"),
    }
}

/// Accepts `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-2` and the CRI's spelling `RTMINPLUS3`, in upper or lower case.
impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        numbered(name)
            .or_else(|| real_time(name))
            .or_else(|| by_name(name))
            .map(Self)
            .ok_or_else(|| Error::invalid("stop signal", text, "no such signal"))
    }
}

fn numbered(name: &str) -> Option<i32> {
    digits(name).filter(|number| (1..=RTMAX).contains(number))
}

fn real_time(name: &str) -> Option<i32> {
    let name = name.replacen("PLUS", "+", 1).replacen("MINUS", "-", 1);
    let number = match name.as_str() {
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        other => match other.strip_prefix("RTMIN+") {
            Some(above) => RTMIN.checked_add(digits(above)?)?,
            None => RTMAX.checked_sub(digits(other.strip_prefix("RTMAX-")?)?)?,
        },
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// Parses a number without a sign, which `parse` alone would accept.
fn digits(text: &str) -> Option<i32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn by_name(name: &str) -> Option<i32> {
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    NixSignal::from_str(&format!("SIG{name}")).ok().map(|named| named as i32)
}

/// Returns the stop signal: the container's, else its image's, else SIGTERM. An empty name counts as unset.
pub fn stop_signal(own: Option<&str>, of_image: &str) -> Result<Signal, Error> {
    let asked = own.filter(|name| !name.is_empty()).unwrap_or(of_image);
    if asked.is_empty() { Ok(Signal::TERM) } else { asked.parse() }
}

#[cfg(test)]
mod tests;
