//! Runtime handlers: which shim a pod gets. Berth's own has no name, or `berth`; others are configured.
//!
//! A handler's shim can be any that speaks containerd's shim v2. Berth's own shim stands between it and the daemon, and
//! reads the choice from a file in the pod's bundle; everything else is as with a pod of Berth's own.

mod config;
mod features;
mod options;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use futures::future::join_all;
use serde::Serialize;

pub use config::{Config, Invalid};

use self::options::Options;
use crate::{
    error::{During, Error, Kind, Result},
    spec::HostFeatures,
};

/// Handler names that stand for Berth's own shim.
const OWN_SHIM_HANDLERS: [&str; 2] = ["", "berth"];
/// Name of the file in the bundle from which Berth's shim learns that another shim runs the pod.
const FILE_NAME: &str = "handler.json";

/// Whether pods of the handler of this name run in Berth's own shim.
pub(crate) fn is_own(name: &str) -> bool {
    OWN_SHIM_HANDLERS.contains(&name)
}

/// All handlers.
#[derive(Clone, Debug, Default)]
pub struct Handlers {
    own: HostFeatures,
    others: BTreeMap<String, Handler>,
}

/// A handler whose shim is not Berth's own.
#[derive(Clone, Debug)]
struct Handler {
    config: Config,
    options: Option<Options>,
    /// Set once the shim has answered.
    features: Arc<OnceLock<HostFeatures>>,
}

impl Handlers {
    /// Takes the configured handlers and begins to ask each shim for its features; the future is done when all have
    /// answered. `own` is the features of Berth's own shim.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for invalid options. A missing shim is an error only when a pod is to run in it.
    pub(crate) fn open(
        configured: &BTreeMap<String, Config>,
        own: HostFeatures,
    ) -> Result<(Self, impl Future<Output = ()> + use<>)> {
        let opened = configured.iter().map(|(name, config)| Ok((name.clone(), Handler::open(name, config)?)));
        let others: BTreeMap<String, Handler> = opened.collect::<Result<_>>()?;
        let asked =
            others.clone().into_iter().map(|(name, handler)| async move { handler.ask(&name, own).await });
        let asked: Vec<_> = asked.map(tokio::spawn).collect();
        Ok((Self { own, others }, async move { drop(join_all(asked).await) }))
    }

    /// Lists every handler by name, with its features.
    pub fn list(&self) -> impl Iterator<Item = (&str, HostFeatures)> {
        let others = self.others.iter().map(|(name, handler)| (name.as_str(), handler.features()));
        OWN_SHIM_HANDLERS.into_iter().map(|name| (name, self.own)).chain(others)
    }

    /// Returns the features of the handler `name`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there is no such handler.
    pub(crate) fn features(&self, name: &str) -> Result<HostFeatures> {
        let found = self.list().find(|(known, _)| *known == name);
        found.map(|(_, features)| features).ok_or_else(|| {
            Error::new(Kind::InvalidArgument, format!("runtime handler {name:?} is not configured"))
        })
    }

    /// Returns the pod's annotations that the handler's sandbox gets.
    pub(crate) fn passed(
        &self,
        name: &str,
        annotations: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let Some(handler) = self.others.get(name) else { return BTreeMap::new() };
        let passed = annotations.iter().filter(|(annotation, _)| handler.config.passes(annotation));
        passed.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Writes to a pod's bundle which shim is to run it; nothing for Berth's own.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when that shim is not on this machine.
    pub(crate) fn prepare(&self, name: &str, bundle: &Path) -> Result<()> {
        #[derive(Serialize)]
        struct Choice<'a> {
            shim: PathBuf,
            options: &'a Option<Options>,
        }
        let Some(handler) = self.others.get(name) else { return Ok(()) };
        let choice = Choice { shim: handler.binary(name)?, options: &handler.options };
        let json = serde_json::to_vec(&choice).during(|| "encode the choice of a shim")?;
        let path = bundle.join(FILE_NAME);
        fs::write(&path, json).during(|| format!("write {}", path.display()))
    }
}

impl Handler {
    fn open(name: &str, config: &Config) -> Result<Self> {
        let options = config.options().map_err(|invalid| {
            Error::caused(
                Kind::InvalidArgument,
                format!("configuration of the runtime handler {name}"),
                invalid,
            )
        })?;
        Ok(Self { config: config.clone(), options, features: Arc::default() })
    }

    fn features(&self) -> HostFeatures {
        self.features.get().copied().unwrap_or_default()
    }

    async fn ask(&self, name: &str, own: HostFeatures) {
        let asked = async { features::recursive_readonly(&self.binary(name)?, self.options.as_ref()).await };
        match asked.await {
            Ok(can) => {
                let recursive_readonly = can && own.recursive_readonly;
                // Never fails: each handler is asked once.
                let _ = self.features.set(HostFeatures { recursive_readonly, ..HostFeatures::default() });
            }
            Err(error) => tracing::warn!(handler = name, %error, "what the shim can do is not known"),
        }
    }

    fn binary(&self, name: &str) -> Result<PathBuf> {
        config::find(&self.config.shim).ok_or_else(|| {
            let text = format!(
                "the shim {:?} of the runtime handler {name} is not on this machine",
                self.config.shim
            );
            Error::new(Kind::FailedPrecondition, text)
        })
    }
}

#[cfg(test)]
mod tests;
