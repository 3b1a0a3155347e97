//! The socket that plugins connect to.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use tokio::net::UnixListener;

use super::connection;
use crate::{
    config,
    error::{During, Error, Kind, Result},
    runtime::Shared,
    server::{self, BindError},
};

/// Pause after a failed accept, for instance because no descriptor was free (EMFILE).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accepts plugins for as long as the daemon lives. A socket that another daemon serves is left to it.
pub(super) fn listen(shared: &Arc<Shared>) -> Result<()> {
    let path = &shared.nri.config().socket;
    let listener = match bind(path) {
        Err(error) if error.kind() == Kind::AlreadyExists => {
            tracing::warn!(%error, "no NRI plugin can connect; nri.socket can name another place");
            return Ok(());
        }
        bound => bound?,
    };
    shared.nri.set_listening();
    tokio::spawn(accept(Arc::clone(shared), listener));
    Ok(())
}

fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.during(|| format!("create {}", directory.display()))?;
    }
    server::bind(path, &config::Socket { mode: config::Mode::PRIVATE, ..Default::default() }).map_err(
        |error| {
            let kind = match error {
                BindError::InUse(_) => Kind::AlreadyExists,
                _ => Kind::Internal,
            };
            Error::caused(kind, "listen for NRI plugins", error)
        },
    )
}

async fn accept(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        let trunk = match listener.accept().await {
            Ok((trunk, _)) => trunk,
            Err(error) => {
                tracing::error!(%error, "could not take in an NRI plugin");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = connection::serve(&shared, trunk, None).await {
                tracing::error!(%error, "an NRI plugin that connected does not take part");
            }
        });
    }
}
