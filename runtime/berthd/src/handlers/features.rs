//! Asks a shim for its features: `-info`, as containerd does.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use containerd_shim_protos::types::introspection::RuntimeInfo;
use protobuf::{Message, well_known_types::any::Any};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::Options;
use crate::error::{During, Error, Kind, Result};
use berth_work::descriptors;

/// Time limit for the answer. A shim inspects itself and perhaps one binary.
const FEATURES_TIMEOUT: Duration = Duration::from_secs(10);

/// The part of the OCI features structure that is used here.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Features {
    mount_options: Vec<String>,
}

/// Whether the shim can make mounts recursively read-only (`rro`). Fails when it fails, or does not answer in time.
pub(super) async fn recursive_readonly(shim: &Path, options: Option<&Options>) -> Result<bool> {
    let step = || format!("ask {} what it can do", shim.display());
    let asked = timeout(FEATURES_TIMEOUT, ask(shim, options)).await;
    let late = |_| Error::new(Kind::DeadlineExceeded, format!("{}: no answer for 10 s", step()));
    let Output { status, stdout, stderr } = asked.map_err(late)?.during(step)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        return Err(Error::new(Kind::Internal, format!("{}: {status}: {}", step(), said.trim())));
    }
    let info = RuntimeInfo::parse_from_bytes(&stdout);
    let info = info.map_err(|error| Error::caused(Kind::Internal, step(), error))?;
    let features: Features = match info.features.as_ref() {
        Some(features) => serde_json::from_slice(&features.value).during(step)?,
        None => Features::default(),
    };
    Ok(features.mount_options.iter().any(|option| option == "rro"))
}

async fn ask(shim: &Path, options: Option<&Options>) -> std::io::Result<Output> {
    let mut child = Command::new(shim)
        .arg("-info")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .inspect(descriptors::restore_limit)?;
    if let (Some(mut stdin), Some(options)) = (child.stdin.take(), options) {
        let any = Any { type_url: options.type_url.into(), value: options.value.clone(), ..Any::default() };
        stdin.write_all(&any.write_to_bytes()?).await?;
    }
    child.wait_with_output().await
}
