#![allow(clippy::unwrap_used)]
use std::{fs, path::Path};

use rusqlite::{Connection, params};

use super::*;
use crate::{
    container::Container,
    pod::{Pod, PodState, config::PodConfig},
    shim::ShimAddress,
    state::State,
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Root {
    directory: tempfile::TempDir,
    config: Config,
}

impl Root {
    /// Returns the directories of a daemon that has run and has no pods left.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut config = Config { root: path.join("root"), state: path.join("run"), ..Config::default() };
        config.network.netns_dir = path.join("netns");
        config.pods.cgroup_root = format!("/{}", path.file_name().unwrap().to_str().unwrap());
        Layout::create(&config.root, &config.state, &config.network.netns_dir).unwrap();
        State::open(&config.root.join("state.db")).unwrap();
        Self { directory, config }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn record(&self, table: &str, id: &str, record: &str) {
        let database = Connection::open(self.config.root.join("state.db")).unwrap();
        database.execute(&format!("INSERT INTO {table} VALUES (?1, ?2)"), params![id, record]).unwrap();
    }

    async fn check(&self, repair: bool) -> Outcome {
        check(&self.config, repair).await.unwrap()
    }
}

#[tokio::test]
async fn a_root_with_nothing_is_as_it_should_be() {
    let outcome = Root::new().check(false).await;
    assert_eq!((outcome.lines.as_slice(), outcome.wrong), ([].as_slice(), false));
}

#[tokio::test]
async fn what_nobody_has_is_named_and_goes_only_when_asked() {
    let root = Root::new();
    let path = root.path();
    let left = ["run/containers", "run/sandboxes", "root/containers"].map(|name| path.join(name).join(ID));
    left.iter().for_each(|directory| fs::create_dir_all(directory.join("below")).unwrap());
    let pin = path.join("netns").join(format!("berth-{}", &ID[..12]));
    fs::write(&pin, "").unwrap();
    let others = path.join("netns/somebody-else");
    fs::write(&others, "").unwrap();
    drop(std::os::unix::net::UnixListener::bind(path.join("run/s/dead")).unwrap());

    let found = root.check(false).await;
    assert!(found.wrong && found.lines.len() == 5, "{found:?}");
    for place in left.iter().chain([&pin, &path.join("run/s/dead")]) {
        let text = place.display().to_string();
        assert!(found.lines.iter().any(|line| line.contains(&text)), "{text}: {found:?}");
        assert!(place.exists(), "{text}");
    }
    let mended = root.check(true).await;
    assert!(!mended.wrong && mended.lines.iter().all(|line| line.ends_with("(mended)")), "{mended:?}");
    assert!(!left.iter().chain([&pin]).any(|place| place.exists()));
    assert!(others.exists());
    assert!(root.check(false).await.lines.is_empty());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named_and_what_it_owns_stays() {
    let root = Root::new();
    root.record("container", ID, "{");
    let writable = root.path().join("root/containers").join(ID);
    fs::create_dir_all(&writable).unwrap();
    let outcome = root.check(true).await;
    assert!(outcome.wrong && outcome.lines.len() == 1 && outcome.lines[0].contains(ID), "{outcome:?}");
    assert!(writable.exists());
    // The next daemon was killed after setting the record aside and before restoring it.
    State::open(&root.config.root.join("state.db")).unwrap().load::<Container>().unwrap();
    assert!(!root.check(true).await.wrong);
    assert!(writable.exists());
}

#[tokio::test]
async fn a_record_that_is_no_text_is_named_as_any_other() {
    let root = Root::new();
    let database = Connection::open(root.config.root.join("state.db")).unwrap();
    database.execute("INSERT INTO pod VALUES (?1, x'ff00')", [ID]).unwrap();
    let outcome = root.check(false).await;
    assert!(outcome.wrong && outcome.lines[0].contains(ID), "{outcome:?}");
}

#[tokio::test]
async fn a_pod_whose_shim_bundle_namespace_and_address_are_gone_is_told_of_each() {
    let root = Root::new();
    let netns = root.path().join("netns").join(format!("berth-{}", &ID[..12]));
    let socket = root.path().join("run/s/gone").display().to_string();
    let pod = Pod {
        id: ID.into(),
        config: PodConfig::default(),
        created_at: 1,
        state: PodState::Ready,
        attachment: None,
        netns: Some(netns),
        shim: Some(ShimAddress { socket, pid: 1 }),
        cgroup: "/x".into(),
    };
    root.record("pod", ID, &serde_json::to_string(&pod).unwrap());
    let outcome = root.check(false).await;
    for part in ["bundle of pod", "its shim is dead", "network namespace of pod"] {
        assert!(
            outcome.lines.iter().any(|line| line.contains(part) && line.contains(ID)),
            "{part}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn beside_a_daemon_nothing_is_mended() {
    let root = Root::new();
    fs::create_dir(root.path().join("run/containers").join(ID)).unwrap();
    let _daemon = Lock::take(&root.config.root, Duration::ZERO).await.unwrap();
    assert!(root.check(false).await.wrong);
    let refused = check(&root.config, true).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
}

#[tokio::test]
async fn a_root_that_is_not_there_is_not_made() {
    let root = Root::new();
    let config = Config { root: root.path().join("nowhere"), ..root.config.clone() };
    assert_eq!(check(&config, false).await.unwrap_err().kind(), Kind::NotFound);
    assert!(!config.root.exists());
}
