//! A daemon with addresses for a thousand pods.

use std::path::PathBuf;

use berth_tests::berth::Berth;

pub(crate) struct Node {
    pub(crate) berth: Berth,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let number = std::process::id() % 100;
        let network = format!(
            "provider = \"bridge\"\n[network.bridge]\nname = \"be{number}\"\nsubnet = \"10.{}.0.0/20\"\n\
             remove_when_empty = true\n",
            100 + number,
        );
        Self { berth: Berth::with_network(&network).await }
    }

    /// Directory in which the pods' network namespaces are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        self.berth.path().join("netns")
    }
}
