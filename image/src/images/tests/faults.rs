//! Wrong content, a full disk, and crashes in the middle of a pull.

use std::process::{Child, Command, Stdio};

use super::scripted::{OCI_INDEX, OCI_MANIFEST, blob_path};
use super::*;

async fn refused(fixture: &Fixture, name: &str, kind: Kind, reason: &str) {
    let error = fixture.pull(name).await.expect_err("must be refused");
    let text = whole_chain(&error);
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(reason), "{text:?} should say {reason:?}");
    assert!(fixture.images.list().is_empty());
    assert_eq!(fixture.entries("staging"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_blob_that_is_not_what_its_digest_says_is_refused_and_the_right_one_taken() {
    let registry = Scripted::start();
    for (kind, tar) in [(GZIP, small_layer("g")), (PLAIN, small_layer("p"))] {
        let mut image = Published::of(std::slice::from_ref(&tar));
        if kind == PLAIN {
            image.layers[0] = (PLAIN.to_owned(), tar.clone(), image.layers[0].2.clone());
        }
        image.publish(&registry, "app", "1");
        let good = image.layers[0].1.clone();
        for at in [12, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            registry.put(&image.layer_path("app", 0), "application/octet-stream", &bad);
            let fixture = Fixture::new().await;
            refused(&fixture, &registry.name("app:1"), Kind::DataLoss, "pull layer sha256:").await;
            assert_eq!(fixture.entries("layers"), 0);
            registry.put(&image.layer_path("app", 0), "application/octet-stream", &good);
            fixture.pull(&registry.name("app:1")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_blob_cut_short_is_refused() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    image.publish(&registry, "app", "1");
    registry.cut(&image.layer_path("app", 0), 40);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry.name("app:1")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::DataLoss | Kind::Unavailable), "{}", whole_chain(&error));
    assert_eq!((fixture.entries("staging"), fixture.entries("layers")), (0, 0));
    registry.put(&image.layer_path("app", 0), "application/octet-stream", &image.layers[0].1);
    fixture.pull(&registry.name("app:1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_that_unpacks_to_something_else_than_promised_is_refused() {
    let registry = Scripted::start();
    let mut image = Published::of(&[small_layer("a")]);
    image.layers[0].2 = Digest::sha256(b"something else");
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    refused(&fixture, &registry.name("app:1"), Kind::DataLoss, "the configuration says").await;
    assert_eq!(fixture.entries("layers"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_that_would_escape_is_refused() {
    let registry = Scripted::start();
    Published::of(&[Tarball::new().file("../../escaped", b"x").bytes()]).publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    refused(&fixture, &registry.name("app:1"), Kind::FailedPrecondition, "leaves the layer's root").await;
    assert!(!fixture.root.path().join("escaped").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_hard_link_to_what_no_layer_has_is_refused() {
    let registry = Scripted::start();
    Published::of(&[small_layer("a"), Tarball::new().hard_link("l", "nowhere").bytes()])
        .publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    refused(&fixture, &registry.name("app:1"), Kind::FailedPrecondition, "\"nowhere\" is not in the image")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_content_that_is_not_compressed_as_promised_is_refused() {
    let registry = Scripted::start();
    for (media_type, said) in [(GZIP, "says gzip"), (ZSTD, "says zstd")] {
        let mut image = Published::of(&[small_layer("a")]);
        image.layers[0] = (media_type.to_owned(), small_layer("a"), image.layers[0].2.clone());
        image.publish(&registry, "app", "1");
        refused(&Fixture::new().await, &registry.name("app:1"), Kind::DataLoss, said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_for_another_machine_is_refused() {
    let registry = Scripted::start();
    let mut image = Published::of(&[small_layer("a")]);
    image.architecture = "s390x".to_owned();
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    refused(&fixture, &registry.name("app:1"), Kind::NotFound, "there is one for linux/s390x").await;
    assert_eq!(registry.asked(&image.layer_path("app", 0)), 0);
}

fn index(entries: &[(&Digest, &str)]) -> serde_json::Value {
    let entry = |(digest, architecture): &(&Digest, &str)| json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": architecture}});
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries.iter().map(entry).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_index_leads_to_the_image_of_this_machine_and_names_it() {
    let registry = Scripted::start();
    let (ours, mut theirs) = (Published::of(&[small_layer("ours")]), Published::of(&[small_layer("theirs")]));
    theirs.architecture = "s390x".to_owned();
    let (own, other) = (ours.publish(&registry, "app", "own"), theirs.publish(&registry, "app", "other"));
    let host = Platform::host();
    let both =
        registry.manifest("app", "1", OCI_INDEX, &index(&[(&other, "s390x"), (&own, &host.architecture)]));
    let fixture = Fixture::new().await;
    let pulled = fixture.pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(pulled.id, ours.id());
    assert_eq!(
        pulled.digests,
        [registry.name(&format!("app@{both}"))],
        "the digest of what the tag stands for"
    );
    fixture.images.remove(&registry.name("app:1")).await.unwrap();
    registry.manifest("app", "2", OCI_INDEX, &index(&[(&other, "s390x")]));
    refused(&fixture, &registry.name("app:2"), Kind::NotFound, "there is one for linux/s390x").await;
    registry.manifest("app", "3", OCI_INDEX, &index(&[]));
    refused(&fixture, &registry.name("app:3"), Kind::NotFound, "no platform").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_index_within_an_index_is_followed_but_not_for_ever() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    let host = Platform::host();
    let mut digest = image.publish(&registry, "app", "0");
    for depth in 1..=3 {
        let mut document = index(&[(&digest, &host.architecture)]);
        document["manifests"][0]["mediaType"] = json!(if depth == 1 { OCI_MANIFEST } else { OCI_INDEX });
        digest = registry.manifest("app", &depth.to_string(), OCI_INDEX, &document);
    }
    let fixture = Fixture::new().await;
    refused(&fixture, &registry.name("app:3"), Kind::FailedPrecondition, "beyond depth 3").await;
    fixture.pull(&registry.name("app:2")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_is_no_image_is_refused_saying_what_it_is() {
    let registry = Scripted::start();
    let fixture = Fixture::new().await;
    let name = registry.name("app:1");
    let image = Published::of(&[small_layer("a")]);
    image.publish(&registry, "app", "1");
    let change = |pointer: &str, value: serde_json::Value| {
        let mut manifest = image.manifest();
        *manifest.pointer_mut(pointer).unwrap() = value;
        registry.manifest("app", "1", OCI_MANIFEST, &manifest);
    };
    change("/layers/0/mediaType", json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
    refused(&fixture, &name, Kind::FailedPrecondition, "is foreign").await;
    change("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"));
    refused(&fixture, &name, Kind::FailedPrecondition, "cannot be unpacked").await;
    change("/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json"));
    refused(&fixture, &name, Kind::FailedPrecondition, "an artifact, not a container image").await;
    change("/layers", json!([]));
    refused(&fixture, &name, Kind::DataLoss, "the manifest has 0 layers, the configuration 1").await;
    change("/config/digest", json!("sha256:short"));
    refused(&fixture, &name, Kind::DataLoss, "parse manifest").await;
    let schema1 = json!({"schemaVersion": 1, "fsLayers": [], "history": []});
    registry.manifest("app", "1", "application/vnd.docker.distribution.manifest.v1+json", &schema1);
    refused(&fixture, &name, Kind::FailedPrecondition, "schema 1").await;
    refused(&fixture, &registry.name("app:none"), Kind::NotFound, "fetch the manifest").await;
    image.publish(&registry, "app", "1");
    fixture.pull(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_a_crash_left_is_swept() {
    let registry = Scripted::start();
    Published::of(&[small_layer("a")]).publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("app:1")).await.unwrap();
    let root = fixture.root.path();
    for left in ["staging/7/etc", "layers/0123abcd/etc", "trash/3/etc"] {
        std::fs::create_dir_all(root.join(left)).unwrap();
        std::fs::write(root.join(left).join("file"), "x").unwrap();
    }
    std::fs::write(root.join("staging/file"), "x").unwrap();
    let fixture = fixture.reopened().await;
    assert_eq!((fixture.entries("staging"), fixture.entries("layers")), (0, 1));
    assert_eq!(fixture.images.list().len(), 1);
    while fixture.entries("trash") > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_layers_that_could_not_be_thrown_away_are_not_taken_for_there_and_go_with_the_next_try() {
    let registry = Scripted::start();
    Published::of(&[small_layer("a"), small_layer("b")]).publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let (name, trash) = (registry.name("app:1"), fixture.root.path().join("trash"));
    let remove_in_vain = async |fixture: &Fixture| {
        std::fs::remove_dir_all(&trash).unwrap();
        std::fs::write(&trash, "in the way").unwrap();
        fixture.images.remove(&name).await.unwrap_err();
        std::fs::remove_file(&trash).unwrap();
        std::fs::create_dir(&trash).unwrap();
        assert_eq!(fixture.entries("layers"), 2);
    };
    fixture.pull(&name).await.unwrap();
    remove_in_vain(&fixture).await;
    fixture.images.remove(&name).await.unwrap();
    assert_eq!(fixture.entries("layers"), 0);

    fixture.pull(&name).await.unwrap();
    remove_in_vain(&fixture).await;
    fixture.pull(&name).await.unwrap();
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.images.list().len(), 1, "the index knows the layers again");
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_gone_from_the_disk_is_noticed_and_repaired_by_pulling_again() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a"), small_layer("b")]);
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let name = registry.name("app:1");
    fixture.pull(&name).await.unwrap();
    let damage = |fixture: &Fixture| {
        let keys = [image.layers[0].2.hex()];
        std::fs::remove_dir_all(fixture.root.path().join("layers").join(keys[0])).unwrap();
    };
    damage(&fixture);
    let error = fixture.images.lease(&image.id(), "c").await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(fixture.images.list().is_empty(), "so that it is pulled again");
    fixture.pull(&name).await.unwrap();
    fixture.images.lease(&image.id(), "c").await.unwrap();
    damage(&fixture);
    fixture.pull(&name).await.unwrap();
    damage(&fixture);
    let fixture = fixture.reopened().await;
    assert!(fixture.images.list().is_empty());
    fixture.pull(&name).await.unwrap();
    let layers = fixture.images.lease(&image.id(), "c").await.unwrap();
    assert_eq!(layers.read("etc/a", 10).unwrap().unwrap(), b"a");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_index_of_another_version_is_refused_not_overwritten() {
    let fixture = Fixture::new().await;
    let Fixture { root, images } = fixture;
    drop(images);
    let db = rusqlite::Connection::open(root.path().join("index.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Images::open(config(root.path())).await.err().unwrap();
    assert!(matches!(error, Error::IndexVersion { found: 99, known: 2 }), "{error}");
}

/// Runs one of the `root_alone_` tests, which do nothing without BERTH_TEST_ROOT, in a process of its own.
fn run_alone(prepare: &[&str], test: &str, root: &Path, name: &str) -> Command {
    let mut words = prepare.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
    words.push(std::env::current_exe().unwrap().into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", &format!("images::tests::faults::{test}")]);
    command.env("BERTH_TEST_ROOT", root).env("BERTH_TEST_IMAGE", name);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn told() -> Option<(String, String)> {
    Some((std::env::var("BERTH_TEST_ROOT").ok()?, std::env::var("BERTH_TEST_IMAGE").ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn root_alone_pull() {
    let Some((root, name)) = told() else { return };
    let images = Images::open(config(Path::new(&root))).await.unwrap();
    images.pull(&name.parse().unwrap(), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_process_killed_at_any_step_of_a_pull_leaves_nothing_half_made() {
    let registry = Scripted::start();
    let big = |name: &str| {
        let files = (0..50).fold(Tarball::new(), |tar, i| tar.file(&format!("{name}{i}"), &[i; 20_000]));
        files.bytes()
    };
    let image = Published::of(&[big("a"), big("b"), big("c")]);
    image.publish(&registry, "app", "1");
    let steps = [
        "/v2/app/manifests/1".to_owned(),
        blob_path("app", &image.id()),
        image.layer_path("app", 0),
        image.layer_path("app", 2),
    ];
    for step in steps {
        must_be_root();
        let root = tempfile::tempdir().unwrap();
        registry.hold(&step);
        let before = registry.asked(&step);
        let name = registry.name("app:1");
        let mut child: Child = run_alone(&[], "root_alone_pull", root.path(), &name).spawn().unwrap();
        tokio::task::block_in_place(|| registry.wait_for(&step, before + 1));
        child.kill().unwrap();
        child.wait().unwrap();
        registry.let_go();
        let images = Images::open(config(root.path())).await.unwrap();
        let fixture = Fixture { root, images };
        assert!(fixture.images.list().is_empty());
        assert_eq!(fixture.entries("staging"), 0);
        fixture.pull(&name).await.unwrap();
        let layers = fixture.images.lease(&image.id(), "c").await.unwrap();
        assert_eq!(layers.read("b49", 20_000).unwrap().unwrap(), [49; 20_000]);
        assert_eq!((fixture.entries("layers"), fixture.entries("staging")), (3, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_alone_pull_into_a_full_disk() {
    let Some((root, name)) = told() else { return };
    let images = Images::open(config(&Path::new(&root).join("store"))).await.unwrap();
    let fixture = Fixture { root: tempfile::tempdir().unwrap(), images };
    let error = fixture.pull(&name).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{}", whole_chain(&error));
    // The threads that unpack the layers may not have ended yet.
    while std::fs::read_dir(Path::new(&root).join("store/staging")).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(fixture.images.list().is_empty());
    assert_eq!(std::fs::read_dir(Path::new(&root).join("store/layers")).unwrap().count(), 0);
    assert_eq!(fixture.images.usage(), Usage::default());
}

fn alone_runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn root_a_full_disk_is_told_as_such_and_leaves_nothing_half_made() {
    must_be_root();
    let registry = Scripted::start();
    let big = Tarball::new().file("big", &[1; 4 << 20]).bytes();
    let image = Published::of(&[small_layer("a"), big]);
    image.publish(&registry, "app", "1");
    registry.hold(&image.layer_path("app", 1));
    let root = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=2m none {} && exec \"$@\"", root.path().display());
    let prepare = ["unshare", "-m", "sh", "-c", &script, "sh"];
    let mut alone =
        run_alone(&prepare, "root_alone_pull_into_a_full_disk", root.path(), &registry.name("app:1"));
    let alone = alone.spawn().unwrap();
    // The directory as the child's mount namespace shows it: wait until the small layer is in it before the big one
    // fails.
    let layers = Path::new("/proc").join(alone.id().to_string()).join("root");
    let layers = layers.join(root.path().strip_prefix("/").unwrap()).join("store/layers");
    while std::fs::read_dir(&layers).map_or(0, Iterator::count) == 0 && alone_runs(alone.id()) {
        std::thread::yield_now();
    }
    registry.let_go();
    let outcome = alone.wait_with_output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stdout));
    assert!(String::from_utf8_lossy(&outcome.stdout).contains("1 passed"));
}
