//! Names of devices.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `vendor/class=name`, such as `vendor.com/gpu=0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName {
    /// `vendor/class`.
    pub(super) kind: String,
    /// Unique within its kind.
    pub(super) device: String,
}

impl FromStr for DeviceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, device) = text.split_once('=').ok_or("must be vendor/class=name")?;
        check_kind(kind)?;
        check_device(device)?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }
}

impl TryFrom<String> for DeviceName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// Checks `vendor/class`: each begins with a letter, ends with a letter or digit, and has `_`, `-` and `.` in between.
pub(super) fn check_kind(kind: &str) -> Result<(), &'static str> {
    let letter = |byte: u8| byte.is_ascii_alphabetic();
    match kind.split_once('/') {
        Some((vendor, class)) if plain(vendor, letter, b"_-.") && plain(class, letter, b"_-.") => Ok(()),
        _ => Err("its kind must be vendor/class, of letters, digits, '_', '-' and '.'"),
    }
}

/// Checks that a name begins and ends with a letter or digit, with `_`, `-`, `.` and `:` in between.
pub(super) fn check_device(name: &str) -> Result<(), &'static str> {
    match plain(name, |byte| byte.is_ascii_alphanumeric(), b"_-.:") {
        true => Ok(()),
        false => Err("the device's name must be of letters, digits, '_', '-', '.' and ':'"),
    }
}

fn plain(text: &str, first: impl Fn(u8) -> bool, also: &[u8]) -> bool {
    let begins = text.bytes().next().is_some_and(first);
    let ends = text.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && ends && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_that_the_specification_allows() {
        for name in ["vendor.com/class=dev", "a/b=c", "v/c=0", "yet_another-vendor2.com/c-lass_2.x=dev_1:2.3"]
        {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "dev",
            "/dev/null",
            "vendor/class",
            "vendor/class=",
            "vendor=dev",
            "/class=dev",
            "vendor/=dev",
            "_v/class=dev",
            "1v/class=dev",
            "v-/class=dev",
            "v/class_=dev",
            "v/class=dev-",
            "v/class=-dev",
            "v/cl ass=dev",
            "v/class=d=e",
            "v/c/d=e",
            "v/class=dé",
            "v/class=d\n",
        ] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }
}
