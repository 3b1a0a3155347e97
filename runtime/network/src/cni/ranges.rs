//! The node's pod address ranges as kubelet announces them. Plugins that declare `ipRanges` get them, and they fill in
//! a template where no other network is configured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::conf::{Loaded, NetworkConf};
use super::template::{Value, render};
use super::{Cni, Error};
use crate::Cidr;
use crate::record;

/// Name of our file in the configuration directory. The number leaves room for files before and after it.
const CONFLIST_FILE: &str = "10-berth-net.conflist";
/// Its temporary name, whose extension is not read as a configuration.
const STAGED_CONFLIST_FILE: &str = "10-berth-net.staged";

/// Name of the ranges' file in the directory of records, without the extension that records have.
const RANGES_FILE: &str = "pod-ranges";

/// The ranges announced last, kept on disk: kubelet announces them when it starts, not when the daemon does.
#[derive(Debug)]
pub(super) struct Ranges {
    path: PathBuf,
    ranges: RwLock<Arc<[Cidr]>>,
}

impl Ranges {
    /// Reads the ranges of the last run. A damaged file counts as empty: kubelet will announce them again.
    pub(super) fn open(directory: &Path) -> Result<Ranges, Error> {
        let path = directory.join(RANGES_FILE);
        let text = record::read(&path)?.unwrap_or_default();
        let ranges =
            String::from_utf8_lossy(&text).split_whitespace().map(str::parse).collect::<Result<_, _>>();
        Ok(Ranges { path, ranges: RwLock::new(ranges.unwrap_or_default()) })
    }

    pub(super) fn get(&self) -> Arc<[Cidr]> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, ranges: &[Cidr]) -> Result<(), Error> {
        if *self.get() != *ranges {
            let lines: String = ranges.iter().map(|range| format!("{range}\n")).collect();
            record::write(&self.path, lines.as_bytes())?;
            *self.ranges.write().unwrap_or_else(PoisonError::into_inner) = ranges.into();
        }
        Ok(())
    }
}

impl Cni {
    /// Stores `ranges`, and fills in the template with them unless another network is configured.
    pub(crate) async fn use_ranges(&self, ranges: &[Cidr]) -> Result<(), Error> {
        self.ranges.set(ranges)?;
        let Some(template) = &self.config.conf_template else {
            tracing::info!(
                "no network.cni.conf_template is configured: others make the network's configuration"
            );
            return Ok(());
        };
        let target = self.config.conf_dir.join(CONFLIST_FILE);
        let found = Loaded::from_directory(&self.config.conf_dir).networks;
        if let Some(network) = found.iter().find(|network| network.source != target) {
            let source = network.source.display();
            tracing::info!(%source, "the network is configured already: the template is left alone");
            return Ok(());
        }
        write(&target, &fill_in(template, ranges)?, template)?;
        tracing::info!(template = %template.display(), file = %target.display(), "made the network's configuration");
        self.watched.reload().await;
        Ok(())
    }
}

fn fill_in(template: &Path, ranges: &[Cidr]) -> Result<String, Error> {
    let text = fs::read_to_string(template).map_err(failed("read", template))?;
    let texts: Vec<_> = ranges.iter().map(Cidr::to_string).collect();
    // One default route per family, IPv4 first.
    let mut routes: Vec<_> = ranges.iter().map(|range| range.default_route().to_owned()).collect();
    routes.sort();
    routes.dedup();
    let fields = [
        ("PodCIDR", Value::Text(texts.first().cloned().unwrap_or_default())),
        ("PodCIDRRanges", Value::List(texts)),
        ("Routes", Value::List(routes)),
    ];
    render(&text, &fields).map_err(|why| Error::Template { path: template.to_owned(), why })
}

/// Checks that `text` is a valid network and renames it into place.
fn write(target: &Path, text: &str, template: &Path) -> Result<(), Error> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let staged = target.with_file_name(STAGED_CONFLIST_FILE);
    fs::write(&staged, text).map_err(failed("write", &staged))?;
    let moved = match NetworkConf::from_file(&staged) {
        Ok(_) => fs::rename(&staged, target).map_err(failed("move into place", target)),
        Err(why) => Err(Error::Template { path: template.to_owned(), why }),
    };
    moved.inspect_err(|_| {
        let _ = fs::remove_file(&staged);
    })
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path: PathBuf = path.to_owned();
    move |source| Error::File { step, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_known_after_a_restart_and_damaged_ones_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Ranges::open(directory.path()).unwrap();
        assert!(open().get().is_empty());
        let ranges = ["10.1.0.0/16", "fd00::/64"].map(|range| range.parse().unwrap());
        open().set(&ranges).unwrap();
        assert_eq!(*open().get(), ranges);
        open().set(&ranges[..1]).unwrap();
        assert_eq!(*open().get(), ranges[..1]);
        fs::write(directory.path().join(RANGES_FILE), "10.1.").unwrap();
        assert!(open().get().is_empty());
    }
}
