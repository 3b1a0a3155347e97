//! Entry point of `containerd-shim-berth-v1`.

#![forbid(unsafe_code)]

use berth_shim::bootstrap::{self, Action, Error, Flags};
use berth_shim::foreign::pause;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The daemon shows this line. If stderr cannot be written to, there is no other place to report.
            let _ = writeln!(io::stderr(), "containerd-shim-berth-v1: {}", error.line());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let flags = Flags::parse(std::env::args().skip(1))?;
    match flags.action {
        Action::Start => bootstrap::start(&flags),
        Action::Delete => bootstrap::delete(&flags),
        Action::Serve => bootstrap::serve_here(&flags),
        Action::Pause => pause(),
        Action::Version => print(bootstrap::version().as_bytes()),
        Action::Info => print(&bootstrap::info()),
    }
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    io::stdout().write_all(bytes).map_err(|error| Error::Usage(error.to_string()))
}
