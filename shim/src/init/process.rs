//! Setup shared by a container's first process and every exec: from the right namespaces to execve.

use super::capabilities::{self, Sets};
use super::command::Command;
use super::error::At;
use super::idmap::IdMappings;
use super::inroot::InRoot;
use super::terminal::{self, Terminal};
use super::{Error, Stdio, Step, cwd, devices, limits, personality, priority, step_file, user};
use crate::{seccomp::Filter, spec, sys};
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::thread::CapabilitySet;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process whose spec is checked, prepared before it is created.
#[derive(Debug)]
pub(super) struct PreparedProcess<'a> {
    spec: &'a spec::Process,
    command: Command,
    capabilities: Sets,
    filter: Option<Filter>,
    personality: Option<u32>,
    stdio: &'a Stdio,
    null: OwnedFd,
    terminal: bool,
    entered: bool,
}

/// First step in a fork of the shim: resets signals, ties its life to the shim's, closes all descriptors but those in
/// `kept`, and makes it undumpable, so that container processes cannot inspect it.
pub(super) fn begin(kept: &[BorrowedFd<'_>]) -> Result<(), Error> {
    sys::reset_signals();
    user::die_with_shim()?;
    let held = devices::held_null().into_iter().chain(step_file::descriptor());
    let kept: Vec<_> = kept.iter().copied().chain(held).collect();
    sys::close_others(&kept).at(Step::Process, || "close descriptors".into())?;
    set_undumpable()
}

/// Keeps processes of the container, unless they have CAP_SYS_PTRACE, from inspecting this one, prctl(2).
fn set_undumpable() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .at(Step::Process, || "hide from the container".into())
}

impl<'a> PreparedProcess<'a> {
    /// Checks the spec and does what needs the host's privileges. `users` are the mappings of its user namespace, if any.
    pub(super) fn prepare(
        spec: &'a spec::Process,
        terminal: bool,
        stdio: &'a Stdio,
        users: Option<&IdMappings>,
    ) -> Result<Self, Error> {
        let mut owner = spec.user.uid;
        if let Some(users) = users {
            users.check(&spec.user)?;
            limits::raise(&spec.rlimits)?;
            owner = users.host_uid(owner)?;
        }
        [&stdio.stdin, &stdio.stdout, &stdio.stderr]
            .into_iter()
            .flatten()
            .try_for_each(|pipe| chown_pipe(pipe.as_fd(), owner))?;
        Ok(Self {
            spec,
            command: Command::parse(&spec.args, &spec.env)?,
            capabilities: Sets::parse(spec.capabilities.as_ref())?.cut_to(capabilities::of_host()?),
            filter: None,
            personality: None,
            stdio,
            null: devices::null()?,
            terminal,
            entered: false,
        })
    }

    /// Adds the settings for all processes of the container: personality, and the seccomp filter, which [`Self::execute`] loads.
    pub(super) fn with_settings_of(mut self, linux: &spec::Linux) -> Result<Self, Error> {
        self.personality = linux.personality.as_ref().map(personality::of).transpose()?;
        self.filter = linux.seccomp.as_deref().map(Filter::prepare).transpose()?;
        Ok(self)
    }

    /// Opens a terminal in the container if one is wanted.
    pub(super) fn terminal(&self, root: InRoot<'_>) -> Result<Option<Terminal>, Error> {
        if !self.terminal {
            return Ok(None);
        }
        terminal::open_new(root, self.spec.console_size).map(Some)
    }

    /// Sets up the streams, and enters the working directory as far as root may.
    pub(super) fn set_up_stdio_and_cwd(
        &mut self,
        root: InRoot<'_>,
        terminal: Option<&Terminal>,
    ) -> Result<(), Error> {
        self.streams(terminal)?;
        self.entered = cwd::enter(root, &self.spec.cwd)?;
        Ok(())
    }

    /// Gives up all privileges the process is not to have; later steps need none.
    pub(super) fn drop_privileges(&mut self, root: InRoot<'_>) -> Result<(), Error> {
        priority::set(self.spec)?;
        if let Some(personality) = self.personality {
            sys::set_personality(personality)
                .at(Step::Process, || format!("set the personality to {personality:#x}"))?;
        }
        user::become_user(self.spec, &self.capabilities.holding(self.capabilities_for_filter()))?;
        // A change of credentials may make the process dumpable again.
        set_undumpable()?;
        if !self.entered {
            cwd::enter_as_user(root, &self.spec.cwd)?;
        }
        self.command.complete(|| user::home_of(root, self.spec.user.uid));
        Ok(())
    }

    /// Sets the resource limits. Hard limits must have been raised before, where the privilege for it is gone.
    pub(super) fn set_rlimits(&self) -> Result<(), Error> {
        limits::set(&self.spec.rlimits)
    }

    /// See [`priority::reset_on_fork`].
    pub(super) fn reset_priority_of_children(&self) -> Result<(), Error> {
        priority::reset_on_fork(self.spec)
    }

    /// Makes the terminal, if any, the controlling one of the session which the process leads.
    pub(super) fn control_terminal(&self) -> Result<(), Error> {
        if self.terminal { terminal::control(rustix::stdio::stdin()) } else { Ok(()) }
    }

    /// The descriptors that belong to this process.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = self.stdio.descriptors();
        all.push(self.null.as_fd());
        all
    }

    /// Capabilities to keep until the filter is loaded.
    fn capabilities_for_filter(&self) -> CapabilitySet {
        match self.filter {
            Some(_) if !self.spec.no_new_privileges => CapabilitySet::SYS_ADMIN,
            _ => CapabilitySet::empty(),
        }
    }

    /// Loads the filter now if that needs a privilege, so that the process made next starts without it. A filter that
    /// forbids one of the [`CALLS_UNTIL_EXECVE`] is left to [`Self::execute`].
    pub(super) fn load_filter_early(&mut self) -> Result<(), Error> {
        let privileged = !self.capabilities_for_filter().is_empty();
        if privileged && self.filter.as_ref().is_some_and(|filter| filter.allows(CALLS_UNTIL_EXECVE)) {
            self.load_filter()?;
            self.filter = None;
        }
        Ok(())
    }

    /// Loads the filter, then calls execve: as little as possible happens under the filter, which may forbid anything.
    /// Returns on failure only.
    pub(super) fn execute(&self) -> Result<Infallible, Error> {
        let candidates = self.command.find();
        self.load_filter()?;
        self.command.execute(&candidates)
    }

    fn load_filter(&self) -> Result<(), Error> {
        let Some(filter) = &self.filter else { return Ok(()) };
        self.capabilities.raise(self.capabilities_for_filter())?;
        filter.load().at(Step::Seccomp, || "load the filter".into())?;
        self.capabilities.lower(self.capabilities_for_filter())
    }

    fn streams(&self, terminal: Option<&Terminal>) -> Result<(), Error> {
        if let Some(terminal) = terminal {
            chown(terminal.slave.as_fd(), self.spec.user.uid)?;
        }
        let given = [&self.stdio.stdin, &self.stdio.stdout, &self.stdio.stderr];
        for (number, given) in given.into_iter().enumerate() {
            let stream = match terminal {
                Some(terminal) => terminal.slave.as_fd(),
                None => given.as_ref().unwrap_or(&self.null).as_fd(),
            };
            sys::place(stream, number as i32).at(Step::Process, || format!("set up stream {number}"))?;
        }
        Ok(())
    }
}

/// System calls from the clone of an exec's process to its execve, with those arguments that filters may check.
const CALLS_UNTIL_EXECVE: &[(libc::c_long, &[u64])] = &[
    (sys::LEGACY_CLONE.0, &[sys::LEGACY_CLONE.1]),
    (libc::SYS_capset, &[]),
    (libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]),
    (libc::SYS_write, &[]),
    (libc::SYS_setsid, &[]),
    (libc::SYS_ioctl, &[0, libc::TIOCSCTTY]),
    (libc::SYS_prlimit64, &[]),
    (libc::SYS_recvfrom, &[]),
    (libc::SYS_newfstatat, &[]),
    (libc::SYS_sendmsg, &[]),
    (libc::SYS_brk, &[]),
    (libc::SYS_mmap, &[]),
    (libc::SYS_munmap, &[]),
    (libc::SYS_exit_group, &[]),
];

/// Changes the owner of a pipe, so that the user can reopen it by `/dev/stdout` and the like.
fn chown_pipe(stream: BorrowedFd<'_>, uid: u32) -> Result<(), Error> {
    let mode = fstat(stream).at(Step::Process, || "stat a stream".into())?.st_mode;
    if FileType::from_raw_mode(mode) == FileType::Fifo { chown(stream, uid) } else { Ok(()) }
}

fn chown(stream: BorrowedFd<'_>, uid: u32) -> Result<(), Error> {
    fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>).at(Step::Process, || "own a stream".into())
}
