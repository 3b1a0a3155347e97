//! Content digests (OCI image specification), and hashing of content piece by piece.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest as hashes;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Hash functions that the OCI image specification registers and that are supported here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: what every registry uses.
    Sha256,
    /// SHA-512: allowed by the specification, rare.
    Sha512,
}

impl Algorithm {
    /// Returns the name as it stands before the colon of a digest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A digest such as `sha256:9f86...`: algorithm and lower-case hexadecimal value, always well formed.
///
/// Safe as a file name: it contains nothing but letters, digits and one colon ([`Digest::hex`] not even the colon).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Returns the SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// Returns the digest of `bytes` by `algorithm`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the value in lower-case hexadecimal, without the algorithm.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns a new hasher of the same algorithm.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (name, hex) = text.split_once(':').ok_or(ParseError::NoAlgorithm)?;
        let algorithm = Algorithm::from_name(name)
            .ok_or_else(|| ParseError::Algorithm(name.chars().take(32).collect()))?;
        let expected = algorithm.hex_len();
        if hex.len() != expected {
            return Err(ParseError::Length { algorithm: algorithm.name(), expected, found: hex.len() });
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseError::NotHex);
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Reasons why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is no colon.
    #[error("a digest is written algorithm:hex")]
    NoAlgorithm,
    /// The algorithm is not supported.
    #[error("unsupported digest algorithm {0:?}, known are sha256 and sha512")]
    Algorithm(String),
    /// The value has the wrong length.
    #[error("a {algorithm} digest has {expected} hexadecimal digits, not {found}")]
    Length {
        /// The algorithm's name.
        algorithm: &'static str,
        /// Digits a digest of this algorithm has.
        expected: usize,
        /// Length found, in bytes.
        found: usize,
    },
    /// The value contains something else than lower-case hexadecimal digits.
    #[error("the value of a digest is written in the digits 0-9 and a-f")]
    NotHex,
}

/// Hashes content piece by piece.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: hashes::Context,
}

impl Hasher {
    /// Returns a hasher that has seen no content.
    pub fn new(algorithm: Algorithm) -> Self {
        let function = match algorithm {
            Algorithm::Sha256 => &hashes::SHA256,
            Algorithm::Sha512 => &hashes::SHA512,
        };
        Self { algorithm, context: hashes::Context::new(function) }
    }

    /// Hashes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Returns the digest of all pieces in order.
    pub fn finish(self) -> Digest {
        let value = self.context.finish();
        Digest { algorithm: self.algorithm, hex: hex(value.as_ref()).into() }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
