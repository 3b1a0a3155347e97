//! Throughput of a container's log, and the processor time of the runtime for it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use berth_cri::v1::{ContainerState, ContainerStatusRequest};

use crate::{
    Result, process,
    report::{
        Report,
        Unit::{MegabytesPerSecond, ProcessorSeconds},
    },
    runtime::Runtime,
};

const LINES: usize = 2_000_000;
const LINE: [u8; 100] = {
    let mut line = [b'x'; 100];
    line[99] = b'\n';
    line
};
const ROUNDS: usize = 3;

/// A container copies 200 MB of lines from a file to its standard output. Measures the time until the last line is
/// in the log.
pub(crate) async fn measure(runtimes: &[Runtime], report: &mut Report) -> Result<()> {
    for round in 1..=ROUNDS {
        eprintln!("log: round {round} of {ROUNDS}");
        for runtime in runtimes {
            let lines = runtime.dir.join("lines");
            write_lines(&lines)?;
            let (seconds, cpu) = once(runtime, &lines).await?;
            let megabytes = (LINES * LINE.len()) as f64 / 1e6;
            report.add("200 MB of log lines", MegabytesPerSecond, runtime, megabytes / seconds);
            report.add("200 MB of log lines, processor", ProcessorSeconds, runtime, cpu);
        }
    }
    Ok(())
}

async fn once(runtime: &Runtime, lines: &Path) -> Result<(f64, f64)> {
    let pod = runtime.run_pod().await?;
    let mut processes = process::of_pod(&pod.id)?;
    processes.push(runtime.daemon()?);
    let before = cpu(&processes)?;
    let begin = SystemTime::now();
    let container = runtime.start_container(&pod, "main", &["cat", "/lines"], Some(lines)).await?;
    while !exited(runtime, &container).await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = pod.log();
    while count(&log)? < LINES {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = fs::metadata(&log)?.modified()?.duration_since(begin)?.as_secs_f64();
    let taken = cpu(&processes)? - before;
    runtime.remove_container(&container).await?;
    runtime.remove_pod(&pod).await?;
    fs::remove_file(&log)?;
    Ok((seconds, taken))
}

async fn exited(runtime: &Runtime, container: &str) -> Result<bool> {
    let request = ContainerStatusRequest { container_id: container.into(), verbose: false };
    let answer = runtime.cri().container_status(request).await?.into_inner();
    Ok(answer.status.is_some_and(|status| status.state() == ContainerState::ContainerExited))
}

fn cpu(processes: &[u32]) -> Result<f64> {
    processes.iter().map(|pid| process::cpu(*pid)).sum()
}

fn write_lines(path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for _ in 0..LINES {
        file.write_all(&LINE)?;
    }
    Ok(file.flush()?)
}

fn count(path: &Path) -> Result<usize> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut lines = 0;
    loop {
        let block = file.fill_buf()?;
        if block.is_empty() {
            return Ok(lines);
        }
        lines += block.iter().filter(|byte| **byte == b'\n').count();
        let length = block.len();
        file.consume(length);
    }
}
