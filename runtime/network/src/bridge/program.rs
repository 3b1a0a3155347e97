//! Runs host programs such as `nft`. Each run has a time limit, since other calls wait for it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::Error;
use berth_work::descriptors;

/// Time limit of a run. The programs only talk to the kernel, which takes milliseconds.
const RUN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a killed program to be gone. After that tokio reaps it when it ends.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the command line `words` with `input` on standard input, and returns its standard output. Blocks the calling
/// thread.
///
/// # Errors
///
/// When the program cannot be run, fails (with its standard error) or is killed at the time limit; each names
/// `purpose`.
pub(super) fn run(purpose: &'static str, words: &[&str], input: &str) -> Result<String, Error> {
    run_within(RUN_TIMEOUT, purpose, words, input)
}

fn run_within(limit: Duration, purpose: &'static str, words: &[&str], input: &str) -> Result<String, Error> {
    let program = words.join(" ");
    let failed = |message: String| Error::Program { program: program.clone(), purpose, message };
    let not_run = |error: io::Error| failed(format!("cannot be run: {error}"));
    let mut files = StdioFiles::with(input).map_err(not_run)?;
    let ended = Handle::current().block_on(async {
        let mut child = files.spawn(words)?;
        match timeout(limit, child.wait()).await {
            Ok(status) => status.map(Some),
            Err(_) => kill(&mut child).await.map(|()| None),
        }
    });
    match ended.map_err(not_run)? {
        None => Err(Error::Hung { program, purpose, limit }),
        Some(status) if status.success() => content(&mut files.stdout).map_err(not_run),
        Some(status) => Err(failed(files.error_text(status))),
    }
}

/// A program's input and outputs, as files in memory, so that no side waits for the other end of a pipe.
struct StdioFiles {
    stdin: File,
    stdout: File,
    stderr: File,
}

impl StdioFiles {
    fn with(input: &str) -> io::Result<StdioFiles> {
        let file = || memfd_create(c"berth-program", MemfdFlags::CLOEXEC).map(File::from);
        let mut files = StdioFiles { stdin: file()?, stdout: file()?, stderr: file()? };
        files.stdin.write_all(input.as_bytes())?;
        files.stdin.rewind()?;
        Ok(files)
    }

    /// Starts the program in its own process group, so that its children can be killed with it.
    fn spawn(&self, words: &[&str]) -> io::Result<Child> {
        Command::new(words.first().unwrap_or(&""))
            .args(words.iter().skip(1))
            .stdin(Stdio::from(self.stdin.try_clone()?))
            .stdout(Stdio::from(self.stdout.try_clone()?))
            .stderr(Stdio::from(self.stderr.try_clone()?))
            .process_group(0)
            .spawn()
            .inspect(descriptors::restore_limit)
    }

    fn error_text(&mut self, status: ExitStatus) -> String {
        match content(&mut self.stderr).unwrap_or_default().trim() {
            "" => status.to_string(),
            words => words.to_owned(),
        }
    }
}

async fn kill(child: &mut Child) -> io::Result<()> {
    // Not reaped yet, so the pid has not been reused.
    if let Some(group) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        // ESRCH is fine: the group is gone.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = timeout(EXIT_TIMEOUT, child.wait()).await;
    Ok(())
}

fn content(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Kind;

    async fn shell(script: &'static str, input: &'static str) -> Result<String, Error> {
        let limit = Duration::from_millis(300);
        let work = move || run_within(limit, "try it", &["sh", "-c", script], input);
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    #[tokio::test]
    async fn what_a_program_prints_comes_back_and_its_complaint_with_the_purpose() {
        assert_eq!(run_within_minutes("cat; echo done", "given ").await.unwrap(), "given done\n");
        let error = run_within_minutes("echo no such table >&2; exit 1", "").await.unwrap_err().to_string();
        assert!(error.ends_with("(try it): no such table"), "{error}");
        let error = run_within_minutes("exit 3", "").await.unwrap_err().to_string();
        assert!(error.ends_with("(try it): exit status: 3"), "{error}");
    }

    async fn run_within_minutes(script: &'static str, input: &'static str) -> Result<String, Error> {
        let work = move || run_within(Duration::from_secs(120), "try it", &["sh", "-c", script], input);
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children_and_the_error_says_what_it_was_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // The child holds the fifo open for writing: reading it to its end shows that the child is gone too.
        let script = format!("trap '' TERM; sleep 1000 > {} & wait", fifo.display());
        let reader = std::thread::spawn(move || std::fs::read(fifo).unwrap());
        let error = shell(script.leak(), "").await.unwrap_err();
        assert!(error.to_string().contains("(try it) did not end within 300ms"), "{error}");
        assert_eq!(error.kind(), Kind::TimedOut);
        assert_eq!(reader.join().unwrap(), b"");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let work = || run("try it", &["/no/such/program"], "");
        let error = tokio::task::spawn_blocking(work).await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with("/no/such/program (try it): cannot be run: No such file"), "{error}");
    }
}
