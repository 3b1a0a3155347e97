//! Runtime handlers: which shim a pod gets. Berth's own has no name, or `berth`; others are configured.
//!
//! A handler's shim can be any that speaks containerd's shim v2. Berth's own shim stands between it and the daemon: what
//! it needs to know is in a file of the pod's bundle, and everything else is as with a pod of Berth's own.

mod config;
mod features;
mod options;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::future::join_all;
use serde::Serialize;

pub use config::{Config, Invalid};

use self::options::Options;
use crate::{
    error::{During, Error, Kind, Result},
    spec::HostFeatures,
};

/// Names of Berth's own shim.
const OWN: [&str; 2] = ["", "berth"];
/// By which Berth's shim knows that a pod is another's.
const FILE_NAME: &str = "handler.json";

/// All handlers there are.
#[derive(Clone, Debug, Default)]
pub struct Handlers {
    own: HostFeatures,
    others: BTreeMap<String, Handler>,
}

/// A shim that is not Berth's own.
#[derive(Clone, Debug)]
struct Handler {
    config: Config,
    options: Option<Options>,
    features: HostFeatures,
}

impl Handlers {
    /// Takes the configured handlers and asks each shim what it can do. `own` is what pods can have in Berth's.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the options of one make no sense. A shim that is not there is no error until a pod is to
    /// run in it.
    pub(crate) async fn open(configured: &BTreeMap<String, Config>, own: HostFeatures) -> Result<Self> {
        let opened = configured.iter().map(|(name, config)| async move {
            let handler = Handler::open(name, config, own).await?;
            Ok((name.clone(), handler))
        });
        let others = join_all(opened).await.into_iter().collect::<Result<_>>()?;
        Ok(Self { own, others })
    }

    /// Every handler by its name, with what pods can have in it.
    pub fn list(&self) -> impl Iterator<Item = (&str, HostFeatures)> {
        let others = self.others.iter().map(|(name, handler)| (name.as_str(), handler.features));
        OWN.into_iter().map(|name| (name, self.own)).chain(others)
    }

    /// What pods can have in the handler of this name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there is none.
    pub(crate) fn features(&self, name: &str) -> Result<HostFeatures> {
        let found = self.list().find(|(known, _)| *known == name);
        found.map(|(_, features)| features).ok_or_else(|| {
            Error::new(Kind::InvalidArgument, format!("runtime handler {name:?} is not configured"))
        })
    }

    /// Those of a pod's annotations that the handler's sandbox is given.
    pub(crate) fn passed(
        &self,
        name: &str,
        annotations: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let Some(handler) = self.others.get(name) else { return BTreeMap::new() };
        let passed = annotations.iter().filter(|(annotation, _)| handler.config.passes(annotation));
        passed.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Puts down in a pod's bundle which shim is to run it.
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
    async fn open(name: &str, config: &Config, own: HostFeatures) -> Result<Self> {
        let options = config.options().map_err(|invalid| {
            Error::caused(
                Kind::InvalidArgument,
                format!("configuration of the runtime handler {name}"),
                invalid,
            )
        })?;
        let mut handler = Self { config: config.clone(), options, features: HostFeatures::default() };
        match handler.ask(name).await {
            Ok(recursive_readonly) => {
                handler.features.recursive_readonly = recursive_readonly && own.recursive_readonly;
            }
            Err(error) => tracing::warn!(handler = name, %error, "what the shim can do is not known"),
        }
        Ok(handler)
    }

    async fn ask(&self, name: &str) -> Result<bool> {
        features::recursive_readonly(&self.binary(name)?, self.options.as_ref()).await
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
