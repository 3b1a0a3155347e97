//! The records of pods and containers, in SQLite, so that a daemon that was killed finds them again.
//!
//! One connection, write-ahead log. A commit does not wait for the disk (`synchronous=NORMAL`): what a power
//! cut can take back is the last moments of records whose processes the same power cut has ended. The file
//! itself stays whole. The database is opened by one process only: the daemon holds a lock on its root.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use berth_failpoint::{failpoint, killpoint};
use rusqlite::{Connection, params};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    blocking,
    error::{During, Error, Kind, Result},
};

/// Raised when a record's form changes in a way that serde's defaults do not cover.
const SCHEMA_VERSION: u32 = 1;

/// What is kept in a table of its own, by id.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the table.
    const TABLE: &'static str;

    /// Primary key.
    fn id(&self) -> &str;
}

/// The open database. Clones share it.
#[derive(Clone, Debug)]
pub struct State {
    connection: Arc<Mutex<Connection>>,
}

impl State {
    /// Opens or creates the database at `path`.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when a newer Berth wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        let step = || format!("open the state at {}", path.display());
        let connection = Connection::open(path).during(step)?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").during(step)?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).during(step)?;
        if found > SCHEMA_VERSION {
            let text =
                format!("{}: version {found} is newer than this daemon knows ({SCHEMA_VERSION})", step());
            return Err(Error::new(Kind::FailedPrecondition, text));
        }
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS pod (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS container (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 PRAGMA user_version = {SCHEMA_VERSION};"
            ))
            .during(step)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Writes one record, new or changed. It is visible to a restarted daemon when this returns.
    pub async fn put<R: Record>(&self, record: &R) -> Result<()> {
        let id = record.id().to_owned();
        let text = serde_json::to_string(record).during(|| format!("encode the record of {id}"))?;
        self.write(move |connection| {
            let sql = format!("INSERT OR REPLACE INTO {} (id, record) VALUES (?1, ?2)", R::TABLE);
            let written = connection.prepare_cached(&sql).and_then(|mut put| put.execute(params![id, text]));
            written.map(drop).during(|| format!("record {} {id}", R::TABLE))
        })
        .await
    }

    /// Takes one record out; fine when it is not there.
    pub async fn delete<R: Record>(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write(move |connection| {
            let sql = format!("DELETE FROM {} WHERE id = ?1", R::TABLE);
            let written = connection.prepare_cached(&sql).and_then(|mut delete| delete.execute(params![id]));
            written.map(drop).during(|| format!("delete the record of {} {id}", R::TABLE))
        })
        .await
    }

    /// Every record of one table. A record that cannot be read any more is an error that names it.
    pub fn load<R: Record>(&self) -> Result<Vec<R>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let step = || format!("load the records of {}", R::TABLE);
        let mut select = connection.prepare(&format!("SELECT id, record FROM {}", R::TABLE)).during(step)?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).during(step)?;
        rows.map(|row| {
            let (id, text): (String, String) = row.during(step)?;
            serde_json::from_str(&text).during(|| format!("read the record of {} {id}", R::TABLE))
        })
        .collect()
    }

    /// Runs `work` where waiting for the disk holds up no other call.
    async fn write(&self, work: impl FnOnce(&Connection) -> Result<()> + Send + 'static) -> Result<()> {
        failpoint!(RECORD_WRITING)?;
        let connection = Arc::clone(&self.connection);
        let written = blocking::run("write the state", move || {
            work(&connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let written = written.await?;
        killpoint!(RECORD_WRITTEN);
        written
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Thing {
        pub(crate) id: String,
        pub(crate) value: u32,
    }

    impl Record for Thing {
        const TABLE: &'static str = "pod";

        fn id(&self) -> &str {
            &self.id
        }
    }

    #[tokio::test]
    async fn records_are_found_again_by_the_next_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let state = State::open(&path).unwrap();
        for (id, value) in [("a", 1), ("b", 2), ("a", 3)] {
            state.put(&Thing { id: id.into(), value }).await.unwrap();
        }
        state.delete::<Thing>("b").await.unwrap();
        state.delete::<Thing>("never there").await.unwrap();
        drop(state);
        let found = State::open(&path).unwrap().load::<Thing>().unwrap();
        assert_eq!(found, [Thing { id: "a".into(), value: 3 }]);
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        assert_eq!(State::open(&path).unwrap_err().kind(), Kind::FailedPrecondition);
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        std::fs::write(&path, "not a database, but long enough to have a header of its own").unwrap();
        assert!(State::open(&path).unwrap_err().to_string().contains("state.db"));
    }
}
