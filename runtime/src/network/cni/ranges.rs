//! A network configuration of our own making, for a node whose addresses kubelet tells and for which nobody else drops a
//! file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::conf::{Loaded, NetworkConf};
use super::template::{Value, render};
use super::{Cni, Error};
use crate::network::Cidr;

/// Our file in the configuration directory. The number in front leaves room for others to come before and after it.
const FILE: &str = "10-berth-net.conflist";
/// Its name until it is whole; of no extension that is read.
const STAGED: &str = "10-berth-net.staged";

impl Cni {
    /// Fills the template in with `ranges`, unless someone else's network is there.
    pub(in crate::network) async fn use_ranges(&self, ranges: &[Cidr]) -> Result<(), Error> {
        let Some(template) = &self.config.conf_template else {
            tracing::info!(
                "no network.cni.conf_template is configured: others make the network's configuration"
            );
            return Ok(());
        };
        let target = self.config.conf_dir.join(FILE);
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
    // One for each family, IPv4 first.
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

/// Puts the file in place as a whole, once it is known to be a network.
fn write(target: &Path, text: &str, template: &Path) -> Result<(), Error> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let staged = target.with_file_name(STAGED);
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
