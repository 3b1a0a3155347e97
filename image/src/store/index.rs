//! The index: which images, names, layers and leases exist. SQLite in WAL mode with `synchronous=NORMAL`: a commit
//! survives the end of the process at once, a power cut only once the kernel has written the log to the disk. The index
//! is checked against the layer directories at start, so that a lost commit costs a new pull and nothing worse.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::digest::Digest;
use crate::error::Error;
use crate::image::Image;
use crate::manifest::Configuration;
use crate::unpack::Usage;

use super::checkpoint::Checkpoints;
use super::log_space::reserve_log;

/// Schema version, raised with every change of the tables. Version 1 is upgraded, any other is refused.
pub(super) const VERSION: i64 = 2;

/// Pages of the log after which SQLite itself checkpoints it, within a change.
const AUTOCHECKPOINT: i64 = 8000;

const SCHEMA: &str = "
    CREATE TABLE images (
        id TEXT PRIMARY KEY, configuration BLOB NOT NULL, size INTEGER NOT NULL, pulled_at INTEGER NOT NULL
    ) STRICT;
    -- repository:tag and repository@digest
    CREATE TABLE names (
        name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images ON DELETE CASCADE
    ) STRICT;
    CREATE TABLE manifests (
        digest TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images ON DELETE CASCADE, bytes BLOB NOT NULL
    ) STRICT;
    -- key: the diff id of a layer that stands alone, else the chain id; its hex digits are the directory's name
    CREATE TABLE layers (
        key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, inodes INTEGER NOT NULL,
        unpacked_at INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0,
        stands_alone INTEGER NOT NULL DEFAULT 0, hides_all_below INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE image_layers (
        image TEXT NOT NULL REFERENCES images ON DELETE CASCADE, position INTEGER NOT NULL,
        chain_id TEXT NOT NULL, layer TEXT NOT NULL, PRIMARY KEY (image, position)
    ) STRICT;
    CREATE INDEX image_layers_layer ON image_layers (layer);
    CREATE TABLE leases (
        holder TEXT NOT NULL, position INTEGER NOT NULL, layer TEXT NOT NULL, PRIMARY KEY (holder, position)
    ) STRICT;
    CREATE INDEX leases_layer ON leases (layer);
";

/// Turns tables of version 1 into those of version 2.
const UPGRADE: &str = "
    ALTER TABLE layers ADD COLUMN stands_alone INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE layers ADD COLUMN hides_all_below INTEGER NOT NULL DEFAULT 0;
";

/// Facts about a layer in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) usage: Usage,
    /// The layer is the same whatever lies below it. If not, and its key is its diff id, it is a bottom layer (whose
    /// chain id equals its diff id) and may be used only there.
    pub(crate) stands_alone: bool,
    /// Its root directory is opaque; the kernel ignores that mark on the root of a lower directory.
    pub(crate) hides_all_below: bool,
}

/// The record of a finished pull.
pub(crate) struct Pulled {
    pub(crate) id: Digest,
    pub(crate) configuration: Vec<u8>,
    pub(crate) size: u64,
    /// Tag and digest names under which it was pulled.
    pub(crate) names: Vec<String>,
    /// The manifest, and the indexes that led to it.
    pub(crate) manifests: Vec<(Digest, Vec<u8>)>,
    /// Chain id and key of each layer, the bottom one first.
    pub(crate) layers: Vec<(Digest, Digest)>,
}

/// An image with the keys of its layers, the bottom one first.
pub(crate) struct Listed {
    pub(crate) image: Image,
    pub(crate) layers: Vec<Digest>,
}

pub(crate) struct Index {
    db: Connection,
    checkpoints: Option<Checkpoints>,
}

impl Index {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let db = Connection::open(path).map_err(failed("open"))?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(failed("prepare"))?;
        db.pragma_update(None, "synchronous", "NORMAL").map_err(failed("prepare"))?;
        db.pragma_update(None, "foreign_keys", "ON").map_err(failed("prepare"))?;
        // A change checkpoints by itself, and so waits for the disk, only if the checkpoint thread lags behind.
        db.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT).map_err(failed("prepare"))?;
        let mut index = Index { db, checkpoints: Checkpoints::start(path) };
        match index.version()? {
            0 => create(&mut index.db).map_err(failed("create tables of"))?,
            1 | VERSION => {}
            found => return Err(Error::IndexVersion { found, known: VERSION }),
        }
        if let Err(error) = reserve_log(path) {
            tracing::warn!(%error, "the image index has no room of its own: on a full disk no image can be removed");
        }
        Ok(index)
    }

    pub(super) fn version(&self) -> Result<i64, Error> {
        let read = self.db.query_row("PRAGMA user_version", [], |row| row.get(0));
        read.map_err(failed("read version of"))
    }

    /// Upgrades version 1 to 2: adds the facts about each of `layers`, and removes the images in `wrong`.
    pub(super) fn upgrade(&mut self, layers: &HashMap<Digest, Layer>, wrong: &[Digest]) -> Result<(), Error> {
        self.within("upgrade", |tx| {
            tx.execute_batch(UPGRADE)?;
            for (key, layer) in layers {
                let sql = "UPDATE layers SET stands_alone = ?2, hides_all_below = ?3 WHERE key = ?1";
                tx.execute(sql, params![key.to_string(), layer.stands_alone, layer.hides_all_below])?;
            }
            for image in wrong {
                tx.execute("DELETE FROM images WHERE id = ?1", [image.to_string()])?;
            }
            tx.pragma_update(None, "user_version", VERSION)
        })
    }

    pub(crate) fn images(&self) -> Result<Vec<Listed>, Error> {
        self.read_images().map_err(failed("read images of"))
    }

    fn read_images(&self) -> rusqlite::Result<Vec<Listed>> {
        let mut names = self.names()?;
        let mut layers = self.image_layers()?;
        let mut query = self.db.prepare_cached("SELECT id, configuration, size, pulled_at FROM images")?;
        let rows = query.query_map([], |row| {
            let id: String = row.get(0)?;
            let (names, layers) =
                (names.remove(&id).unwrap_or_default(), layers.remove(&id).unwrap_or_default());
            listed(row, names, layers)
        })?;
        rows.collect()
    }

    pub(crate) fn configuration(&self, id: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT configuration FROM images WHERE id = ?1";
        let found = self.db.query_row(sql, [id.to_string()], |row| row.get(0)).optional();
        found.map_err(failed("read a configuration of"))
    }

    fn names(&self) -> rusqlite::Result<HashMap<String, Vec<String>>> {
        let mut query = self.db.prepare_cached("SELECT image, name FROM names ORDER BY name")?;
        grouped(query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Returns chain id and key of each layer by image id, the bottom one first.
    pub(super) fn stacks(&self) -> Result<HashMap<String, Vec<(Digest, Digest)>>, Error> {
        self.image_layers().map_err(failed("read images of"))
    }

    fn image_layers(&self) -> rusqlite::Result<HashMap<String, Vec<(Digest, Digest)>>> {
        let sql = "SELECT image, chain_id, layer FROM image_layers ORDER BY image, position";
        let mut query = self.db.prepare_cached(sql)?;
        grouped(query.query_map([], |row| Ok((row.get(0)?, (digest(row, 1)?, digest(row, 2)?))))?)
    }

    pub(crate) fn layers(&self) -> Result<HashMap<Digest, Layer>, Error> {
        let read = || -> rusqlite::Result<HashMap<Digest, Layer>> {
            let sql = "SELECT key, bytes, inodes, stands_alone, hides_all_below FROM layers";
            let mut query = self.db.prepare_cached(sql)?;
            query.query_map([], |row| Ok((digest(row, 0)?, layer(row)?)))?.collect()
        };
        read().map_err(failed("read layers of"))
    }

    /// Returns the keys of all layers; works on version 1 too.
    pub(super) fn layer_keys(&self) -> Result<Vec<Digest>, Error> {
        let read = || -> rusqlite::Result<Vec<Digest>> {
            let mut query = self.db.prepare_cached("SELECT key FROM layers")?;
            query.query_map([], |row| digest(row, 0))?.collect()
        };
        read().map_err(failed("read layers of"))
    }

    /// Returns a manifest or index by which a stored image was pulled.
    pub(crate) fn manifest(&self, named: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT bytes FROM manifests WHERE digest = ?1";
        let found = self.db.query_row(sql, [named.to_string()], |row| row.get(0)).optional();
        found.map_err(failed("read a manifest of"))
    }

    /// Returns layer keys by holder, the bottom one first.
    pub(crate) fn leases(&self) -> Result<BTreeMap<String, Vec<Digest>>, Error> {
        let read = || -> rusqlite::Result<BTreeMap<String, Vec<Digest>>> {
            let sql = "SELECT holder, layer FROM leases ORDER BY holder, position";
            let mut query = self.db.prepare_cached(sql)?;
            let rows = grouped(query.query_map([], |row| Ok((row.get(0)?, digest(row, 1)?)))?)?;
            Ok(rows.into_iter().collect())
        };
        read().map_err(failed("read leases of"))
    }

    pub(crate) fn add_layer(&mut self, key: &Digest, layer: Layer) -> Result<(), Error> {
        let sql =
            "INSERT OR REPLACE INTO layers (key, bytes, inodes, unpacked_at, stands_alone, hides_all_below)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Layer { usage, stands_alone, hides_all_below } = layer;
        let (bytes, inodes) = (signed(usage.bytes), signed(usage.inodes));
        let row = params![key.to_string(), bytes, inodes, now(), stands_alone, hides_all_below];
        let added = self.db.execute(sql, row);
        self.changed(added.map(drop), "add a layer to")
    }

    /// Records a pulled image; its names are taken from other images that had them.
    pub(crate) fn add_image(&mut self, pulled: &Pulled) -> Result<(), Error> {
        self.within("add an image to", |tx| {
            let id = pulled.id.to_string();
            tx.execute(
                "INSERT INTO images (id, configuration, size, pulled_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET size = excluded.size, pulled_at = excluded.pulled_at",
                params![id, pulled.configuration, signed(pulled.size), now()],
            )?;
            for name in &pulled.names {
                tx.execute("INSERT OR REPLACE INTO names (name, image) VALUES (?1, ?2)", params![name, id])?;
            }
            for (digest, bytes) in &pulled.manifests {
                let sql = "INSERT OR REPLACE INTO manifests (digest, image, bytes) VALUES (?1, ?2, ?3)";
                tx.execute(sql, params![digest.to_string(), id, bytes])?;
            }
            add_image_layers(tx, &id, &pulled.layers)
        })
    }

    pub(crate) fn remove_image(&mut self, id: &Digest) -> Result<(), Error> {
        let removed = self.db.execute("DELETE FROM images WHERE id = ?1", [id.to_string()]);
        self.changed(removed.map(drop), "remove an image from")
    }

    /// Leases these layers, the bottom one first, to `holder`, replacing any lease it had.
    pub(crate) fn lease(&mut self, holder: &str, layers: &[Digest]) -> Result<(), Error> {
        self.within("add a lease to", |tx| {
            tx.execute("DELETE FROM leases WHERE holder = ?1", [holder])?;
            let mut insert =
                tx.prepare_cached("INSERT INTO leases (holder, position, layer) VALUES (?1, ?2, ?3)")?;
            for (position, layer) in (0_i64..).zip(layers) {
                insert.execute(params![holder, position, layer.to_string()])?;
            }
            Ok(())
        })
    }

    pub(crate) fn release(&mut self, holder: &str) -> Result<(), Error> {
        let released = self.db.execute("DELETE FROM leases WHERE holder = ?1", [holder]);
        self.changed(released.map(drop), "remove a lease from")
    }

    /// Returns layers that no image and no lease refers to: those once part of an image, and those unpacked longer than
    /// `unfinished` ago by a pull that never finished.
    pub(crate) fn unreferenced(&self, unfinished: Duration) -> Result<Vec<Digest>, Error> {
        let read = || -> rusqlite::Result<Vec<Digest>> {
            let mut query = self.db.prepare_cached(
                "SELECT key FROM layers WHERE (used OR unpacked_at <= ?1)
                 AND NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = key)
                 AND NOT EXISTS (SELECT 1 FROM leases WHERE layer = key)",
            )?;
            let before = now().saturating_sub(i64::try_from(unfinished.as_nanos()).unwrap_or(i64::MAX));
            query.query_map([before], |row| digest(row, 0))?.collect()
        };
        read().map_err(failed("look for unused layers in"))
    }

    /// Removes layers from the index, and the images that contain them.
    pub(crate) fn forget_layers(&mut self, keys: &[Digest]) -> Result<(), Error> {
        self.within("remove layers from", |tx| {
            for key in keys.iter().map(Digest::to_string) {
                tx.execute(
                    "DELETE FROM images WHERE id IN (SELECT image FROM image_layers WHERE layer = ?1)",
                    [&key],
                )?;
                tx.execute("DELETE FROM layers WHERE key = ?1", [&key])?;
            }
            Ok(())
        })
    }

    fn within(
        &mut self,
        step: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let run = |db: &mut Connection| {
            let tx = db.transaction()?;
            work(&tx)?;
            tx.commit()
        };
        let done = run(&mut self.db);
        self.changed(done, step)
    }

    fn changed(&mut self, outcome: rusqlite::Result<()>, step: &'static str) -> Result<(), Error> {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.changed();
        }
        outcome.map_err(failed(step))
    }
}

fn create(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    tx.execute_batch(SCHEMA)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()
}

fn add_image_layers(tx: &Transaction<'_>, id: &str, layers: &[(Digest, Digest)]) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM image_layers WHERE image = ?1", [id])?;
    for (position, (chain_id, layer)) in (0_i64..).zip(layers) {
        let sql = "INSERT INTO image_layers (image, position, chain_id, layer) VALUES (?1, ?2, ?3, ?4)";
        tx.execute(sql, params![id, position, chain_id.to_string(), layer.to_string()])?;
        tx.execute("UPDATE layers SET used = 1 WHERE key = ?1", [layer.to_string()])?;
    }
    Ok(())
}

fn listed(row: &Row<'_>, names: Vec<String>, layers: Vec<(Digest, Digest)>) -> rusqlite::Result<Listed> {
    let bytes: Vec<u8> = row.get(1)?;
    let parsed = Configuration::parse(&bytes).map_err(|error| conversion(1, Type::Blob, error))?;
    let (digests, tags) = names.into_iter().partition(|name| name.contains('@'));
    let (chain_ids, keys) = layers.into_iter().unzip();
    let image = Image {
        id: digest(row, 0)?,
        tags,
        digests,
        size: unsigned(row, 2)?,
        config: parsed.config,
        architecture: parsed.architecture,
        os: parsed.os,
        variant: parsed.variant,
        created: parsed.created,
        layers: chain_ids,
        pinned: false,
        pulled_at: UNIX_EPOCH + Duration::from_nanos(unsigned(row, 3)?),
    };
    Ok(Listed { image, layers: keys })
}

fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    let usage = Usage { bytes: unsigned(row, 1)?, inodes: unsigned(row, 2)? };
    Ok(Layer { usage, stands_alone: row.get(3)?, hides_all_below: row.get(4)? })
}

fn grouped<T>(
    rows: impl Iterator<Item = rusqlite::Result<(String, T)>>,
) -> rusqlite::Result<HashMap<String, Vec<T>>> {
    let mut groups: HashMap<String, Vec<T>> = HashMap::new();
    for row in rows {
        let (key, value) = row?;
        groups.entry(key).or_default().push(value);
    }
    Ok(groups)
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| conversion(column, Type::Text, error))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn conversion(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn failed(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Index { step, source }
}
