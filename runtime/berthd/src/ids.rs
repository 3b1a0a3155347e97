//! Ids of pods and containers.

use crate::error::{Error, Kind, Result};

/// Returns a new id: 64 random hex digits, as other container runtimes use.
pub fn generate() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Kind::Internal, format!("draw a random id: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the first 12 digits of an id, for names that must be short or are read by people.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
