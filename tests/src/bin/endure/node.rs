//! A daemon with room for a thousand pods, and network namespaces that are pinned where nobody else's are.

use std::path::Path;

use berth_tests::berth::Berth;
use tempfile::TempDir;

pub(crate) struct Node {
    // Before the pins: a daemon that ends takes its pods' pins away.
    pub(crate) berth: Berth,
    pins: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let pins = tempfile::Builder::new().prefix("berth-test-pins").tempdir().unwrap();
        let number = std::process::id() % 100;
        let network = format!(
            "provider = \"bridge\"\nnetns_dir = {:?}\n[network.bridge]\nname = \"be{number}\"\nsubnet = \"10.{}.0.0/20\"\n\
             remove_when_empty = true\n",
            pins.path(),
            100 + number,
        );
        Self { berth: Berth::with_network(&network).await, pins }
    }

    /// Where the pods' network namespaces are pinned.
    pub(crate) fn pins(&self) -> &Path {
        self.pins.path()
    }
}
