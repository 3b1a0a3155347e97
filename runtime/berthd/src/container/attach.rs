//! Attaching to a container that runs: its shim copies what it prints, and reads what is written to its input.

use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;

use super::{
    Container,
    fifos::{self, Fifos, input_of, name_of, reader},
    must_run,
    session::{Control, Process, Session, Wanted},
};
use crate::{
    error::{Error, Kind, Result},
    flights::to_its_end,
    identity,
    runtime::Shared,
    table::Entry,
};

/// Puts the caller at the container's streams. One that goes away half-way leaves nothing.
pub(super) async fn attach(
    shared: &Arc<Shared>,
    entry: Arc<Entry<Container>>,
    wanted: Wanted,
) -> Result<Session> {
    let container = entry.get();
    must_run(&container)?;
    if wanted.stdin && !container.config.stdin {
        let text = format!("container {} was created without an input to attach to", container.id);
        return Err(Error::new(Kind::FailedPrecondition, text));
    }
    let (stdout, stderr) = outputs(shared, &container, wanted).await?;
    // Last, because leaving an input that is given once would end it.
    let stdin = wanted.stdin.then(|| input_of(shared, &container.id)).transpose()?;
    let control = Control(Process::Container { shared: Arc::clone(shared), entry });
    Ok(Session { stdin, stdout, stderr, control })
}

type Outputs = (Option<Receiver>, Option<Receiver>);

async fn outputs(shared: &Arc<Shared>, container: &Arc<Container>, wanted: Wanted) -> Result<Outputs> {
    let (shared, container) = (Arc::clone(shared), Arc::clone(container));
    to_its_end(async move {
        let outputs = Wanted { stdin: false, tty: container.config.tty, ..wanted };
        let directory = fifos::directory(&shared, &container.id).join(identity::generate()?);
        let fifos = Fifos::make(directory, outputs)?;
        let joined = join(&shared, &container, &fifos).await;
        // Both sides have them open.
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
