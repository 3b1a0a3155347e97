//! The last step: finding the command as the user who runs it, and execve.

use super::error::At;
use super::{Error, Step, Unrunnable};
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, statat};
use std::convert::Infallible;
use std::ffi::{CStr, CString};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command line and environment in the kernel's form, checked before anything is made.
#[derive(Debug)]
pub(super) struct Command {
    name: String,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// From the spec's strings, none of which may hold a NUL; the command must not be empty.
    pub(super) fn parse(args: &[String], env: &[String]) -> Result<Self, Error> {
        let name =
            args.first().ok_or_else(|| Error::invalid(Step::Exec, "no command: process.args is empty"))?;
        if name.is_empty() {
            return Err(Error::Command { command: String::new(), problem: Unrunnable::NotInPath });
        }
        Ok(Self { name: name.clone(), args: c_strings("args", args)?, env: c_strings("env", env)? })
    }

    /// The last value of a variable; of a repeated name the last one counts.
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

    /// Sets `HOME` from the container's users when the spec left it out.
    pub(super) fn complete(&mut self, home: impl FnOnce() -> String) {
        if self.variable("HOME").is_none_or(str::is_empty) {
            self.env.retain(|entry| entry.as_bytes() != b"HOME=");
            self.env.extend(CString::new(format!("HOME={}", home())));
        }
    }

    /// Becomes the command.
    pub(super) fn execute(&self) -> Result<Infallible, Error> {
        if self.name.contains('/') {
            return Err(self.attempt(&self.name).unwrap_or_else(|| self.problem(Unrunnable::NotFound)));
        }
        let mut denied = None;
        for directory in
            self.variable("PATH").unwrap_or(DEFAULT_PATH).split(':').filter(|d| d.starts_with('/'))
        {
            match self.attempt(&format!("{directory}/{}", self.name)) {
                None => {}
                Some(Error::Command { problem, .. })
                    if matches!(problem, Unrunnable::PermissionDenied | Unrunnable::IsDirectory) =>
                {
                    denied.get_or_insert(problem);
                }
                Some(error) => return Err(error),
            }
        }
        Err(self.problem(denied.unwrap_or(Unrunnable::NotInPath)))
    }

    /// Returns only when the file could not be executed; `None` when there is no such file.
    fn attempt(&self, path: &str) -> Option<Error> {
        let Ok(file) = CString::new(path) else { return None };
        let Err(error) = nix::unistd::execve(&file, &self.args, &self.env);
        let stat = statat(CWD, &file, AtFlags::empty());
        let is_directory = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        Some(match error {
            nix::Error::ENOENT | nix::Error::ENOTDIR if !exists(&file) => return None,
            nix::Error::ENOENT => self.problem(Unrunnable::NoInterpreter),
            nix::Error::EACCES if is_directory => self.problem(Unrunnable::IsDirectory),
            nix::Error::EACCES | nix::Error::EPERM => self.problem(Unrunnable::PermissionDenied),
            nix::Error::ENOEXEC => self.problem(Unrunnable::ExecFormat),
            other => match Err::<Infallible, _>(other).at(Step::Exec, || format!("{path:?}")) {
                Err(error) => error,
                Ok(never) => match never {},
            },
        })
    }

    fn problem(&self, problem: Unrunnable) -> Error {
        Error::Command { command: self.name.clone(), problem }
    }
}

fn exists(file: &CStr) -> bool {
    accessat(CWD, file, Access::EXISTS, AtFlags::empty()).is_ok()
}

fn c_strings(field: &str, strings: &[String]) -> Result<Vec<CString>, Error> {
    let convert = |string: &String| {
        CString::new(string.as_str())
            .map_err(|_| Error::invalid(Step::Exec, format!("process.{field} has a NUL byte in {string:?}")))
    };
    strings.iter().map(convert).collect()
}
