//! The last step: finding the command as the user it runs as, and execve.

use super::error::At;
use super::{Error, Step, Unrunnable};
use rustix::fs::{FileType, stat};
use std::convert::Infallible;
use std::ffi::CString;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command line and environment as C strings, checked before any process is made.
#[derive(Debug)]
pub(super) struct Command {
    name: String,
    args: Vec<CString>,
    env: Vec<CString>,
    /// Device and inode of the shim's own binary.
    shim: (u64, u64),
}

/// A path where the command may be.
#[derive(Debug)]
pub(super) struct Candidate {
    file: CString,
    seen: Seen,
}

/// File type found at a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    File,
    Directory,
    /// The shim's own binary.
    Shim,
}

impl Command {
    /// Converts the spec's strings. Fails if one contains a NUL or the command is empty.
    pub(super) fn parse(args: &[String], env: &[String]) -> Result<Self, Error> {
        let name =
            args.first().ok_or_else(|| Error::invalid(Step::Exec, "no command: process.args is empty"))?;
        if name.is_empty() {
            return Err(Error::Command { command: String::new(), problem: Unrunnable::NotInPath });
        }
        let shim = stat("/proc/self/exe").at(Step::Exec, || "look at the shim's binary".into())?;
        Ok(Self {
            name: name.clone(),
            args: c_strings("args", args)?,
            env: c_strings("env", env)?,
            shim: (shim.st_dev, shim.st_ino),
        })
    }

    /// The value of a variable; of a repeated name the last one counts.
    fn variable(&self, name: &str) -> Option<&str> {
        let found = |entry: &CString| {
            entry.to_str().ok().and_then(|e| e.split_once('=')).is_some_and(|(n, _)| n == name)
        };
        self.env
            .iter()
            .rev()
            .find(|entry| found(entry))?
            .to_str()
            .ok()?
            .split_once('=')
            .map(|(_, value)| value)
    }

    /// Sets `HOME` if the spec left it unset or empty.
    pub(super) fn complete(&mut self, home: impl FnOnce() -> String) {
        if self.variable("HOME").is_none_or(str::is_empty) {
            self.env.retain(|entry| entry.as_bytes() != b"HOME=");
            self.env.extend(CString::new(format!("HOME={}", home())));
        }
    }

    /// Looks up the candidates. Done before the seccomp filter is in force, which may forbid stat(2).
    pub(super) fn find(&self) -> Vec<Candidate> {
        if self.name.contains('/') {
            return self.look_at(self.name.clone()).into_iter().collect();
        }
        let directories = self.variable("PATH").unwrap_or(DEFAULT_PATH).split(':');
        let directories = directories.filter(|directory| directory.starts_with('/'));
        directories.filter_map(|directory| self.look_at(format!("{directory}/{}", self.name))).collect()
    }

    fn look_at(&self, path: String) -> Option<Candidate> {
        let file = CString::new(path).ok()?;
        let seen = match stat(&file) {
            Ok(found) if (found.st_dev, found.st_ino) == self.shim => Seen::Shim,
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_dir() => Seen::Directory,
            Ok(_) => Seen::File,
            Err(_) => Seen::Nothing,
        };
        Some(Candidate { file, seen })
    }

    /// Executes the first candidate that can be. Returns only on failure.
    pub(super) fn execute(&self, candidates: &[Candidate]) -> Result<Infallible, Error> {
        let mut denied = None;
        for candidate in candidates {
            match self.attempt(candidate) {
                None => {}
                Some(Error::Command { problem, .. })
                    if matches!(problem, Unrunnable::PermissionDenied | Unrunnable::IsDirectory) =>
                {
                    denied.get_or_insert(problem);
                }
                Some(error) => return Err(error),
            }
        }
        let missing = if self.name.contains('/') { Unrunnable::NotFound } else { Unrunnable::NotInPath };
        Err(self.problem(denied.unwrap_or(missing)))
    }

    /// Returns only when the file could not be executed; `None` when there is no such file.
    fn attempt(&self, Candidate { file, seen }: &Candidate) -> Option<Error> {
        // `/proc/self/exe` would hand the host's binary to the container (CVE-2019-5736).
        if *seen == Seen::Shim {
            return Some(self.problem(Unrunnable::PermissionDenied));
        }
        let Err(error) = nix::unistd::execve(file, &self.args, &self.env);
        Some(match error {
            nix::Error::ENOENT | nix::Error::ENOTDIR if *seen == Seen::Nothing => return None,
            nix::Error::ENAMETOOLONG => return None,
            nix::Error::ENOENT => self.problem(Unrunnable::NoInterpreter),
            nix::Error::EACCES if *seen == Seen::Directory => self.problem(Unrunnable::IsDirectory),
            nix::Error::EACCES | nix::Error::EPERM => self.problem(Unrunnable::PermissionDenied),
            nix::Error::ENOEXEC => self.problem(Unrunnable::ExecFormat),
            other => match Err::<Infallible, _>(other).at(Step::Exec, || format!("{file:?}")) {
                Err(error) => error,
                Ok(never) => match never {},
            },
        })
    }

    fn problem(&self, problem: Unrunnable) -> Error {
        Error::Command { command: self.name.clone(), problem }
    }
}

fn c_strings(field: &str, strings: &[String]) -> Result<Vec<CString>, Error> {
    let convert = |string: &String| {
        CString::new(string.as_str())
            .map_err(|_| Error::invalid(Step::Exec, format!("process.{field} has a NUL byte in {string:?}")))
    };
    strings.iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn command(args: &[&str], env: &[&str]) -> Result<Command, Error> {
        let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        Command::parse(&strings(args), &strings(env))
    }

    #[test]
    fn the_last_value_of_a_repeated_variable_counts() {
        let command = command(&["x"], &["A=1", "PATH=/a", "A=2=3", "AB=9"]).unwrap();
        assert_eq!(command.variable("A"), Some("2=3"));
        assert_eq!(command.variable("PATH"), Some("/a"));
        assert_eq!(command.variable("B"), None);
    }

    #[test]
    fn home_is_filled_in_only_when_unset_or_empty() {
        let filled = |env: &[&str]| {
            let mut command = command(&["x"], env).unwrap();
            command.complete(|| "/found".into());
            command.variable("HOME").unwrap().to_owned()
        };
        assert_eq!(filled(&[]), "/found");
        assert_eq!(filled(&["HOME="]), "/found");
        assert_eq!(filled(&["HOME=/set"]), "/set");
    }

    #[test]
    fn a_name_is_looked_for_in_absolute_directories_of_the_path_only() {
        let command = command(&["no-such-command"], &["PATH=:.:relative:/no/such/dir"]).unwrap();
        let expected = Error::Command { command: "no-such-command".into(), problem: Unrunnable::NotInPath };
        assert_eq!(command.execute(&command.find()).unwrap_err(), expected);
    }

    #[test]
    fn the_shims_own_binary_is_not_run() {
        let command = command(&["/proc/self/exe"], &[]).unwrap();
        let expected =
            Error::Command { command: "/proc/self/exe".into(), problem: Unrunnable::PermissionDenied };
        assert_eq!(command.execute(&command.find()).unwrap_err(), expected);
    }

    #[test]
    fn strings_with_nul_are_refused_by_name() {
        let error = command(&["x", "a\0b"], &[]).unwrap_err();
        assert!(error.to_string().contains("process.args"), "{error}");
    }
}
