//! The shim's own log, `shim.log` in its bundle: failures in the background that no request can report.

use crate::stdio::timestamp::Timestamp;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Maximum size in bytes; further lines are dropped.
const MAX_LOG_BYTES: u64 = 256 * 1024;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Sets the log file; lines before that are lost.
pub fn open(bundle: &Path) {
    let _ = FILE.set(bundle.join("shim.log"));
}

/// Appends one line. The file is opened each time: lines are rare, and an open descriptor would keep the bundle's mount busy.
pub fn note(line: impl Display) {
    if let Some(path) = FILE.get() {
        // A failing log must not stop anything, and there is no other place to report it.
        let _ = append(path, &line);
    }
}

fn append(path: &Path, line: &dyn Display) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.len() > MAX_LOG_BYTES {
        return Ok(());
    }
    let mut now = Timestamp::default();
    file.write_all(format!("{} {line}\n", String::from_utf8_lossy(now.now())).as_bytes())
}
