//! Times the calls of one pod with one container, from creation to removal.

use std::time::Instant;

use crate::{
    Result,
    report::{Report, Unit::Milliseconds},
    runtime::Runtime,
};

/// Execs of `true` in each container.
const EXECS: usize = 3;

/// Measures the runtimes in turn; which is first changes from round to round. Round 0 warms up and is not counted.
pub(crate) async fn measure(runtimes: &[Runtime], rounds: usize, report: &mut Report) -> Result<()> {
    for round in 0..=rounds {
        eprintln!("lifecycle: round {round} of {rounds}");
        for turn in 0..runtimes.len() {
            let runtime = &runtimes[(turn + round) % runtimes.len()];
            let taken = once(runtime).await?;
            for (row, time) in taken.into_iter().filter(|_| round > 0) {
                report.add(row, Milliseconds, runtime, time);
            }
        }
    }
    Ok(())
}

async fn once(runtime: &Runtime) -> Result<Vec<(&'static str, f64)>> {
    let mut taken = Vec::new();
    let mut clock = Instant::now();
    let mut lap = || (std::mem::replace(&mut clock, Instant::now())).elapsed().as_secs_f64() * 1000.0;

    let pod = runtime.run_pod().await?;
    let pod_up = lap();
    let container = runtime.start_container(&pod, "main", &["sleep", "3600"], None).await?;
    let container_up = lap();
    taken.push(("RunPodSandbox", pod_up));
    taken.push(("CreateContainer + StartContainer", container_up));
    taken.push(("pod + container running", pod_up + container_up));
    for _ in 0..EXECS {
        lap();
        runtime.exec_true(&container).await?;
        taken.push(("ExecSync `true`", lap()));
    }
    lap();
    runtime.remove_container(&container).await?;
    taken.push(("stop + remove container", lap()));
    runtime.remove_pod(&pod).await?;
    taken.push(("stop + remove pod", lap()));
    Ok(taken)
}
