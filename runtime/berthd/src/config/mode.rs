//! File modes in octal notation.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Permission bits, written in octal between quotes: TOML rejects a plain `0660`, and `660` would be decimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// Read and write for the owner only.
    pub const PRIVATE: Self = Self(0o600);

    /// Returns the bits as chmod(2) takes them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => Err(de::Error::invalid_value(de::Unexpected::Str(&text), &"an octal mode such as \"0660\"")),
        }
    }
}
