//! Weeks of a node's work in minutes: logs under kills and rotation, pods that come and go, a thousand pods at once.
//! `hack/endure` sets up what this needs and runs it.
//!
//! `endure [--sample] [logs|soak|scale]...`: all parts unless some are named; `--sample` makes each of them small. Prints
//! figures and what is wrong with them; the last line is `N passed, N failed`. No time is judged.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod logs;
mod node;
mod resource_counts;
mod scale;
mod soak;

use std::process::ExitCode;

/// Counts of checks that passed and failed.
#[derive(Default)]
pub(crate) struct Score {
    passed: u32,
    failed: u32,
}

impl Score {
    /// Counts and prints one check; `wrong` says why it failed.
    pub(crate) fn count(&mut self, what: &str, wrong: Option<String>) {
        match wrong {
            None => {
                self.passed += 1;
                println!("ok: {what}");
            }
            Some(why) => {
                self.failed += 1;
                println!("FAILED: {what}: {why}");
            }
        }
    }
}

/// Amount of work in each part.
#[derive(Clone, Copy)]
struct Size {
    log_bytes: u64,
    lifecycles: usize,
    pods: usize,
}

const WHOLE: Size = Size { log_bytes: 2_000_000_000, lifecycles: 10_000, pods: 1_000 };
const SAMPLE: Size = Size { log_bytes: 300_000_000, lifecycles: 200, pods: 60 };
const PARTS: [&str; 3] = ["logs", "soak", "scale"];

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    let mut size = WHOLE;
    let mut parts = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--sample" => size = SAMPLE,
            part if PARTS.contains(&part) => parts.push(part.to_owned()),
            other => panic!("{other:?} is none of --sample, {PARTS:?}"),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let mut score = Score::default();
    if wanted("logs") {
        logs::endure(size.log_bytes, &mut score).await;
    }
    if wanted("soak") {
        soak::endure(size.lifecycles, &mut score).await;
    }
    if wanted("scale") {
        scale::endure(size.pods, &mut score).await;
    }
    println!("\n{} passed, {} failed", score.passed, score.failed);
    ExitCode::from(u8::from(score.failed > 0))
}
