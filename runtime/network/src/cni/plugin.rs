//! One run of one plugin: its environment, input, output, and how it may end.

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

/// How long a plugin that was killed may take to be gone.
const BURIAL: Duration = Duration::from_secs(2);
/// A result larger than this is no result; the rest is read and dropped.
const STDOUT_LIMIT: u64 = 1 << 20;
/// How much of a plugin's diagnostics is kept; the rest is read and dropped.
const STDERR_LIMIT: u64 = 16 << 10;
/// How much of an output goes into an error.
const EXCERPT: usize = 512;

/// Where plugins are and how long one may run.
#[derive(Debug, Clone)]
pub(super) struct Plugins {
    directories: Vec<PathBuf>,
    search_path: OsString,
    limit: Duration,
}

/// What a plugin is asked to do; absent parts are passed as empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call<'a> {
    pub(super) command: &'static str,
    pub(super) pod: &'a str,
    pub(super) netns: &'a str,
    pub(super) interface: &'a str,
    pub(super) arguments: &'a str,
}

/// What a plugin left when it ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// CNI's error object.
#[derive(Deserialize)]
struct Reported {
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

    /// The same, each of which may run no longer than `limit`.
    pub(super) fn within(&self, limit: Duration) -> Plugins {
        Plugins { limit: self.limit.min(limit), ..self.clone() }
    }

    /// Runs the plugin `kind` with `request` as its input; its answer is none when it said nothing.
    pub(super) async fn run(
        &self,
        kind: &str,
        call: Call<'_>,
        request: &[u8],
    ) -> Result<Option<Value>, PluginFailure> {
        let child = self.start(&self.find(kind)?, call).map_err(PluginFailure::Spawn)?;
        let ended = self.converse(child, request).await?;
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

    /// Starts the plugin in a process group of its own, so that it can be killed with its children.
    /// Nothing here needs a `pre_exec`: the standard library then spawns without copying our memory.
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
            .inspect(descriptors::put_back)
    }

    /// Feeds the plugin and listens until it has ended and closed its outputs, or its time is over.
    async fn converse(&self, mut child: Child, request: &[u8]) -> Result<Ended, PluginFailure> {
        let group = child.id();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut answer, mut diagnostics) = (Vec::new(), Vec::new());
        let conversation = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A plugin that does not read its input is judged by its answer.
                    let _ = stdin.write_all(request).await;
                }
            };
            tokio::join!(
                feed,
                collect(stdout, STDOUT_LIMIT, &mut answer),
                collect(stderr, STDERR_LIMIT, &mut diagnostics)
            );
            child.wait().await
        };
        let outcome = timeout(self.limit, conversation).await;
        let stderr = excerpt(&diagnostics, STDERR_LIMIT as usize);
        match outcome {
            Ok(Ok(status)) => Ok(Ended { status, stdout: answer, stderr }),
            Ok(Err(error)) => Err(PluginFailure::Spawn(error)),
            Err(_) => {
                kill(group);
                // The kill cannot be refused, but it waits for a kernel that does not let the plugin go.
                match timeout(BURIAL, child.wait()).await {
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
    // A read that fails ends the output as its end would; the exit status tells more.
    let _ = (&mut output).take(limit).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
}

/// Kills the plugin's process group. The leader is not yet waited for, so its id is still its own.
fn kill(group: Option<u32>) {
    if let Some(group) = group.and_then(|id| Pid::from_raw(id as i32)) {
        // Already gone is as good as killed.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Ended {
    /// Why it did not do what it was asked to.
    pub(super) fn failure(&self) -> PluginFailure {
        let stderr = self.stderr.clone();
        match serde_json::from_slice::<Reported>(&self.stdout) {
            Ok(Reported { code, msg: message, details }) => {
                PluginFailure::Reported { code, message, details, stderr }
            }
            Err(_) => PluginFailure::Ended {
                status: self.status.to_string(),
                stdout: excerpt(&self.stdout, EXCERPT),
                stderr,
            },
        }
    }

    fn garbage(&self, error: &serde_json::Error) -> PluginFailure {
        let why = match self.stdout.len() as u64 {
            STDOUT_LIMIT => format!("more than {STDOUT_LIMIT} bytes"),
            _ => error.to_string(),
        };
        PluginFailure::Garbage { why, stdout: excerpt(&self.stdout, EXCERPT), stderr: self.stderr.clone() }
    }
}

fn excerpt(bytes: &[u8], limit: usize) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    shown.trim().to_owned()
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
