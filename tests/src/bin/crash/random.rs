//! Kills at random instants of calls that change the host.

use std::{collections::HashMap, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    Arguments,
    life::{Life, Step},
    matrix,
    report::Report,
    world::World,
};

/// A kill during a call.
pub(crate) struct Kill {
    pub(crate) step: Step,
    /// Calls of this kind that come first in the life.
    before: usize,
    /// Kill the pod's shim instead of the daemon, if the pod has one.
    pub(crate) shim: bool,
    after: Duration,
}

impl Kill {
    /// Whether this is the call, of all calls of its kind in a life, which are asked for in turn.
    pub(crate) fn is_due_in(&mut self, step: Step) -> bool {
        let due = self.step == step && self.before == 0;
        self.before -= usize::from(self.step == step && !due);
        due
    }

    /// Kills the process after the delay. The task is done when the process has ended.
    pub(crate) fn soon(self, pid: i32) -> JoinHandle<()> {
        tokio::spawn(async move {
            sleep(self.after).await;
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            while runs(pid) {
                sleep(Duration::from_millis(1)).await;
            }
        })
    }
}

/// Runs lives with one kill each, at an instant chosen by `--seed`.
pub(crate) async fn run(world: &mut World, arguments: &Arguments, report: &mut Report) {
    if arguments.random == 0 {
        return;
    }
    world.failpoints.disarm();
    let (outcome, lived) = Life::new(world, "measured", None).live().await;
    let measured = lived.is_ok();
    report.case("a life that is measured", lived);
    if !measured {
        return;
    }
    let mut took: HashMap<Step, Vec<Duration>> = HashMap::new();
    outcome.took.into_iter().for_each(|(step, time)| took.entry(step).or_default().push(time));
    let mut random = Random(arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for number in 0..arguments.random {
        if number % 100 == 0 {
            eprintln!("Kills at random instants: {number} of {}", arguments.random);
        }
        let step = Step::ALL[random.below(Step::ALL.len() as u64) as usize];
        let calls = took.get(&step).expect("a life has calls of every kind");
        let before = random.below(calls.len() as u64) as usize;
        let longest = calls[before].mul_f64(1.1);
        let after = longest.mul_f64(random.below(10_000) as f64 / 10_000.0);
        let shim = random.below(4) == 0 && step.is_within_a_pod();
        let name = format!(
            "random {number}: {} killed {after:?} after the begin of {step:?} {before}",
            if shim { "shim" } else { "berthd" }
        );
        let (outcome, lived) =
            Life::new(world, "random", Some(Kill { step, before, shim, after })).live().await;
        report.count(&outcome);
        let result = match lived {
            Ok(()) => matrix::after(world, report).await,
            Err(why) => world.clear().await.and(Err(why)),
        };
        report.case(&name, result);
    }
}

/// Whether a process still runs. A zombie main thread cannot be reaped before the process's other threads have exited.
fn runs(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find(|line| line.starts_with("State:"));
    threads > 1 || state.is_some_and(|state| !state.contains(['Z', 'X']))
}

/// Pseudo-random numbers (xorshift), the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
