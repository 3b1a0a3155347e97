//! Records of pods: the intent before the first ADD, the results after the last.
//!
//! The intent (`<pod>.json`) is synced to disk while the plugins run. The results (`<pod>.done`) are not synced: power
//! loss destroys the namespace too, and then DEL needs only the intent.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::conf::NetworkConf;
use crate::Error;
use crate::record;

/// Everything that DEL and CHECK need, so that they work after a restart or a change of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) pod: String,
    pub(super) netns: PathBuf,
    pub(super) arguments: String,
    pub(super) capability_args: Map<String, Value>,
    pub(super) networks: Vec<JoinedNetwork>,
}

/// A network that a pod is attached to, or about to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JoinedNetwork {
    pub(super) conf: NetworkConf,
    pub(super) interface: String,
    /// None until every plugin of the chain has answered.
    pub(super) result: Option<Value>,
}

impl Record {
    /// Whether every network has a result.
    pub(super) fn is_complete(&self) -> bool {
        self.networks.iter().all(|network| network.result.is_some())
    }
}

/// The directory of records.
#[derive(Debug, Clone)]
pub(super) struct Cache(PathBuf);

impl Cache {
    pub(super) fn open(directory: PathBuf) -> Result<Cache, Error> {
        record::make_directory(&directory)?;
        Ok(Cache(directory))
    }

    fn intent(&self, pod: &str) -> PathBuf {
        self.0.join(format!("{pod}.json"))
    }

    fn done(&self, pod: &str) -> PathBuf {
        self.0.join(format!("{pod}.done"))
    }

    /// Writes the record: as the results if every network has one, else as the intent.
    pub(super) async fn write(&self, record: &Record) -> Result<(), Error> {
        let path = match record.is_complete() {
            true => self.done(&record.pod),
            false => self.intent(&record.pod),
        };
        let content = serde_json::to_vec(record).map_err(|error| unreadable("encode", &path, error))?;
        blocking("write the network record", move || record::write(&path, &content)).await
    }

    /// Syncs a written intent and its directory to disk.
    pub(super) async fn sync(&self, pod: &str) -> Result<(), Error> {
        let path = self.intent(pod);
        blocking("sync the network record", move || {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .and_then(|()| File::open(path.parent().unwrap_or(&path))?.sync_all())
                .map_err(|source| Error::File { step: "sync", path, source })
        })
        .await
    }

    /// Reads the pod's results if they are present and decodable, else its intent; none when there is neither.
    pub(super) async fn read(&self, pod: &str) -> Result<Option<Record>, Error> {
        let (intent, done) = (self.intent(pod), self.done(pod));
        blocking("read the network record", move || {
            let done = record::read(&done)?.and_then(|content| serde_json::from_slice(&content).ok());
            match (done, record::read(&intent)?) {
                (Some(record), _) => Ok(Some(record)),
                (None, None) => Ok(None),
                (None, Some(content)) => serde_json::from_slice(&content)
                    .map(Some)
                    .map_err(|error| unreadable("decode", &intent, error)),
            }
        })
        .await
    }

    /// Removes the pod's record. The intent goes last, so that a crash in between leaves a record.
    pub(super) async fn remove(&self, pod: &str) -> Result<(), Error> {
        let (intent, done) = (self.intent(pod), self.done(pod));
        blocking("remove the network record", move || {
            record::remove(&done)?;
            record::remove(&intent)
        })
        .await
    }

    /// Returns the ids of the pods on record.
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
