//! Attaching to a running container: the shim copies its output, and the container reads the input that the client
//! writes.

use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;

use super::{
    Container,
    fifos::{self, Fifos, input_of, name_of, reader},
    must_run,
    session::{Control, RequestedStreams, Session, SessionProcess},
};
use crate::{
    error::{Error, Kind, Result},
    ids,
    runtime::Shared,
    single_flight::run_to_completion,
    table::Entry,
};

/// Connects the caller to the container's streams. A caller that disconnects half-way leaves no FIFOs behind.
pub(super) async fn attach(
    shared: &Arc<Shared>,
    entry: Arc<Entry<Container>>,
    wanted: RequestedStreams,
) -> Result<Session> {
    let container = entry.get();
    must_run(&container)?;
    if wanted.stdin && !container.config.stdin {
        let text = format!("container {} was created without an input to attach to", container.id);
        return Err(Error::new(Kind::FailedPrecondition, text));
    }
    let (stdout, stderr) = outputs(shared, &container, wanted).await?;
    // Opened last: with `stdin_once`, closing the pipe after a failure would end the container's input.
    let stdin = wanted.stdin.then(|| input_of(shared, &container.id)).transpose()?;
    let control = Control(SessionProcess::Container { shared: Arc::clone(shared), entry });
    Ok(Session { stdin, stdout, stderr, control })
}

type Outputs = (Option<Receiver>, Option<Receiver>);

async fn outputs(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    wanted: RequestedStreams,
) -> Result<Outputs> {
    let (shared, container) = (Arc::clone(shared), Arc::clone(container));
    run_to_completion(async move {
        let outputs = RequestedStreams { stdin: false, tty: container.config.tty, ..wanted };
        let directory = fifos::directory(&shared, &container.id).join(ids::generate()?);
        let fifos = Fifos::make(directory, outputs)?;
        let joined = join(&shared, &container, &fifos).await;
        // The shim and the reader both have the FIFOs open.
        fifos.remove();
        joined
    })
    .await
}

async fn join(shared: &Shared, container: &Container, fifos: &Fifos) -> Result<Outputs> {
    let (stdout, stderr) = (fifos.stdout(), fifos.stderr());
    let readers = (stdout.as_deref().map(reader).transpose()?, stderr.as_deref().map(reader).transpose()?);
    let shim = shared.shim_of(&container.pod_id).await?;
    shim.attach(&container.id, name_of(stdout), name_of(stderr)).await?;
    Ok(readers)
}
