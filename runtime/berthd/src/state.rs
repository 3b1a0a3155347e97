//! The records of pods and containers, in SQLite, so that the next daemon finds them again.
//!
//! One connection, with a write-ahead log. A commit does not wait for the disk (`synchronous=NORMAL`): a power cut may
//! lose the last commits, but it has also ended the processes that they describe. The database stays consistent. Only
//! one process opens it, because the daemon holds a lock on its root.
//!
//! Unreadable data is set aside, a record in the table `damaged` and a damaged database under another name; the rest
//! stays usable.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_failpoint::{failpoint, killpoint};
use rusqlite::{Connection, ErrorCode, Row, ffi, params};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    blocking, clock,
    error::{During, Error, Kind, Result},
    layout::{touch_private, write_private},
};

/// Raised when the format of a record changes in a way that serde's defaults do not cover.
const SCHEMA_VERSION: u32 = 1;

/// Returns the path of a file that SQLite keeps beside the database.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A type with a table of its own, by id.
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

/// The records of one table.
#[derive(Debug)]
pub struct Loaded<R> {
    /// The readable records.
    pub records: Vec<R>,
    /// Ids of unreadable records, set aside now or by an earlier daemon that was killed before it had restored them.
    pub damaged: Vec<String>,
}

impl State {
    /// Opens or creates the database at `path`. A damaged database is set aside, and an empty one created.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when a newer version of Berth wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        let step = || format!("open the state at {}", path.display());
        close_to_others(path)?;
        let connection = match connect(path) {
            Err(damage) if is_damage(&damage) => {
                let aside = set_aside(path).during(|| format!("set {} aside", path.display()))?;
                let aside = aside.display();
                tracing::error!(%aside, %damage, "the state is damaged: it is set aside, and a new one begun");
                close_to_others(path)?;
                connect(path)
            }
            connection => connection,
        };
        let connection = connection.during(step)?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).during(step)?;
        if found > SCHEMA_VERSION {
            let text =
                format!("{}: version {found} is newer than this daemon knows ({SCHEMA_VERSION})", step());
            return Err(Error::new(Kind::FailedPrecondition, text));
        }
        connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS pod (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS container (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS damaged (found TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, what TEXT, id, record);"
            )
            .during(step)?;
        // Writing even the same version needs space on the disk, which may be full.
        if found < SCHEMA_VERSION {
            connection.pragma_update(None, "user_version", SCHEMA_VERSION).during(step)?;
        }
        if let Err(error) = berth_image::reserve_log(path) {
            tracing::warn!(%error, "the state has no room of its own: on a full disk no pod can be removed");
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Writes one record, new or changed. It survives a crash of the daemon once this returns.
    pub async fn put<R: Record>(&self, record: &R) -> Result<()> {
        let (id, text) = (record.id().to_owned(), encode(record)?);
        self.write(move |connection| put::<R>(&lock(connection), &id, &text)).await
    }

    /// Writes a copy of a new record to the file `copy`, then the record.
    pub async fn put_new<R: Record>(&self, record: &R, copy: PathBuf) -> Result<()> {
        let (id, text) = (record.id().to_owned(), encode(record)?);
        self.write(move |connection| {
            write_private(&copy, text.as_bytes())?;
            put::<R>(&lock(connection), &id, &text)
        })
        .await
    }

    /// Deletes one record; succeeds when it does not exist.
    pub async fn delete<R: Record>(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write(move |connection| {
            let sql = format!("DELETE FROM {} WHERE id = ?1", R::TABLE);
            let connection = lock(connection);
            let written = connection.prepare_cached(&sql).and_then(|mut delete| delete.execute(params![id]));
            written.map(drop).during(|| format!("delete the record of {} {id}", R::TABLE))
        })
        .await
    }

    /// Returns every record of one table. Unreadable ones are set aside.
    pub fn load<R: Record>(&self) -> Result<Loaded<R>> {
        let connection = lock(&self.connection);
        let step = || format!("load the records of {}", R::TABLE);
        let mut select = connection.prepare(&format!("SELECT id, record FROM {}", R::TABLE)).during(step)?;
        let rows = select.query_map([], |row| Ok((bytes(row, 0), bytes(row, 1)))).during(step)?;
        let mut loaded = Loaded { records: Vec::new(), damaged: Vec::new() };
        for (id, text) in rows.collect::<rusqlite::Result<Vec<_>>>().during(step)? {
            match serde_json::from_slice::<R>(&text) {
                Ok(record) if record.id().as_bytes() == id => loaded.records.push(record),
                unreadable => {
                    let why = unreadable.err().map_or("it is another's".to_owned(), |why| why.to_string());
                    let id = set_record_aside::<R>(&connection, id)?;
                    tracing::error!(
                        id,
                        why,
                        "a record of table {} cannot be read: it is set aside",
                        R::TABLE
                    );
                }
            }
        }
        loaded.damaged = set_aside_of::<R>(&connection).during(step)?;
        Ok(loaded)
    }

    /// Runs `work` on a blocking thread.
    async fn write(
        &self,
        work: impl FnOnce(&Mutex<Connection>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        failpoint!(RECORD_WRITING)?;
        let connection = Arc::clone(&self.connection);
        let written = blocking::run("write the state", move || work(&connection)).await?;
        killpoint!(RECORD_WRITTEN);
        written
    }
}

// A poisoned lock is usable: each change is a single statement, or a transaction that is rolled back.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode<R: Record>(record: &R) -> Result<String> {
    serde_json::to_string(record).during(|| format!("encode the record of {}", record.id()))
}

fn put<R: Record>(connection: &Connection, id: &str, text: &str) -> Result<()> {
    let sql = format!("INSERT OR REPLACE INTO {} (id, record) VALUES (?1, ?2)", R::TABLE);
    let written = connection.prepare_cached(&sql).and_then(|mut put| put.execute(params![id, text]));
    written.map(drop).during(|| format!("record {} {id}", R::TABLE))
}

/// Returns the bytes of a column, whatever its type.
pub(crate) fn bytes(row: &Row<'_>, column: usize) -> Vec<u8> {
    let value = row.get_ref(column).ok().and_then(|value| value.as_bytes().ok().map(<[u8]>::to_vec));
    value.unwrap_or_default()
}

/// Moves one row to the table `damaged`. Returns its id as text.
fn set_record_aside<R: Record>(connection: &Connection, id: Vec<u8>) -> Result<String> {
    let (what, shown) = (R::TABLE, String::from_utf8_lossy(&id).into_owned());
    let moved = connection.unchecked_transaction().and_then(|moving| {
        let insert = format!(
            "INSERT INTO damaged (what, id, record) SELECT ?2, id, record FROM {what} WHERE CAST(id AS BLOB) = ?1"
        );
        moving.execute(&insert, params![id, what])?;
        moving.execute(&format!("DELETE FROM {what} WHERE CAST(id AS BLOB) = ?1"), params![id])?;
        moving.commit()
    });
    moved.map(|()| shown.clone()).during(|| format!("set the record of {what} {shown} aside"))
}

/// Returns the ids of the rows of one table that were ever set aside.
fn set_aside_of<R: Record>(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare("SELECT DISTINCT id FROM damaged WHERE what = ?1 ORDER BY id")?;
    let ids = select.query_map([R::TABLE], |row| Ok(String::from_utf8_lossy(&bytes(row, 0)).into_owned()))?;
    ids.collect()
}

/// Sets mode 0600 on the database and the files beside it. SQLite gives files that it makes later the database's mode.
fn close_to_others(path: &Path) -> Result<()> {
    touch_private(path)?;
    let siblings = ["-wal", "-shm"].map(|suffix| sibling(path, suffix));
    siblings.iter().filter(|path| path.exists()).try_for_each(|path| touch_private(path))
}

/// Opens the database. Fails with SQLITE_CORRUPT unless its quick check passes.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match verdict.as_str() {
        "ok" => Ok(connection),
        _ => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(verdict))),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Renames the database and the files beside it. They are never deleted.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = sibling(path, &format!(".damaged-{}", clock::now()));
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(sibling(path, suffix), sibling(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

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
        assert_eq!(found.records, [Thing { id: "a".into(), value: 3 }]);
    }

    #[tokio::test]
    async fn its_files_are_roots_alone_also_those_of_a_daemon_that_left_them_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let files = || ["", "-wal", "-shm"].map(|suffix| sibling(&path, suffix));
        let state = State::open(&path).unwrap();
        state.put(&Thing { id: "a".into(), value: 1 }).await.unwrap();
        for file in files() {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
            std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        }
        let _again = State::open(&path).unwrap();
        for file in files() {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        assert_eq!(State::open(&path).unwrap_err().kind(), Kind::FailedPrecondition);
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_set_aside_and_the_others_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("state.db")).unwrap();
        for id in ["cut", "well", "other", "blob"] {
            state.put(&Thing { id: id.into(), value: 1 }).await.unwrap();
        }
        let damage = "UPDATE pod SET record = substr(record, 1, 9) WHERE id = 'cut';
             UPDATE pod SET record = replace(record, 'other', 'well') WHERE id = 'other';
             UPDATE pod SET record = x'ff00' WHERE id = 'blob';";
        lock(&state.connection).execute_batch(damage).unwrap();
        let loaded = state.load::<Thing>().unwrap();
        assert_eq!(loaded.records, [Thing { id: "well".into(), value: 1 }]);
        assert_eq!(loaded.damaged, ["blob", "cut", "other"]);
        let kept = "SELECT count(*) FROM damaged WHERE what = 'pod' AND length(record) > 1";
        let kept: u32 = lock(&state.connection).query_row(kept, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 3);
        let again = state.load::<Thing>().unwrap();
        assert_eq!((again.records.len(), again.damaged), (1, loaded.damaged), "they wait to be made again");
    }

    #[tokio::test]
    async fn a_damaged_database_is_set_aside_and_a_new_one_begun() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let damaged = "not a database, but long enough to have a header of its own";
        fs::write(&path, damaged).unwrap();
        let state = State::open(&path).unwrap();
        state.put(&Thing { id: "a".into(), value: 1 }).await.unwrap();
        assert_eq!(State::open(&path).unwrap().load::<Thing>().unwrap().records.len(), 1);
        let aside = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains(".damaged-")).collect();
        assert_eq!(fs::read_to_string(&aside[0]).unwrap(), damaged);
        assert_eq!(aside.len(), 1);
    }

    #[tokio::test]
    async fn a_new_record_has_a_copy_that_says_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("state.db"), directory.path().join("copy.json"));
        let thing = Thing { id: "a".into(), value: 7 };
        State::open(&path).unwrap().put_new(&thing, copy.clone()).await.unwrap();
        assert_eq!(serde_json::from_slice::<Thing>(&fs::read(copy).unwrap()).unwrap(), thing);
    }
}
