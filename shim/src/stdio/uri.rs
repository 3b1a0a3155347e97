//! URIs of a container's streams.

use std::path::{Path, PathBuf};

/// Default maximum length in bytes of a line before it is split.
pub const DEFAULT_MAX_LINE: usize = 16 * 1024;

/// Why a stream's URI is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?}: {reason}")]
pub struct Invalid {
    uri: String,
    reason: &'static str,
}

/// Destination of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Empty: none, and no reader can attach.
    Null,
    /// `discard://`: none, but readers can attach.
    Discard,
    /// A plain path, as containerd gives it, or `fifo:///path`: a named pipe that the caller reads.
    Fifo(PathBuf),
    /// `file:///path`: a file that is appended to as is.
    File(PathBuf),
    /// `cri-log:///path?max-line=16384`: a file in CRI's log format.
    CriLog {
        /// Absolute path of the file.
        path: PathBuf,
        /// Longer lines are split into partial ones; bytes.
        max_line: usize,
    },
}

impl Output {
    /// Parses a `stdout` or `stderr` field.
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

/// Source of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// A named pipe that the caller writes.
    pub fifo: PathBuf,
    /// Whether stdin ends when the last writer closes the pipe (`?once=1`); otherwise a later writer may continue.
    pub once: bool,
}

impl Input {
    /// Parses a `stdin` field; `None` for an empty one.
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
    // From the end: the file's name may contain a question mark.
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
