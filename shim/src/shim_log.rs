//! The shim's own few lines, in `shim.log` of its bundle: what went wrong where nobody is there to be told.

use crate::stdio::timestamp::Timestamp;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is kept at most; a shim that has said so much has nothing new to say.
const MAX_SIZE: u64 = 256 * 1024;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Says where the lines go; without it they are lost.
pub fn open(bundle: &Path) {
    let _ = FILE.set(bundle.join("shim.log"));
}

/// Appends one line. The file is opened each time: lines are rare, and no descriptor keeps the bundle busy.
pub fn note(line: impl Display) {
    if let Some(path) = FILE.get() {
        // A log that cannot be written is no reason to stop anything, and there is nowhere else to say so.
        let _ = append(path, &line);
    }
}

fn append(path: &Path, line: &dyn Display) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.len() > MAX_SIZE {
        return Ok(());
    }
    let mut now = Timestamp::default();
    file.write_all(format!("{} {line}\n", String::from_utf8_lossy(now.now())).as_bytes())
}
