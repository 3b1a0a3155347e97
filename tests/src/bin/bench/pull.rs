//! Time of a pull from a registry on the same machine, and the daemon's processor time for it.

use std::time::Instant;

use crate::{
    Result, process,
    report::{
        Report,
        Unit::{Milliseconds, ProcessorSeconds},
    },
    runtime::Runtime,
};

const ROUNDS: usize = 3;

/// Pulls the image and removes it again, in each round with each runtime.
pub(crate) async fn measure(runtimes: &[Runtime], image: &str, report: &mut Report) -> Result<()> {
    for round in 1..=ROUNDS {
        eprintln!("pull: round {round} of {ROUNDS}");
        for runtime in runtimes {
            let daemon = runtime.daemon()?;
            let before = process::cpu(daemon)?;
            let begin = Instant::now();
            runtime.pull(image).await?;
            let time = begin.elapsed().as_secs_f64() * 1000.0;
            report.add("pull", Milliseconds, runtime, time);
            report.add("pull, processor", ProcessorSeconds, runtime, process::cpu(daemon)? - before);
            runtime.remove_image(image).await?;
        }
    }
    Ok(())
}
