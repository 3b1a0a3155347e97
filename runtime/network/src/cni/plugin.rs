//! One run of one plugin: environment, input, output and time limit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::PluginFailure;
use berth_work::descriptors;

/// How long to wait for a killed plugin to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest accepted result in bytes; the rest is read and dropped.
const MAX_STDOUT_BYTES: u64 = 1 << 20;
/// How many bytes of a plugin's standard error are kept; the rest is read and dropped.
const MAX_STDERR_BYTES: u64 = 16 << 10;
/// How many bytes of an output go into an error.
const MAX_EXCERPT_BYTES: usize = 512;

/// The plugins' directories and the time limit of one run.
#[derive(Debug, Clone)]
pub(super) struct Plugins {
    directories: Vec<PathBuf>,
    search_path: OsString,
    limit: Duration,
}

/// Parameters of one call, passed as CNI_* variables; absent ones are empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call<'a> {
    pub(super) command: &'static str,
    pub(super) pod: &'a str,
    pub(super) netns: &'a str,
    pub(super) interface: &'a str,
    pub(super) arguments: &'a str,
}

/// Exit status and output of a plugin.
pub(super) struct PluginOutput {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// CNI's error object.
#[derive(Deserialize)]
struct CniError {
    code: u64,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugins {
    pub(super) fn new(directories: Vec<PathBuf>, limit: Duration) -> Plugins {
        let parts: Vec<_> = directories.iter().map(|directory| directory.as_os_str()).collect();
        let search_path = parts.join(":".as_ref());
        Plugins { directories, search_path, limit }
    }

    /// Returns the same plugins with a time limit of at most `limit`.
    pub(super) fn within(&self, limit: Duration) -> Plugins {
        Plugins { limit: self.limit.min(limit), ..self.clone() }
    }

    /// Runs the plugin `kind` with `request` on standard input. Returns its JSON output; none when it printed nothing.
    pub(super) async fn run(
        &self,
        kind: &str,
        call: Call<'_>,
        request: &[u8],
    ) -> Result<Option<Value>, PluginFailure> {
        let child = self.start(&self.find(kind)?, call).map_err(PluginFailure::Spawn)?;
        let ended = self.exchange(child, request).await?;
        if !ended.status.success() {
            return Err(ended.failure());
        }
        match ended.stdout.trim_ascii() {
            [] => Ok(None),
            answer => serde_json::from_slice(answer).map(Some).map_err(|error| ended.garbage(&error)),
        }
    }

    fn find(&self, kind: &str) -> Result<PathBuf, PluginFailure> {
        let candidates = self.directories.iter().map(|directory| directory.join(kind));
        candidates
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| PluginFailure::Missing { searched: self.directories.clone() })
    }

    /// Starts the plugin in its own process group, so that its children can be killed with it. There is no `pre_exec`,
    /// so that the standard library can use posix_spawn, which does not copy the daemon's page tables.
    fn start(&self, binary: &Path, call: Call<'_>) -> std::io::Result<Child> {
        Command::new(binary)
            .env("CNI_COMMAND", call.command)
            .env("CNI_CONTAINERID", call.pod)
            .env("CNI_NETNS", call.netns)
            .env("CNI_IFNAME", call.interface)
            .env("CNI_ARGS", call.arguments)
            .env("CNI_PATH", &self.search_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .inspect(descriptors::restore_limit)
    }

    /// Writes the plugin's input and reads its outputs until it has ended and closed them, or its time is over.
    async fn exchange(&self, mut child: Child, request: &[u8]) -> Result<PluginOutput, PluginFailure> {
        let group = child.id();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut answer, mut diagnostics) = (Vec::new(), Vec::new());
        let exchange = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // EPIPE is ignored: a plugin that does not read its input is judged by its answer.
                    let _ = stdin.write_all(request).await;
                }
            };
            tokio::join!(
                feed,
                collect(stdout, MAX_STDOUT_BYTES, &mut answer),
                collect(stderr, MAX_STDERR_BYTES, &mut diagnostics)
            );
            child.wait().await
        };
        let outcome = timeout(self.limit, exchange).await;
        let stderr = excerpt(&diagnostics, MAX_STDERR_BYTES as usize);
        match outcome {
            Ok(Ok(status)) => Ok(PluginOutput { status, stdout: answer, stderr }),
            Ok(Err(error)) => Err(PluginFailure::Spawn(error)),
            Err(_) => {
                kill(group);
                // SIGKILL cannot be caught, but a process that sleeps uninterruptibly or is frozen does not die of it.
                match timeout(EXIT_TIMEOUT, child.wait()).await {
                    Ok(_) => Err(PluginFailure::TimedOut { limit: self.limit, stderr }),
                    Err(_) => Err(PluginFailure::Stuck { limit: self.limit, stderr }),
                }
            }
        }
    }
}

/// Reads to the end of `output`, keeping no more than `limit` bytes.
async fn collect(output: Option<impl AsyncRead + Unpin>, limit: u64, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    // A read error counts as the end of the output; the exit status says more.
    let _ = (&mut output).take(limit).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
}

/// Kills the plugin's process group. The leader has not been reaped yet, so its pid has not been reused.
fn kill(group: Option<u32>) {
    if let Some(group) = group.and_then(|id| Pid::from_raw(id as i32)) {
        // ESRCH is fine: the group is gone.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl PluginOutput {
    /// Returns why the plugin failed: its CNI error, or else its status and output.
    pub(super) fn failure(&self) -> PluginFailure {
        let stderr = self.stderr.clone();
        match serde_json::from_slice::<CniError>(&self.stdout) {
            Ok(CniError { code, msg: message, details }) => {
                PluginFailure::Reported { code, message, details, stderr }
            }
            Err(_) => PluginFailure::Ended {
                status: self.status.to_string(),
                stdout: excerpt(&self.stdout, MAX_EXCERPT_BYTES),
                stderr,
            },
        }
    }

    fn garbage(&self, error: &serde_json::Error) -> PluginFailure {
        let why = match self.stdout.len() as u64 {
            MAX_STDOUT_BYTES => format!("more than {MAX_STDOUT_BYTES} bytes"),
            _ => error.to_string(),
        };
        PluginFailure::Garbage {
            why,
            stdout: excerpt(&self.stdout, MAX_EXCERPT_BYTES),
            stderr: self.stderr.clone(),
        }
    }
}

fn excerpt(bytes: &[u8], limit: usize) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    shown.trim().to_owned()
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
