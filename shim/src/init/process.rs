//! What the container's first process and every exec have in common: from being in the right namespaces to execve.

use super::capabilities::{self, Sets};
use super::channel::{self, Attached, Report};
use super::command::Command;
use super::error::At;
use super::idmap::IdMappings;
use super::security::Label;
use super::terminal::{self, Terminal};
use super::{Error, Stdio, Step, cwd, devices, limits, priority, user};
use crate::{seccomp::Filter, spec, sys};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fstat};
use rustix::thread::CapabilitySet;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process that is known to be well-formed, prepared before it is made.
#[derive(Debug)]
pub(super) struct Process<'a> {
    spec: &'a spec::Process,
    command: Command,
    capabilities: Sets,
    filter: Option<Filter>,
    stdio: &'a Stdio,
    null: OwnedFd,
    proc: OwnedFd,
    terminal: bool,
}

/// First thing in a fork of the shim: no handler or blocked signal of the shim's, no life without the shim, and no way in
/// for a process of the container that comes to see this one.
pub(super) fn begin() -> Result<(), Error> {
    sys::reset_signals();
    user::die_with_shim()?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .at(Step::Process, || "hide from the container".into())
}

impl<'a> Process<'a> {
    /// Checks the spec and does what needs the host's privileges. `users` maps the ids, if the process will be in a user namespace.
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
            .try_for_each(|pipe| own_pipe(pipe.as_fd(), owner))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc =
            rustix::fs::open("/proc", flags, Mode::empty()).at(Step::Process, || "open /proc".into())?;
        Ok(Self {
            spec,
            command: Command::parse(&spec.args, &spec.env)?,
            capabilities: Sets::parse(spec.capabilities.as_ref())?.cut_to(capabilities::of_host()?),
            filter: None,
            stdio,
            null: devices::null()?,
            proc,
            terminal,
        })
    }

    /// Makes the filter of this section, for [`Self::execute`] to put in force.
    pub(super) fn filtered(mut self, section: Option<&RawValue>) -> Result<Self, Error> {
        self.filter = section.map(Filter::prepare).transpose()?;
        Ok(self)
    }

    /// See [`Label::open`].
    pub(super) fn label(&self) -> Result<Label, Error> {
        Label::open(self.spec, self.proc.as_fd())
    }

    /// Opens the terminal if one is wanted. The root must be the container's.
    pub(super) fn terminal(&self) -> Result<Option<Terminal>, Error> {
        if !self.terminal {
            return Ok(None);
        }
        terminal::open_new(self.spec.console_size).map(Some)
    }

    /// Streams, directory, limits, user; then reports being ready and lets go of every other descriptor.
    pub(super) fn settle(
        &mut self,
        terminal: Option<Terminal>,
        mut label: Label,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        self.streams(terminal.as_ref())?;
        let entered = cwd::enter(&self.spec.cwd)?;
        label.apply()?;
        limits::set(&self.spec.rlimits)?;
        priority::set(self.spec)?;
        user::become_user(self.spec, &self.capabilities.holding(self.needed_later()))?;
        if !entered {
            cwd::enter_as_user(&self.spec.cwd)?;
        }
        self.command.complete(|| user::home_of(self.spec.user.uid));
        match &terminal {
            Some(terminal) => {
                let attached = vec![Attached::Console];
                channel::send(socket, &Report::Ready { attached }, &[terminal.master.as_fd()]);
            }
            None => channel::send(socket, &Report::Ready { attached: Vec::new() }, &[]),
        }
        Ok(())
    }

    /// What the process must keep until [`Self::execute`].
    fn needed_later(&self) -> CapabilitySet {
        match self.filter {
            Some(_) if !self.spec.no_new_privileges => CapabilitySet::SYS_ADMIN,
            _ => CapabilitySet::empty(),
        }
    }

    /// The filter, and then execve: as little as can be is done under it, for it may forbid anything. Returns on failure
    /// only.
    pub(super) fn execute(&self) -> Result<Infallible, Error> {
        let candidates = self.command.find();
        if let Some(filter) = &self.filter {
            self.capabilities.raise(self.needed_later())?;
            filter.load().at(Step::Seccomp, || "load the filter".into())?;
            self.capabilities.lower(self.needed_later())?;
        }
        self.command.execute(&candidates)
    }

    fn streams(&self, terminal: Option<&Terminal>) -> Result<(), Error> {
        if let Some(terminal) = terminal {
            terminal.control()?;
            own(terminal.slave.as_fd(), self.spec.user.uid)?;
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

/// Lets the user open his streams again by `/dev/stdout` and the like.
fn own_pipe(stream: BorrowedFd<'_>, uid: u32) -> Result<(), Error> {
    let mode = fstat(stream).at(Step::Process, || "stat a stream".into())?.st_mode;
    if FileType::from_raw_mode(mode) == FileType::Fifo { own(stream, uid) } else { Ok(()) }
}

fn own(stream: BorrowedFd<'_>, uid: u32) -> Result<(), Error> {
    fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>).at(Step::Process, || "own a stream".into())
}
