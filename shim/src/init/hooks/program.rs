//! One hook: a program that runs to its end or its timeout.

use super::super::child;
use super::super::error::At;
use super::super::{Error, Step, user};
use crate::spec::Hook;
use crate::{descriptors, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, SeekFrom, memfd_create, seek};
use rustix::io::{read, retry_on_intr, write};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, setpgid, waitid,
};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a hook's output that are reported.
const MAX_OUTPUT_BYTES: usize = 1024;
/// Exit code for a program that could not be executed, as in a shell.
const EXIT_NOT_EXECUTED: u8 = 127;

/// Runs `hook` with `state` on its standard input.
pub(super) fn run(when: &str, hook: &Hook, state: &[u8]) -> Result<(), Error> {
    let failed = |problem: String| Error::Hook { when: when.to_owned(), path: hook.path.clone(), problem };
    let program = Program::of(hook).ok_or_else(|| failed("no absolute path, or a NUL byte in it".into()))?;
    let (input, output) = (memory_file()?, memory_file()?);
    write(&input, state)
        .and_then(|_| seek(&input, SeekFrom::Start(0)))
        .at(Step::Hook, || "write the state".into())?;
    let pid = sys::clone_child(0, || program.become_hook(input.as_fd(), output.as_fd()))
        .at(Step::Hook, || "make a process for a hook".into())?;
    match ended(pid, hook.timeout)? {
        None => Err(failed(format!("took longer than {} s", hook.timeout.unwrap_or_default()))),
        Some(status) if status.exit_status() == Some(0) => Ok(()),
        Some(status) => Err(failed(format!("{}{}", describe_status(&status), excerpt(&output)))),
    }
}

/// A command line as C strings.
struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn of(hook: &Hook) -> Option<Self> {
        let all = |list: &[String]| -> Option<Vec<CString>> {
            list.iter().map(|one| CString::new(one.as_str()).ok()).collect()
        };
        let path = CString::new(hook.path.as_str()).ok().filter(|_| hook.path.starts_with('/'))?;
        let args = all(&hook.args)?;
        let args = if args.is_empty() { vec![path.clone()] } else { args };
        Some(Self { path, args, env: all(&hook.env)? })
    }

    /// In the new process. It leads a process group, so that it can be killed with its children.
    fn become_hook(&self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> u8 {
        let _ = user::die_with_shim();
        let _ = setpgid(None, None);
        descriptors::restore();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        for (stream, number) in [(input, 0), (output, 1), (output, 2)] {
            if sys::place(stream, number).is_err() {
                return EXIT_NOT_EXECUTED;
            }
        }
        let Err(error) = nix::unistd::execve(&self.path, &self.args, &self.env);
        let _ = write(output, error.desc().as_bytes());
        EXIT_NOT_EXECUTED
    }
}

/// A file in memory. A pipe would block its writer, since no process reads it meanwhile.
fn memory_file() -> Result<OwnedFd, Error> {
    memfd_create("hook", MemfdFlags::CLOEXEC).at(Step::Hook, || "make a file in memory".into())
}

/// Waits for the end; `None` when it was killed after its timeout.
fn ended(pid: u32, time_limit: Option<i64>) -> Result<Option<WaitIdStatus>, Error> {
    let process = child::pidfd_of(pid)?;
    let time_limit = time_limit.filter(|seconds| *seconds > 0).map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
    let waited = retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], time_limit.as_ref()));
    let in_time = waited.at(Step::Hook, || "wait for a hook".into())? > 0;
    if !in_time && let Some(group) = Pid::from_raw(pid as i32) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = retry_on_intr(|| waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED));
    Ok(status.at(Step::Hook, || "wait for a hook".into())?.filter(|_| in_time))
}

fn describe_status(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// The beginning of its output.
fn excerpt(output: &OwnedFd) -> String {
    let mut bytes = vec![0; MAX_OUTPUT_BYTES];
    let printed = seek(output, SeekFrom::Start(0)).and_then(|_| read(output, &mut bytes));
    let text = String::from_utf8_lossy(&bytes[..printed.unwrap_or(0)]).trim().to_owned();
    if text.is_empty() { text } else { format!(": {text}") }
}
