//! Where a container's streams lead, as the caller names it.

use std::path::{Path, PathBuf};

/// Longest line that is written in one piece unless the caller says otherwise.
pub const DEFAULT_MAX_LINE: usize = 16 * 1024;

/// Why the name of a stream is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?}: {reason}")]
pub struct Invalid {
    uri: String,
    reason: &'static str,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Nowhere, and nobody can attach to it: empty.
    Null,
    /// Nowhere: `discard://`.
    Discard,
    /// A named pipe that someone else reads: a plain path, containerd's way.
    Fifo(PathBuf),
    /// A file that is appended to as is: `file:///path`.
    File(PathBuf),
    /// A file in CRI's log format: `cri-log:///path?max-line=16384`.
    CriLog {
        /// The file.
        path: PathBuf,
        /// Longer lines are split into partial ones.
        max_line: usize,
    },
}

impl Output {
    /// Reads what a `stdout` or `stderr` field holds.
    pub fn parse(uri: &str) -> Result<Self, Invalid> {
        let invalid = |reason| Invalid { uri: uri.to_owned(), reason };
        if uri.is_empty() {
            return Ok(Self::Null);
        }
        match uri.split_once("://") {
            Some(("discard", "")) => Ok(Self::Discard),
            None => Ok(Self::Fifo(absolute(uri).map_err(invalid)?)),
            Some(("fifo", path)) => Ok(Self::Fifo(absolute(path).map_err(invalid)?)),
            Some(("file", path)) => Ok(Self::File(absolute(path).map_err(invalid)?)),
            Some(("cri-log", rest)) => cri_log(rest).map_err(invalid),
            Some(_) => {
                Err(invalid("unknown scheme; cri-log, discard, file, fifo or a plain path are understood"))
            }
        }
    }
}

/// Where input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// A named pipe that someone else writes.
    pub fifo: PathBuf,
    /// The container's input ends when the last writer closes the pipe (`?once=1`); else a later writer may go on.
    pub once: bool,
}

impl Input {
    /// Reads what a `stdin` field holds; nothing when there is no input.
    pub fn parse(uri: &str) -> Result<Option<Self>, Invalid> {
        let invalid = |reason| Invalid { uri: uri.to_owned(), reason };
        if uri.is_empty() {
            return Ok(None);
        }
        let plain = uri.strip_prefix("fifo://").unwrap_or(uri);
        let (path, once) = match plain.split_once('?') {
            None => (plain, false),
            Some((path, "once=0")) => (path, false),
            Some((path, "once=1")) => (path, true),
            Some(_) => return Err(invalid("the only parameter is once=0 or once=1")),
        };
        Ok(Some(Self { fifo: absolute(path).map_err(invalid)?, once }))
    }
}

fn cri_log(rest: &str) -> Result<Output, &'static str> {
    // From behind: the file's own name may hold a question mark.
    let (path, max_line) = match rest.rsplit_once("?max-line=") {
        None => (rest, DEFAULT_MAX_LINE),
        Some((path, bytes)) => (path, max_line(bytes)?),
    };
    Ok(Output::CriLog { path: absolute(path)?, max_line })
}

fn max_line(bytes: &str) -> Result<usize, &'static str> {
    match bytes.parse() {
        Ok(0) | Err(_) => Err("max-line must be a positive number"),
        Ok(bytes) => Ok(bytes),
    }
}

fn absolute(path: &str) -> Result<PathBuf, &'static str> {
    match Path::new(path).is_absolute() {
        true => Ok(PathBuf::from(path)),
        false => Err("the path must be absolute"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_of_output_is_recognised() {
        let log = |max_line| Output::CriLog { path: "/l/0.log".into(), max_line };
        for (uri, expected) in [
            ("", Output::Null),
            ("discard://", Output::Discard),
            ("/run/f", Output::Fifo("/run/f".into())),
            ("fifo:///run/f", Output::Fifo("/run/f".into())),
            ("file:///var/o", Output::File("/var/o".into())),
            ("cri-log:///l/0.log", log(DEFAULT_MAX_LINE)),
            ("cri-log:///l/0.log?max-line=80", log(80)),
            ("cri-log:///l/a?b?max-line=80", Output::CriLog { path: "/l/a?b".into(), max_line: 80 }),
        ] {
            assert_eq!(Output::parse(uri).unwrap(), expected, "{uri}");
        }
    }

    #[test]
    fn output_that_makes_no_sense_is_refused_with_the_value() {
        for uri in [
            "relative",
            "file://relative",
            "binary:///usr/bin/logger",
            "cri-log:///l?max-line=0",
            "cri-log:///l?max-line=-1",
            "cri-log:///l?max-line=",
            "cri-log://",
            "discard:///x",
        ] {
            let error = Output::parse(uri).unwrap_err().to_string();
            assert!(error.contains(uri), "{error}");
        }
    }

    #[test]
    fn input_says_whether_it_ends_with_its_writer() {
        let input = |once| Some(Input { fifo: "/run/in".into(), once });
        for (uri, expected) in [
            ("", None),
            ("/run/in", input(false)),
            ("fifo:///run/in", input(false)),
            ("/run/in?once=0", input(false)),
            ("/run/in?once=1", input(true)),
        ] {
            assert_eq!(Input::parse(uri).unwrap(), expected, "{uri}");
        }
        for uri in ["in", "/run/in?once=yes", "/run/in?twice=1", "?once=1"] {
            assert!(Input::parse(uri).is_err(), "{uri}");
        }
    }
}
