//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

/// Printed for `--help`.
pub(crate) const HELP: &str = "\
berthd: a container runtime for Kubernetes nodes and for one machine alone

Usage:
  berthd [--config FILE] [--root DIR] [--state DIR] [--socket PATH]
  berthd config default          print every key with its default and meaning
  berthd config check FILE       say whether a configuration is valid
  berthd check [--repair] [--config FILE] [--root DIR] [--state DIR]
                                 say whether what is on disk and what runs agree; --repair, for a
                                 daemon that does not run, sets right what is safe

Options:
  --config FILE   configuration (/etc/berth/config.toml, if it is there)
  --root DIR      what outlives a reboot (/var/lib/berth)
  --state DIR     what a reboot ends (/run/berth)
  --socket PATH   where the CRI is served (<state>/berth.sock)
  --version       print the version
  --help          print this
";

/// The action that the command line selects.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Serve.
    Serve(Overrides),
    /// Print the default configuration.
    ConfigDefault,
    /// Check a configuration file.
    ConfigCheck(PathBuf),
    /// Compare what is on disk with what runs.
    Check(Check),
    /// Print the version.
    Version,
    /// Print the help.
    Help,
}

/// Options of the command line that override the configuration file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Overrides {
    pub(crate) config: Option<PathBuf>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
}

/// Arguments of `berthd check`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Check {
    pub(crate) repair: bool,
    pub(crate) overrides: Overrides,
}

/// Parses a command line.
pub(crate) fn parse(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let mut overrides = Overrides::default();
    while let Some(arg) = parser.next()? {
        let slot = match arg {
            Arg::Long("config") => &mut overrides.config,
            Arg::Long("root") => &mut overrides.root,
            Arg::Long("state") => &mut overrides.state,
            Arg::Long("socket") => &mut overrides.socket,
            Arg::Long("version") | Arg::Short('V') => return Ok(Command::Version),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(ref word) if word == "config" => return config(parser),
            Arg::Value(ref word) if word == "check" => return check(parser, overrides),
            other => return Err(other.unexpected()),
        };
        *slot = Some(parser.value()?.into());
    }
    Ok(Command::Serve(overrides))
}

fn check(mut parser: Parser, overrides: Overrides) -> Result<Command, lexopt::Error> {
    let mut check = Check { repair: false, overrides };
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("repair") => check.repair = true,
            Arg::Long("config") => check.overrides.config = Some(parser.value()?.into()),
            Arg::Long("root") => check.overrides.root = Some(parser.value()?.into()),
            Arg::Long("state") => check.overrides.state = Some(parser.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Check(check))
}

fn config(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let verb = parser.value()?.string()?;
    let command = match verb.as_str() {
        "default" => Command::ConfigDefault,
        "check" => Command::ConfigCheck(parser.value()?.into()),
        _ => return Err(format!("berthd config {verb}: must be `default` or `check FILE`").into()),
    };
    match parser.next()? {
        Some(arg) => Err(arg.unexpected()),
        None => Ok(command),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(Parser::from_args(line.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_serves_with_the_defaults() {
        assert_eq!(parse_line(""), Ok(Command::Serve(Overrides::default())));
    }

    #[test]
    fn options_take_the_place_of_keys() {
        let parsed = parse_line("--config /c --root=/r --state /s --socket /s/x.sock");
        let path = |path: &str| Some(PathBuf::from(path));
        let expected =
            Overrides { config: path("/c"), root: path("/r"), state: path("/s"), socket: path("/s/x.sock") };
        assert_eq!(parsed, Ok(Command::Serve(expected)));
    }

    #[test]
    fn subcommands_are_known() {
        assert_eq!(parse_line("config default"), Ok(Command::ConfigDefault));
        assert_eq!(parse_line("config check /c"), Ok(Command::ConfigCheck("/c".into())));
        assert_eq!(parse_line("check"), Ok(Command::Check(Check::default())));
        let overrides = Overrides { root: Some("/r".into()), ..Overrides::default() };
        assert_eq!(
            parse_line("check --repair --root /r"),
            Ok(Command::Check(Check { repair: true, overrides }))
        );
        assert_eq!(parse_line("--version"), Ok(Command::Version));
        assert_eq!(parse_line("-h"), Ok(Command::Help));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, expected) in [
            ("--colour", "--colour"),
            ("serve", "serve"),
            ("--root", "--root"),
            ("config", "argument"),
            ("config print", "print"),
            ("check --socket /s", "--socket"),
            ("config check", "argument"),
            ("config default extra", "extra"),
        ] {
            let error = parse_line(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
