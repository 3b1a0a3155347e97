//! Measurements of the release binary:
//! `BERTH_SHIM=... cargo test -p berth-shim --test shim measure -- --ignored --nocapture --test-threads 1`.

use crate::fixture::*;
use std::fs;
use std::time::{Duration, Instant};

fn memory(shim: &Shim, when: &str) {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid)).unwrap();
    let of = |name: &str| {
        rollup.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap()
    };
    println!(
        "{when}: PSS {} kB, anonymous {} kB, private dirty {} kB",
        of("Pss:"),
        of("Anonymous:"),
        of("Private_Dirty:")
    );
}

/// User and system time in clock ticks of 10 ms.
pub fn ticks(shim: &Shim) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", shim.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
#[ignore = "prints figures"]
async fn root_measure_memory() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    memory(&shim, "sandbox alone");
    shim.run("c", "echo ready; sleep 1000").await;
    shim.logged("c", "ready").await;
    memory(&shim, "one container");
    for _ in 0..200 {
        shim.exec("c", "exit 0", Duration::ZERO).await;
    }
    memory(&shim, "after 200 execs");
    for n in 0..20 {
        shim.run(&format!("more{n}"), "sleep 1000").await;
    }
    memory(&shim, "21 containers");
    shim.shutdown().await;
}

#[tokio::test]
#[ignore = "prints figures"]
async fn root_measure_log() {
    const BYTES: u32 = 200_000_000;
    let mut shim = Shim::start().await;
    for length in [20, 100, 1000] {
        let id = format!("l{length}");
        shim.create(&id, &format!("yes {} | head -c {BYTES}", "x".repeat(length - 1))).await;
        let (began, ticks_before) = (Instant::now(), ticks(&shim));
        shim.start_task(&id).await.unwrap();
        shim.wait(&id).await;
        let (took, cpu) = (began.elapsed(), (ticks(&shim) - ticks_before) * 10);
        let size = fs::metadata(shim.log_path(&id)).unwrap().len();
        println!(
            "lines of {length}: {:.0} MB/s, {cpu} ms of cpu, file {size}",
            f64::from(BYTES) / 1e6 / took.as_secs_f64()
        );
        fs::remove_file(shim.log_path(&id)).unwrap();
    }
    memory(&shim, "after the logs");
}

#[tokio::test]
#[ignore = "prints figures"]
async fn root_measure_calls() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    shim.run("c", "sleep 1000").await;
    let (mut execs, mut starts, mut lives) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..100 {
        let began = Instant::now();
        shim.exec_args("c", &["/bin/true"], Duration::ZERO).await.unwrap();
        execs.push(began.elapsed());
        let id = format!("s{n}");
        let bundle = shim.bundle(&id, "exit 0", |_| {});
        let log = shim.log_uri(&id);
        let began = Instant::now();
        shim.create_in(&id, &bundle, |request| request.stdout = log).await.unwrap();
        shim.start_task(&id).await.unwrap();
        starts.push(began.elapsed());
        shim.wait(&id).await;
        shim.delete(&id).await.unwrap();
        lives.push(began.elapsed());
    }
    for (what, mut times) in [("exec true", execs), ("create + start", starts), ("create to deleted", lives)]
    {
        times.sort();
        println!("{what}: median {:?}, p90 {:?}", times[50], times[90]);
    }
    shim.shutdown().await;
}
