//! Terminals from the container's own devpts.

use super::error::At;
use super::inroot::{InRoot, open_at};
use super::{Error, Step, filesystem};
use crate::spec::ConsoleSize;
use rustix::fs::{OFlags, fstat, fstatfs, makedev};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const DEVPTS: i64 = 0x1cd1;

/// Both ends of a pseudoterminal, pty(7).
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// Opens a new terminal of the container with this root. The slave is opened through the master (TIOCGPTPEER), not by
/// name: the container could have put something else there.
pub(super) fn open_new(root: InRoot<'_>, size: Option<ConsoleSize>) -> Result<Terminal, Error> {
    let what = || "open /dev/pts/ptmx".to_owned();
    let master = open_multiplexer(root)?;
    rustix::io::ioctl_fionbio(&master, false).at(Step::Terminal, what)?;
    unlockpt(&master).at(Step::Terminal, || "unlock".into())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).at(Step::Terminal, || "open the other end".into())?;
    if let Some(size) = size {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).at(Step::Terminal, || "set the size".into())?;
    }
    Ok(Terminal { master, slave })
}

/// Opens ptmx only in a devpts and not covered by a mount: opening some other device may already have side effects.
fn open_multiplexer(root: InRoot<'_>) -> Result<OwnedFd, Error> {
    let what = || "open /dev/pts/ptmx".to_owned();
    let none =
        || Error::invalid(Step::Terminal, "/dev/pts/ptmx in the container is not a terminal multiplexer");
    let directory = root.find(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY);
    let directory = directory.at(Step::Terminal, what)?;
    if fstatfs(&directory).at(Step::Terminal, what)?.f_type != DEVPTS {
        return Err(none());
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let master = match open_at(directory.as_fd(), Path::new("ptmx"), flags) {
        Err(Errno::XDEV | Errno::LOOP) => return Err(none()),
        other => other.at(Step::Terminal, what)?,
    };
    let is_ptmx = fstat(&master).at(Step::Terminal, what)?.st_rdev == makedev(5, 2);
    if is_ptmx { Ok(master) } else { Err(none()) }
}

impl Terminal {
    /// Bind-mounts the slave to `/dev/console` of a new container. Fails if a symlink is there (CVE-2025-52565).
    pub(super) fn bind_console(&self, root: InRoot<'_>) -> Result<(), Error> {
        let what = || "bind to /dev/console".to_owned();
        let console = root.file_without_links(Path::new("/dev/console")).at(Step::Terminal, what)?;
        let tree = filesystem::copy_of(self.slave.as_fd(), false).at(Step::Terminal, what)?;
        filesystem::attach(tree.as_fd(), console.as_fd()).at(Step::Terminal, what)
    }
}

/// Makes `terminal` the controlling terminal; the process must lead a session.
pub(super) fn control(terminal: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::process::ioctl_tiocsctty(terminal).at(Step::Terminal, || "take control".into())
}
