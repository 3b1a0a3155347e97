//! The command line, parsed like Go's flag package: `-name value`, `-name=value`, one dash or two.

use super::Error;
use std::path::PathBuf;

/// The action to perform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    Start,
    Delete,
    /// Serves in the foreground, on the socket that `start` would use.
    Serve,
    Version,
    Info,
    /// Runs as the first process of a foreign shim's sandbox.
    Pause,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// The action to perform.
    pub action: Action,
    /// The containerd namespace.
    pub namespace: String,
    /// The sandbox's or container's id.
    pub id: String,
    /// The daemon's own socket; the shim's socket is in `s/` beside it.
    pub address: String,
    /// The bundle; empty means the working directory.
    pub bundle: PathBuf,
    /// Accepted because containerd passes it; without effect.
    pub debug: bool,
}

impl Flags {
    /// Parses the arguments after the program's name. Fails for unknown flags and actions, and without an id or a namespace.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut flags = Self::nothing();
        let (mut version, mut info, mut action) = (false, false, None);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-') else {
                action = Some(argument);
                break;
            };
            let (name, value) = split(flag.strip_prefix('-').unwrap_or(flag));
            match name {
                "debug" => flags.debug = on(name, value)?,
                "v" | "version" => version = on(name, value)?,
                "info" => info = on(name, value)?,
                _ => flags.set(name, value.map(str::to_owned).or_else(|| arguments.next()))?,
            }
        }
        flags.action = match action.as_deref() {
            _ if version => Action::Version,
            _ if info => Action::Info,
            Some("start") => Action::Start,
            Some("delete") => Action::Delete,
            Some("pause") => Action::Pause,
            None => Action::Serve,
            Some(other) => return Err(Error::Usage(format!("unknown action {other:?}"))),
        };
        flags.check()
    }

    fn nothing() -> Self {
        Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: PathBuf::new(),
            debug: false,
        }
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<(), Error> {
        let value = value.ok_or_else(|| Error::Usage(format!("-{name} needs a value")))?;
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = value.into(),
            // The first publishes events for old containerds; the second is derived by `start` itself.
            "publish-binary" | "socket" => {}
            _ => return Err(Error::Usage(format!("unknown flag -{name}"))),
        }
        Ok(())
    }

    fn check(self) -> Result<Self, Error> {
        let acts = matches!(self.action, Action::Start | Action::Delete | Action::Serve);
        let missing = [("id", &self.id), ("namespace", &self.namespace)];
        match missing.iter().find(|(_, value)| acts && value.is_empty()) {
            Some((name, _)) => Err(Error::Usage(format!("-{name} is missing"))),
            None => Ok(self),
        }
    }
}

fn split(flag: &str) -> (&str, Option<&str>) {
    match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    }
}

fn on(name: &str, value: Option<&str>) -> Result<bool, Error> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(Error::Usage(format!("-{name}={other}: true or false"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Flags, Error> {
        Flags::parse(line.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerds_command_lines_are_understood() {
        let flags = parse(
            "-namespace k8s.io -address /run/c/c.sock -publish-binary /usr/bin/containerd -id abc -debug start",
        )
        .unwrap();
        assert_eq!(flags.action, Action::Start);
        assert_eq!((flags.namespace.as_str(), flags.id.as_str(), flags.debug), ("k8s.io", "abc", true));
        let flags = parse("--namespace=n --id=a -bundle /b -debug=false delete").unwrap();
        assert_eq!((flags.action, flags.bundle.to_str(), flags.debug), (Action::Delete, Some("/b"), false));
        assert_eq!(parse("-namespace n -id a").unwrap().action, Action::Serve);
    }

    #[test]
    fn questions_need_no_id() {
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn nonsense_is_named() {
        for (line, expected) in [
            ("-namespace n start", "-id is missing"),
            ("-id a start", "-namespace is missing"),
            ("-id a -namespace n stop", "unknown action \"stop\""),
            ("-id a -namespace n -colour red start", "unknown flag -colour"),
            ("-namespace n -id", "-id needs a value"),
            ("-id a -namespace n -debug=maybe start", "-debug=maybe"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
