//! The records of pods and containers.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{Finding, remedy::Remedy};
use crate::{
    container::Container,
    error::{During, Result},
    pod::Pod,
    state::{Record, bytes},
};

/// The records that can be read, by id.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) containers: BTreeMap<String, Container>,
    /// Ids of records that cannot be read, or that were set aside. Their directories and processes still have an owner.
    unreadable: Vec<String>,
}

impl Records {
    /// Reads the database, beside a daemon if one runs. A missing database has no records.
    pub(super) fn read(database: &Path) -> Result<(Self, Vec<Finding>)> {
        let (mut records, mut findings) = (Self::default(), Vec::new());
        if !database.exists() {
            return Ok((records, findings));
        }
        let step = || format!("open {}", database.display());
        let connection =
            Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).during(step)?;
        let sound: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).during(step)?;
        if sound != "ok" {
            findings.push(Finding::new(format!("{}: {sound}", database.display())));
        }
        records.pods = records.load(&connection, &mut findings)?;
        records.containers = records.load(&connection, &mut findings)?;
        records.unreadable.extend(set_aside(&connection).during(|| "read what was set aside")?);
        Ok((records, findings))
    }

    fn load<R: Record>(
        &mut self,
        connection: &Connection,
        findings: &mut Vec<Finding>,
    ) -> Result<BTreeMap<String, R>> {
        let step = || format!("read the records of {}", R::TABLE);
        let mut select = connection.prepare(&format!("SELECT id, record FROM {}", R::TABLE)).during(step)?;
        let rows = select.query_map([], |row| Ok((bytes(row, 0), bytes(row, 1)))).during(step)?;
        let mut read = BTreeMap::new();
        for row in rows {
            let (id, text) = row.during(step)?;
            let id = String::from_utf8_lossy(&id).into_owned();
            match serde_json::from_slice(&text) {
                Ok(record) => drop(read.insert(id, record)),
                Err(error) => {
                    findings.push(Finding::new(format!(
                        "the record of {} {id} cannot be read: {error}",
                        R::TABLE
                    )));
                    self.unreadable.push(id);
                }
            }
        }
        Ok(read)
    }

    /// Whether a pod with this id is on record, readable or not.
    pub(super) fn has_pod(&self, id: &str) -> bool {
        self.pods.contains_key(id) || self.is_unreadable(id)
    }

    /// Whether a container with this id is on record, readable or not.
    pub(super) fn has_container(&self, id: &str) -> bool {
        self.containers.contains_key(id) || self.is_unreadable(id)
    }

    fn is_unreadable(&self, id: &str) -> bool {
        self.unreadable.iter().any(|other| other == id)
    }

    /// Finds containers whose pod is not on record: no call reaches that pod, so removing it can never remove them.
    pub(super) fn disagreements(&self) -> Vec<Finding> {
        let alone = self.containers.values().filter(|container| !self.has_pod(&container.pod_id));
        alone
            .map(|container| {
                let what = format!(
                    "container {} is of pod {}, which is not on record",
                    container.id, container.pod_id
                );
                match container.state.is_exited() {
                    true => Finding::repairable(what, Remedy::ForgetContainer(container.id.clone())),
                    false => Finding::new(what),
                }
            })
            .collect()
    }
}

/// Ids in the table `damaged`, which databases of earlier versions do not have.
fn set_aside(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    if !connection.table_exists(None::<&str>, "damaged")? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare("SELECT id FROM damaged")?;
    let ids = select.query_map([], |row| Ok(String::from_utf8_lossy(&bytes(row, 0)).into_owned()))?;
    ids.collect()
}
