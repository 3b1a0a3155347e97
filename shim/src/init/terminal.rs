//! A terminal from the container's own devpts.

use super::error::At;
use super::{Error, Step, filesystem};
use crate::spec::ConsoleSize;
use rustix::fs::{Mode, OFlags, fstat, fstatfs, makedev, open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};

const DEVPTS: i64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// Opens a new terminal in the container that the process is in. Its end is asked for by descriptor, not by a name that the
/// container could have given to something else.
pub(super) fn open_new(size: Option<ConsoleSize>) -> Result<Terminal, Error> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let what = || "open /dev/pts/ptmx".to_owned();
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).at(Step::Terminal, what)?;
    let is_ptmx = fstat(&master).at(Step::Terminal, what)?.st_rdev == makedev(5, 2);
    if !is_ptmx || fstatfs(&master).at(Step::Terminal, what)?.f_type != DEVPTS {
        return Err(Error::invalid(
            Step::Terminal,
            "/dev/pts/ptmx in the container is not a terminal multiplexer",
        ));
    }
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

impl Terminal {
    /// Makes it `/dev/console` of a container in the making.
    pub(super) fn bind_console(&self) -> Result<(), Error> {
        let what = || "bind to /dev/console".to_owned();
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDWR | OFlags::NOCTTY;
        let console = open("/dev/console", flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o600))
            .at(Step::Terminal, what)?;
        let tree = filesystem::copy_of(self.slave.as_fd(), false).at(Step::Terminal, what)?;
        filesystem::attach(tree.as_fd(), console.as_fd()).at(Step::Terminal, what)
    }

    /// Makes it the controlling terminal; the process must lead a session.
    pub(super) fn control(&self) -> Result<(), Error> {
        rustix::process::ioctl_tiocsctty(&self.slave).at(Step::Terminal, || "take control".into())
    }
}
