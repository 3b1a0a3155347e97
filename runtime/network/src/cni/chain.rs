//! Runs a network's plugins in order: ADD forwards, DEL backwards, each with the result so far.

use serde_json::{Map, Value};

use super::cache::{JoinedNetwork, Record};
use super::conf::{NetworkConf, PluginConf};
use super::plugin::{Call, Plugins};
use super::request::request;
use super::result;
use crate::{Error, PluginFailure};

/// One network's chain of plugins, for one pod.
pub(super) struct Chain<'a> {
    plugins: &'a Plugins,
    network: &'a NetworkConf,
    capability_args: &'a Map<String, Value>,
    call: Call<'a>,
}

impl<'a> Chain<'a> {
    /// Returns the chain of one network on `record`. An empty `netns` means that the namespace is gone.
    pub(super) fn of(
        plugins: &'a Plugins,
        record: &'a Record,
        joined: &'a JoinedNetwork,
        netns: &'a str,
    ) -> Self {
        let call = Call {
            command: "",
            pod: &record.pod,
            netns,
            interface: &joined.interface,
            arguments: &record.arguments,
        };
        Chain { plugins, network: &joined.conf, capability_args: &record.capability_args, call }
    }

    /// Runs ADD of every plugin; the last one's result is the network's.
    pub(super) async fn add(&self) -> Result<Value, Error> {
        let mut previous = None;
        for plugin in &self.network.plugins {
            let answer = self.run("ADD", plugin, previous.as_ref()).await?;
            previous = Some(self.accept(plugin, answer)?);
        }
        Ok(previous.unwrap_or_default())
    }

    /// Runs DEL of every plugin, last first. A failure does not stop the others; the first error is returned.
    pub(super) async fn del(&self, result: Option<&Value>) -> Result<(), Error> {
        let result = result.filter(|_| self.network.version.has_check());
        let mut outcome = Ok(());
        for plugin in self.network.plugins.iter().rev() {
            let deleted = self.run("DEL", plugin, result).await;
            outcome = outcome.and(deleted.map(drop));
        }
        outcome
    }

    /// Runs CHECK of every plugin, unless the network's version lacks it or it is disabled.
    pub(super) async fn check(&self, result: &Value) -> Result<(), Error> {
        if !self.network.version.has_check() || self.network.disable_check {
            return Ok(());
        }
        for plugin in &self.network.plugins {
            self.run("CHECK", plugin, Some(result)).await?;
        }
        Ok(())
    }

    async fn run(
        &self,
        command: &'static str,
        plugin: &PluginConf,
        previous: Option<&Value>,
    ) -> Result<Option<Value>, Error> {
        let body = request(self.network, plugin, self.capability_args, previous);
        run(self.plugins, self.network, plugin, Call { command, ..self.call }, &body).await
    }

    /// Converts a plugin's answer to ADD to the chain's version.
    fn accept(&self, plugin: &PluginConf, answer: Option<Value>) -> Result<Value, Error> {
        let answer = answer.ok_or_else(|| "it is empty".to_owned());
        let accepted = answer.and_then(|answer| {
            let converted = result::convert(answer, self.network.version)?;
            result::addresses(&converted).map(|_| converted)
        });
        accepted.map_err(|why| Error::Result {
            network: self.network.name.clone(),
            plugin: plugin.kind().to_owned(),
            pod: self.call.pod.to_owned(),
            why,
        })
    }
}

/// Runs STATUS of every plugin of `network`: whether it can serve an ADD now. Does nothing before CNI 1.1.0.
pub(super) async fn status(plugins: &Plugins, network: &NetworkConf) -> Result<(), Error> {
    if !network.version.has_status_and_gc() {
        return Ok(());
    }
    for plugin in &network.plugins {
        let body = request(network, plugin, &Map::new(), None);
        run(plugins, network, plugin, Call { command: "STATUS", ..Call::default() }, &body).await?;
    }
    Ok(())
}

/// Runs GC of every plugin of `network`, keeping the `valid` attachments. Does nothing before CNI 1.1.0 or if disabled.
pub(super) async fn collect(plugins: &Plugins, network: &NetworkConf, valid: &[Value]) -> Result<(), Error> {
    if !network.version.has_status_and_gc() || network.disable_gc {
        return Ok(());
    }
    let mut outcome = Ok(());
    for plugin in &network.plugins {
        let mut body = request(network, plugin, &Map::new(), None);
        body.insert("cni.dev/valid-attachments".into(), valid.into());
        let collected = run(plugins, network, plugin, Call { command: "GC", ..Call::default() }, &body).await;
        outcome = outcome.and(collected.map(drop));
    }
    outcome
}

async fn run(
    plugins: &Plugins,
    network: &NetworkConf,
    plugin: &PluginConf,
    call: Call<'_>,
    body: &Map<String, Value>,
) -> Result<Option<Value>, Error> {
    let failed = |failure: PluginFailure| Error::Plugin {
        network: network.name.clone(),
        plugin: plugin.kind().to_owned(),
        command: call.command,
        pod: call.pod.to_owned(),
        failure: Box::new(failure),
    };
    let input = serde_json::to_vec(body).map_err(|error| failed(PluginFailure::Spawn(error.into())))?;
    plugins.run(plugin.kind(), call, &input).await.map_err(failed)
}
