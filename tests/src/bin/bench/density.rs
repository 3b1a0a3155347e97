//! Twenty pods at once: their start, their memory, and how soon a killed daemon lists them again.

use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use berth_cri::v1::ListContainersRequest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::task::JoinSet;

use crate::{
    Result, process,
    report::{
        Report,
        Unit::{Megabytes, Milliseconds},
    },
    runtime::{Pod, Runtime},
    stats,
};

const PODS: usize = 20;
const ROUNDS: usize = 5;

/// Measures the runtimes in turn; each round ends with no pod left.
pub(crate) async fn measure(runtimes: &mut [Runtime], report: &mut Report) -> Result<()> {
    for round in 1..=ROUNDS {
        eprintln!("20 pods at once: round {round} of {ROUNDS}");
        for runtime in &mut *runtimes {
            let begin = Instant::now();
            let pods = run_all(runtime).await?;
            report.add("20 pods at once, all running", Milliseconds, runtime, milliseconds(begin));
            weigh(runtime, &pods, report)?;
            stats::of_20(runtime, report).await?;
            restart(runtime, report).await?;
            remove_all(runtime, pods).await?;
        }
    }
    Ok(())
}

async fn run_all(runtime: &Runtime) -> Result<Vec<Pod>> {
    let mut starting = JoinSet::new();
    for _ in 0..PODS {
        let runtime = runtime.clone();
        starting.spawn(async move {
            let pod = runtime.run_pod().await?;
            runtime.start_container(&pod, "main", &["sleep", "3600"], None).await?;
            Ok(pod)
        });
    }
    starting.join_all().await.into_iter().collect()
}

pub(crate) async fn remove_all(runtime: &Runtime, pods: Vec<Pod>) -> Result<()> {
    let mut ending = JoinSet::new();
    for pod in pods {
        let runtime = runtime.clone();
        ending.spawn(async move { runtime.remove_pod(&pod).await });
    }
    ending.join_all().await.into_iter().collect()
}

fn weigh(runtime: &Runtime, pods: &[Pod], report: &mut Report) -> Result<()> {
    for pod in pods {
        let bytes: f64 = process::of_pod(&pod.id)?.into_iter().map(process::pss).sum::<Result<_>>()?;
        report.add("memory of a one-container pod", Megabytes, runtime, bytes / 1e6);
    }
    let daemon = process::pss(runtime.daemon()?)? / 1e6;
    report.add("memory of the daemon with 20 pods", Megabytes, runtime, daemon);
    Ok(())
}

/// Kills the daemon and starts it again. Measures the time from that start until the daemon lists every container.
async fn restart(runtime: &mut Runtime, report: &mut Report) -> Result<()> {
    let daemon = runtime.daemon()?;
    let mut command = same_command(runtime, daemon)?;
    kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL)?;
    while !process::ended(daemon) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begin = Instant::now();
    let child = command.spawn()?;
    fs::write(runtime.dir.join("daemon.pid"), child.id().to_string())?;
    let mut last = "no connection".into();
    while begin.elapsed() < Duration::from_secs(60) {
        if let Ok(again) = Runtime::connect(&runtime.name, &runtime.dir).await {
            match again.cri().list_containers(ListContainersRequest::default()).await {
                Ok(answer) if answer.get_ref().containers.len() == PODS => {
                    report.add(
                        "kill -9 with 20 pods, first answer",
                        Milliseconds,
                        runtime,
                        milliseconds(begin),
                    );
                    *runtime = again;
                    return Ok(());
                }
                Ok(answer) => last = format!("{} containers", answer.get_ref().containers.len()),
                Err(status) => last = status.to_string(),
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(format!("{}: not {PODS} containers a minute after kill -9, but {last}", runtime.name).into())
}

/// A command with a running process's arguments, environment and working directory; output goes to the daemon's log.
fn same_command(runtime: &Runtime, pid: u32) -> Result<Command> {
    let words = |file: &str| -> Result<Vec<Vec<u8>>> {
        let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
        Ok(bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect())
    };
    let arguments = words("cmdline")?;
    let mut command = Command::new(fs::read_link(format!("/proc/{pid}/exe"))?);
    command.args(arguments.iter().skip(1).map(|word| std::ffi::OsStr::from_bytes(word)));
    command.env_clear();
    for word in words("environ")? {
        if let Some(at) = word.iter().position(|byte| *byte == b'=') {
            command
                .env(std::ffi::OsStr::from_bytes(&word[..at]), std::ffi::OsStr::from_bytes(&word[at + 1..]));
        }
    }
    let log = File::options().append(true).open(runtime.dir.join("daemon.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.current_dir(fs::read_link(format!("/proc/{pid}/cwd"))?);
    Ok(command)
}

pub(crate) fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}
