//! The socket between the shim and the processes that become a container: typed reports up, one byte down.
//!
//! It is close-on-exec: end-of-file without a failure means that execve worked. The kernel says who has sent a report, so that
//! a process that has become the container's cannot speak for the stage.

use super::error::At;
use super::hooks::LaterHooks;
use super::{Error, Step};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt::set_socket_passcred,
};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// More than any report: paths in it are at most 4 KiB long, errors are shortened.
const REPORT_SIZE: usize = 32 * 1024;
/// Descriptors in one report: the namespaces of a pod.
const MAX_DESCRIPTORS: usize = 6;

/// What the processes on the way to execve tell the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The stage is going to make this cgroup.
    Group(String),
    /// The stage has made a process of this host pid that does the rest in its place, and waits for its end.
    Helper {
        /// Host pid.
        pid: u32,
    },
    /// The stage has made the process of this host pid, and is done.
    Spawned {
        /// Host pid.
        pid: u32,
        /// What is left to be run when the stage is gone.
        later: LaterHooks,
    },
    /// Set up; what it has to hand over (a terminal's master, a pod's namespaces) is attached.
    Ready {
        /// What the attached descriptors are, in order.
        attached: Vec<Attached>,
    },
    /// Given up.
    Failed(Error),
}

/// What a descriptor that comes with a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(super) enum Attached {
    Console,
    Net,
    Ipc,
    Uts,
    User,
    Shm,
}

/// Something that was received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) report: Report,
    pub(super) attached: Vec<OwnedFd>,
    /// Host pid of who has sent it.
    pub(super) sender: u32,
}

/// Both ends; the first is the shim's.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let what = || "make a socket pair".to_owned();
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.at(Step::Process, what)?;
    set_socket_passcred(&ours, true).at(Step::Process, what)?;
    Ok((ours, theirs))
}

/// Sends a report; a shim that is gone is no error, for then nobody is left to tell.
pub(super) fn send(socket: BorrowedFd<'_>, report: &Report, descriptors: &[BorrowedFd<'_>]) {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let _ = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
}

/// Reports a failure.
pub(super) fn fail(socket: BorrowedFd<'_>, error: Error) {
    send(socket, &Report::Failed(error.shortened()), &[]);
}

/// Waits, in a process of ours, for the byte that opens the gate; false when the shim is gone or has given up.
pub(super) fn wait_for_gate(socket: BorrowedFd<'_>) -> bool {
    let mut byte = [0u8; 1];
    loop {
        match rustix::net::recv(socket, &mut byte, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((_, count)) => return count == 1,
            Err(_) => return false,
        }
    }
}

/// Whether the shim still holds its end.
pub(super) fn shim_lives(socket: BorrowedFd<'_>) -> bool {
    let mut byte = [0u8; 1];
    rustix::net::recv(socket, &mut byte, RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
}

/// Receives a report and what is attached; `None` at end-of-file.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Received>, Errno> {
    let mut bytes = vec![0u8; REPORT_SIZE];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // A child that ends meanwhile interrupts it: the shim is told of that by a signal.
    let got = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let got = match got {
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        // What was sent along has found no room.
        return Err(Errno::MFILE);
    }
    let (mut attached, mut sender) = (Vec::new(), None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => attached.extend(rights),
            RecvAncillaryMessage::ScmCredentials(who) => sender = Some(who.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    let report = serde_json::from_slice(&bytes[..got.bytes]).map_err(|_| Errno::BADMSG)?;
    let sender = sender.ok_or(Errno::BADMSG)?.cast_unsigned();
    Ok(Some(Received { report, attached, sender }))
}

/// The shim's end.
#[derive(Debug)]
pub(super) struct Reports(AsyncFd<OwnedFd>);

impl Reports {
    /// Must be called within the runtime.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true).at(Step::Process, || "set up a socket".into())?;
        crate::sys::watched(socket).map(Self).at(Step::Process, || "watch a socket".into())
    }

    /// The next report; `None` at end-of-file.
    pub(super) async fn next(&self) -> Result<Option<Received>, Error> {
        self.0
            .async_io(Interest::READABLE, |socket| Ok(receive(socket.as_fd())?))
            .await
            .at(Step::Process, || "receive a report".into())
    }

    /// A report that is there already.
    pub(super) fn there(&self) -> Result<Option<Received>, Error> {
        match receive(self.0.get_ref().as_fd()) {
            Err(Errno::AGAIN) => Ok(None),
            other => other.at(Step::Process, || "receive a report".into()),
        }
    }

    /// Lets the process at the gate go on.
    pub(super) fn open_gate(&self) -> Result<(), Error> {
        rustix::net::send(self.0.get_ref(), b"g", SendFlags::NOSIGNAL)
            .map(drop)
            .at(Step::Exec, || "the container's process is gone: open its gate".into())
    }
}
