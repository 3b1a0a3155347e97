//! Running a command in a container.

use std::time::Duration;

use super::{Container, must_run};
use crate::{
    error::{Error, Kind, Result},
    runtime::Shared,
    shim::{ExecEnd, ExecOutput},
    table::Entry,
};

/// Runs `args` and gathers what they print.
pub(super) async fn exec_sync(
    shared: &Shared,
    entry: &Entry<Container>,
    args: Vec<String>,
    limit: Option<Duration>,
) -> Result<ExecOutput> {
    let container = entry.get();
    must_run(&container)?;
    if args.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, "the command to run is empty"));
    }
    // A connection of its own: when the caller goes away it breaks, and by that the shim knows to end the command.
    let shim = shared.shim_of(&container.pod_id).await?;
    match shim.exec_sync(&container.id, args.clone(), limit).await? {
        ExecEnd::Exited(output) => Ok(output),
        ExecEnd::TimedOut => Err(Error::new(
            Kind::DeadlineExceeded,
            format!(
                "command {args:?} in container {} was killed after {:?}",
                container.id,
                limit.unwrap_or_default()
            ),
        )),
    }
}
