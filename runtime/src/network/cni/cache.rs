//! What is on record of each pod: the intent before the first ADD, the results after the last.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::conf::NetworkConf;
use crate::network::Error;
use crate::network::record::{self, Survives};

/// Everything DEL and CHECK need, so that neither a restart nor a changed configuration is in their way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) pod: String,
    pub(super) netns: PathBuf,
    pub(super) arguments: String,
    pub(super) capability_args: Map<String, Value>,
    pub(super) networks: Vec<Joined>,
}

/// A network a pod is, or is about to be, attached to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Joined {
    pub(super) conf: NetworkConf,
    pub(super) interface: String,
    /// None until every plugin of the chain has answered.
    pub(super) result: Option<Value>,
}

impl Record {
    /// Whether every network answered.
    pub(super) fn is_complete(&self) -> bool {
        self.networks.iter().all(|network| network.result.is_some())
    }
}

/// The records' directory.
#[derive(Debug, Clone)]
pub(super) struct Cache(PathBuf);

impl Cache {
    pub(super) fn open(directory: PathBuf) -> Result<Cache, Error> {
        record::make_directory(&directory)?;
        Ok(Cache(directory))
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.0.join(format!("{pod}.json"))
    }

    /// Writes the record; it survives what `survives` says when the call returns.
    pub(super) async fn write(&self, record: &Record, survives: Survives) -> Result<(), Error> {
        let path = self.path(&record.pod);
        let content = serde_json::to_vec(record).map_err(|error| unreadable("encode", &path, error))?;
        blocking("write the network record", move || record::write(&path, &content, survives)).await
    }

    /// Brings a written record to the disk.
    pub(super) async fn sync(&self, pod: &str) -> Result<(), Error> {
        let path = self.path(pod);
        blocking("sync the network record", move || {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .and_then(|()| File::open(path.parent().unwrap_or(&path))?.sync_all())
                .map_err(|source| Error::File { step: "sync", path, source })
        })
        .await
    }

    /// The pod's record, or none.
    pub(super) async fn read(&self, pod: &str) -> Result<Option<Record>, Error> {
        let path = self.path(pod);
        blocking("read the network record", move || match record::read(&path)? {
            None => Ok(None),
            Some(content) => match serde_json::from_slice(&content) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(unreadable("decode", &path, error)),
            },
        })
        .await
    }

    /// Forgets the pod.
    pub(super) async fn remove(&self, pod: &str) -> Result<(), Error> {
        let path = self.path(pod);
        blocking("remove the network record", move || record::remove(&path)).await
    }

    /// The pods on record.
    pub(super) async fn pods(&self) -> Result<Vec<String>, Error> {
        let directory = self.0.clone();
        blocking("list the network records", move || record::list(&directory)).await
    }
}

fn unreadable(step: &'static str, path: &Path, error: serde_json::Error) -> Error {
    Error::File { step, path: path.to_owned(), source: error.into() }
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Lost { step }))
}
