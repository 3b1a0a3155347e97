//! The socket between the shim and the processes that become a container: typed reports up, one byte down.
//!
//! It is close-on-exec: end-of-file without a failure means that execve worked. Each report carries its sender's pid
//! from the kernel (SCM_CREDENTIALS), so that a process of the container cannot pass as the stage.

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

/// More than any report: paths in it are at most 4 KiB long, and errors are shortened.
const REPORT_SIZE: usize = 32 * 1024;
/// Maximum number of descriptors in one report: the namespaces of a pod.
const MAX_DESCRIPTORS: usize = 6;

/// Reports to the shim from the processes on the way to execve.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The stage is about to create this cgroup.
    Group(String),
    /// The stage has made a helper that finishes the work in its place, and waits for the helper's end.
    Helper {
        /// Host pid.
        pid: u32,
    },
    /// The stage has made the container's or exec's process, and is done.
    Spawned {
        /// Host pid.
        pid: u32,
        /// Hooks to run after the stage has ended.
        later: LaterHooks,
    },
    /// Setup is complete; a terminal's master or a pod's namespaces are attached.
    Ready {
        /// Kinds of the attached descriptors, in order.
        attached: Vec<DescriptorKind>,
    },
    /// Setup failed.
    Failed(Error),
}

/// Kind of a descriptor attached to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(super) enum DescriptorKind {
    Console,
    Net,
    Ipc,
    Uts,
    User,
    Shm,
}

/// A report as received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) report: Report,
    pub(super) attached: Vec<OwnedFd>,
    /// Host pid of the sender.
    pub(super) sender: u32,
}

/// Makes the socket pair; the first end is the shim's.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let what = || "make a socket pair".to_owned();
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.at(Step::Process, what)?;
    set_socket_passcred(&ours, true).at(Step::Process, what)?;
    Ok((ours, theirs))
}

/// Sends a report. Failure is ignored: the shim is gone, so there is no one to report to.
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

/// Waits for the byte that opens the barrier, in a process on its way to execve. False when the shim is gone or has given up.
pub(super) fn wait_at_barrier(socket: BorrowedFd<'_>) -> bool {
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

/// Receives a report with its descriptors; `None` at end-of-file.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Received>, Errno> {
    let mut bytes = vec![0u8; REPORT_SIZE];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // SIGCHLD interrupts this call when a child ends meanwhile.
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
        // The attached descriptors exceed the limit of open descriptors.
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

/// The shim's end of the socket.
#[derive(Debug)]
pub(super) struct Reports(AsyncFd<OwnedFd>);

impl Reports {
    /// Must be called within the runtime.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true).at(Step::Process, || "set up a socket".into())?;
        crate::sys::watched(socket).map(Self).at(Step::Process, || "watch a socket".into())
    }

    /// Waits for the next report; `None` at end-of-file.
    pub(super) async fn next(&self) -> Result<Option<Received>, Error> {
        self.0
            .async_io(Interest::READABLE, |socket| Ok(receive(socket.as_fd())?))
            .await
            .at(Step::Process, || "receive a report".into())
    }

    /// The next report if it has arrived already.
    pub(super) fn try_next(&self) -> Result<Option<Received>, Error> {
        match receive(self.0.get_ref().as_fd()) {
            Err(Errno::AGAIN) => Ok(None),
            other => other.at(Step::Process, || "receive a report".into()),
        }
    }

    /// Lets the process that waits at the barrier go on.
    pub(super) fn release_barrier(&self) -> Result<(), Error> {
        rustix::net::send(self.0.get_ref(), b"g", SendFlags::NOSIGNAL)
            .map(drop)
            .at(Step::Exec, || "the container's process is gone: open its gate".into())
    }
}
