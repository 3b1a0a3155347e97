//! Ids of pods and containers.

use crate::error::{Error, Kind, Result};

/// 64 random hex digits, as every container runtime gives them.
pub fn generate() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Kind::Internal, format!("draw a random id: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The first digits of an id, for names that a person reads or that must be short.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Nanoseconds since the Unix epoch, the unit of every time in the records.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}
