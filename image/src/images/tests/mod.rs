#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod faults;
mod hosts;
mod names;
mod old_store;
mod scripted;
mod sharing;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use self::scripted::{GZIP, PLAIN, Published, Scripted, ZSTD, gzip};
use super::*;
use crate::error::Kind;
use crate::tarball::{Tarball, must_be_root};

/// A store in a directory of its own.
struct Fixture {
    root: TempDir,
    images: Images,
}

fn config(root: &Path) -> Config {
    let mut config = Config::new(root);
    config.registry.retry = registry::Retry {
        limit: 1,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(1),
    };
    config
}

impl Fixture {
    async fn new() -> Self {
        must_be_root();
        let root = tempfile::tempdir().unwrap();
        let images = Images::open(config(root.path())).await.unwrap();
        Fixture { root, images }
    }

    /// Like `new`, with registries reached as in `hosts`: pairs of a registry and its hosts.toml.
    async fn with_hosts(hosts: &[(&str, String)]) -> Self {
        must_be_root();
        let root = tempfile::tempdir().unwrap();
        let certs = root.path().join("certs.d");
        for (registry, text) in hosts {
            std::fs::create_dir_all(certs.join(registry)).unwrap();
            std::fs::write(certs.join(registry).join("hosts.toml"), text).unwrap();
        }
        let mut config = config(root.path());
        config.registry.hosts_dirs = vec![certs];
        let images = Images::open(config).await.unwrap();
        Fixture { root, images }
    }

    /// Opens the store again, as after the process was killed and restarted.
    async fn reopened(self) -> Self {
        drop(self.images);
        let images = Images::open(config(self.root.path())).await.unwrap();
        Fixture { root: self.root, images }
    }

    async fn pull(&self, name: &str) -> Result<Arc<Image>, Error> {
        self.images.pull(&name.parse().unwrap(), None).await
    }

    fn entries(&self, directory: &str) -> usize {
        std::fs::read_dir(self.root.path().join(directory)).unwrap().count()
    }

    /// Asserts that the directories are those in the index, and that nothing is staged.
    fn assert_tidy(&self) {
        let layers: std::collections::HashSet<_> =
            self.images.list().iter().flat_map(|image| image.layers.clone()).collect();
        assert_eq!((self.entries("staging"), self.entries("layers")), (0, layers.len()));
    }
}

fn whole_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn small_layer(name: &str) -> Vec<u8> {
    Tarball::new().dir("etc/", 0o755).file(&format!("etc/{name}"), name.as_bytes()).bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_is_pulled_with_all_that_it_says_about_itself() {
    let registry = Scripted::start();
    let mut image = Published::of(&[small_layer("a"), small_layer("b")]);
    image.config = json!({
        "User": "1000:1001", "Env": ["PATH=/bin"], "Entrypoint": ["/bin/app"], "Cmd": null, "WorkingDir": "/srv",
        "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"k": "v"}, "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["NONE"]},
    });
    let manifest = image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let pulled = fixture.pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(pulled.id, image.id());
    assert_eq!(pulled.tags, [registry.name("app:1")]);
    assert_eq!(pulled.digests, [registry.name(&format!("app@{manifest}"))]);
    let expected =
        image.layers.iter().map(|layer| layer.1.len()).sum::<usize>() + image.configuration().len();
    assert_eq!(pulled.size, expected as u64);
    assert_eq!((pulled.os.as_str(), pulled.created.as_str()), ("linux", "2026-01-02T03:04:05Z"));
    let config = &pulled.config;
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1000:1001", "/srv"));
    assert_eq!(
        (&config.env[..], &config.entrypoint[..], config.cmd.len()),
        (&["PATH=/bin".into()][..], &["/bin/app".into()][..], 0)
    );
    assert_eq!(
        (&config.volumes[..], &config.exposed_ports[..]),
        (&["/data".into()][..], &["80/tcp".into()][..])
    );
    assert_eq!((config.labels["k"].as_str(), config.stop_signal.as_str()), ("v", "SIGQUIT"));
    let layers = fixture.images.lease(&pulled.id, "container").await.unwrap();
    assert_eq!(layers.lower.len(), 2);
    assert_eq!(layers.read("/etc/a", 10).unwrap().unwrap(), b"a");
    assert_eq!(layers.read("/etc/b", 10).unwrap().unwrap(), b"b");
    assert!(layers.lower[0].join("etc/b").exists(), "the top layer comes first");
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_layers_may_be_plain_or_compressed_whatever_their_media_type_says() {
    let registry = Scripted::start();
    let layers = ["plain", "gzip", "zstd", "called-plain", "two-members"].map(small_layer);
    let mut image = Published::of(&layers);
    image.layers[0] = (PLAIN.to_owned(), layers[0].clone(), image.layers[0].2.clone());
    image.layers[2] =
        (ZSTD.to_owned(), zstd::encode_all(&layers[2][..], 1).unwrap(), image.layers[2].2.clone());
    image.layers[3].0 = PLAIN.to_owned();
    let (first, second) = layers[4].split_at(700);
    image.layers[4].1 = [gzip(first), gzip(second)].concat();
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let pulled = fixture.pull(&registry.name("app:1")).await.unwrap();
    let layers = fixture.images.lease(&pulled.id, "c").await.unwrap();
    for name in ["plain", "gzip", "zstd", "called-plain", "two-members"] {
        assert_eq!(layers.read(&format!("etc/{name}"), 100).unwrap().unwrap(), name.as_bytes());
    }
    assert_eq!(GZIP, image.layers[1].0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_without_layers_can_be_pulled() {
    let registry = Scripted::start();
    Published::of(&[]).publish(&registry, "scratch", "1");
    let fixture = Fixture::new().await;
    let pulled = fixture.pull(&registry.name("scratch:1")).await.unwrap();
    assert_eq!(fixture.images.lease(&pulled.id, "c").await.unwrap().lower.len(), 0);
}
