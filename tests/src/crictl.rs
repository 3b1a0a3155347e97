//! crictl as users run it: with pipes or a terminal as its standard streams.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
};

use crate::berth::Berth;

/// Values of crictl's `--transport`.
pub const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// The command `crictl COMMAND --transport TRANSPORT ARGS`, not run yet.
pub fn crictl(berth: &Berth, command: &str, transport: &str, args: &[&str]) -> Command {
    let endpoint = format!("unix://{}", berth.path().join("berth.sock").display());
    let mut crictl = Command::new(crate::program("BERTH_TEST_CRICTL"));
    crictl.args(["--runtime-endpoint", &endpoint, "--timeout", "30s", command, "--transport", transport]);
    crictl.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    crictl
}

/// Runs the command to its end with `input` on its standard input.
pub fn run(crictl: &mut Command, input: &[u8]) -> Output {
    let mut child = crictl.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

/// A running process. Dropping it kills it.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Kills the process and reaps it.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Reads the process's standard output until it holds `text`, and returns all that was read.
    pub fn until(&mut self, text: &str) -> String {
        until(self.0.stdout.as_mut().unwrap(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process on a pseudo-terminal; the test holds the master side.
pub struct Terminal {
    child: Running,
    ours: File,
}

impl Terminal {
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let pty = nix::pty::openpty(&size(columns, rows), None).unwrap();
        let theirs = || -> OwnedFd { pty.slave.try_clone().unwrap() };
        let child = Running::start(command.stdin(theirs()).stdout(theirs()).stderr(theirs()));
        // Descriptors of the slave side left in `command` would keep the terminal open after the process has ended.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child, ours: pty.master.into() }
    }

    pub fn write(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    /// Reads the terminal's output until it holds `text`, and returns all that was read.
    pub fn until(&mut self, text: &str) -> String {
        until(&mut self.ours, text)
    }

    /// Changes the terminal's size and sends SIGWINCH to the process.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.ours, size).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.0.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).unwrap();
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.0.wait().unwrap()
    }
}

fn size(columns: u16, rows: u16) -> nix::pty::Winsize {
    nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn until(from: &mut impl Read, text: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(text) {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => panic!("it ended before {text:?} came: {seen}"),
            Ok(read) => seen += &String::from_utf8_lossy(&buffer[..read]),
        }
    }
    seen
}
