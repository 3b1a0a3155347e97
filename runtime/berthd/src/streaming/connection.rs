//! The life of an upgraded connection: reader, writer and work beside each other, until one of them ends it.

use std::{fmt::Display, pin::pin, time::Duration};

use futures::FutureExt;
use tracing::debug;

use super::idle::Idle;

/// How long a client may take to close its side after everything was written. Closing first would destroy what it has
/// not read yet: the kernel answers data that still comes from it with a reset.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the three until the client leaves or breaks the protocol, the connection is idle for too long, or `work` is
/// done and its output is written. `work` must drop its senders when it ends: that ends `writer`.
pub(super) async fn drive<E: Display>(
    reader: impl Future<Output = Result<(), E>>,
    writer: impl Future<Output = Result<(), E>>,
    work: impl Future<Output = ()>,
    idle: &Idle,
) {
    let mut reader = pin!(reader);
    let written = async { tokio::try_join!(writer, work.map(Ok)).map(drop) };
    tokio::select! {
        ended = &mut reader => return log_end("read from", ended),
        () = idle.expired() => return debug!("a client was silent for too long"),
        written = written => match written {
            Ok(()) => {}
            Err(error) => return log_end("write to", Err(error)),
        },
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, reader).await;
}

fn log_end<E: Display>(step: &str, ended: Result<(), E>) {
    if let Err(error) = ended {
        debug!(%error, "{step} a client");
    }
}
