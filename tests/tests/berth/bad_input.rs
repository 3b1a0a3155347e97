use std::{fs, process::Command};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::{INDEX, Image, Layer, Tar},
    pod::{container, pod, shell},
    registry::Registry,
};
use serde_json::{Value, json};
use tar::EntryType;
use tonic::{Code, Status};

/// Asserts that the error has the code, and its message all the words.
#[track_caller]
pub fn assert_says(error: &Status, code: Code, words: &[&str]) {
    assert_eq!(error.code(), code, "{}", error.message());
    for word in words {
        assert!(error.message().contains(word), "{word:?} is not in {:?}", error.message());
    }
}

/// Asserts that a pod with a container can still be run.
async fn assert_usable(berth: &mut Berth, image: &str) {
    let name = format!(
        "after{}",
        berth
            .runtime
            .list_pod_sandbox(v1::ListPodSandboxRequest::default())
            .await
            .unwrap()
            .into_inner()
            .items
            .len()
    );
    let (pod, id) = berth.run_alone(&name, image, "exec sleep 1000").await;
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_images_that_cannot_be_pulled_say_why() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let unknown = berth.registry.reference("no/such/image:1");
    assert_says(&berth.pull(&unknown).await.unwrap_err(), Code::NotFound, &["no/such/image"]);
    assert_says(
        &berth.pull("Not A Reference").await.unwrap_err(),
        Code::InvalidArgument,
        &["Not A Reference"],
    );
    let nobody = "127.0.0.1:1/nobody/listens:1";
    assert_says(&berth.pull(nobody).await.unwrap_err(), Code::Unavailable, &["127.0.0.1:1"]);
    assert_usable(&mut berth, &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_wrong_credentials_are_refused_and_the_right_ones_taken() {
    let mut berth = Berth::start().await;
    let private = Registry::with_password("alice", "secret").await;
    let reference = private.push("private:1", &Image::busybox()).await;
    let mut pull = async |auth| {
        let image = Some(v1::ImageSpec { image: reference.clone(), ..Default::default() });
        berth.images.pull_image(v1::PullImageRequest { image, auth, sandbox_config: None }).await
    };
    let auth = |password: &str| {
        Some(v1::AuthConfig { username: "alice".into(), password: password.into(), ..Default::default() })
    };
    assert_says(&pull(None).await.unwrap_err(), Code::Unauthenticated, &["127.0.0.1"]);
    assert_says(&pull(auth("guess")).await.unwrap_err(), Code::Unauthenticated, &["127.0.0.1"]);
    pull(auth("secret")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_blob_that_was_damaged_or_cut_short_is_refused_and_pulled_again_once_it_is_whole() {
    let mut berth = Berth::start().await;
    let image = Image::busybox();
    let reference = berth.registry.push("damaged:1", &image).await;
    let file = berth.registry.blob_file(&image.layers[0].digest());
    let whole = fs::read(&file).unwrap();
    let mut corrupt = whole.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0xff;
    for (damaged, case) in [(corrupt, "corrupt"), (whole[..whole.len() / 2].to_vec(), "truncated")] {
        fs::write(&file, damaged).unwrap();
        let error = berth.pull(&reference).await.unwrap_err();
        assert!(matches!(error.code(), Code::DataLoss | Code::Unavailable), "{case}: {error:?}");
        assert!(error.message().contains(&image.layers[0].digest()), "{case}: {}", error.message());
        let listed =
            berth.images.list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner().images;
        assert!(listed.is_empty(), "{case}: nothing half-made is shown");
    }
    fs::write(&file, whole).unwrap();
    let id = berth.pull(&reference).await.unwrap();
    assert_usable(&mut berth, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_images_of_other_platforms_are_refused() {
    let mut berth = Berth::start().await;
    let mut foreign = Image::busybox();
    foreign.architecture = "s390x".into();
    let reference = berth.registry.push("foreign:1", &foreign).await;
    let error = berth.pull(&reference).await.unwrap_err();
    assert!(matches!(error.code(), Code::NotFound | Code::FailedPrecondition), "{error:?}");
    assert!(error.message().contains("s390x"), "{}", error.message());

    let manifest = foreign.manifest();
    let entry = json!({
        "mediaType": berth_tests::image::MANIFEST, "digest": berth_tests::image::sha256(&manifest),
        "size": manifest.len(), "platform": {"os": "linux", "architecture": "s390x"},
    });
    let index: Value = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    berth.registry.push_manifest("foreign", "list", INDEX, index.to_string().into_bytes()).await;
    let error = berth.pull(&berth.registry.reference("foreign:list")).await.unwrap_err();
    assert!(matches!(error.code(), Code::NotFound | Code::FailedPrecondition), "{error:?}");
    assert!(error.message().contains("amd64"), "{}", error.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_nothing_in_a_layer_gets_out_of_it() {
    let mut berth = Berth::start().await;
    let target = berth.path().join("escaped");
    let outside = target.to_str().unwrap().to_owned();
    let up = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let directory = berth.path().to_str().unwrap().to_owned();
    let file = EntryType::Regular;
    let wicked = [
        ("dots", Tar::default().raw(file, &up, "", b"x")),
        ("absolute", Tar::default().raw(file, &outside, "", b"x")),
        (
            "symlink",
            Tar::default().raw(EntryType::Symlink, "link", &directory, b"").raw(
                file,
                "link/escaped",
                "",
                b"x",
            ),
        ),
        (
            "hardlink",
            Tar::default().raw(EntryType::Link, "link", &format!("{directory}/berth.toml"), b"").raw(
                file,
                "link",
                "",
                b"overwritten",
            ),
        ),
    ];
    let before = fs::read(berth.path().join("berth.toml")).unwrap();
    for (name, tar) in wicked {
        let mut image = Image::busybox();
        image.layers.push(Layer::gzip(tar));
        let reference = berth.registry.push(&format!("wicked:{name}"), &image).await;
        // Refused, or taken as a name inside the image: both are fine.
        let _ = berth.pull(&reference).await;
        assert!(!target.exists(), "{name}");
        assert_eq!(fs::read(berth.path().join("berth.toml")).unwrap(), before, "{name}");
    }
    let image = berth.busybox().await;
    assert_usable(&mut berth, &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_containers_that_cannot_be_made_or_started_say_why() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "bad");
    let pod = berth.run(&sandbox).await.unwrap();

    let config = container("image", "no/such/image", &["true"]);
    let error = berth.create(&pod, &sandbox, config).await.unwrap_err();
    assert_says(&error, Code::NotFound, &["no/such/image"]);

    let mut config = shell("user", &image, "true");
    config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
        run_as_username: "nobody-knows".into(),
        ..Default::default()
    });
    let error = berth.create(&pod, &sandbox, config).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["nobody-knows", "/etc/passwd"]);

    let mut config = shell("mount", &image, "true");
    config.mounts.push(v1::Mount {
        host_path: "/proc/no/such/source".into(),
        container_path: "/data".into(),
        ..Default::default()
    });
    let error = create_and_start(&mut berth, &pod, &sandbox, config).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["/proc/no/such/source"]);

    let config = container("command", &image, &["/no/such/command"]);
    let error = create_and_start(&mut berth, &pod, &sandbox, config).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["/no/such/command", "no such file"]);

    let mut config = shell("directory", &image, "true");
    config.working_dir = "/bin/busybox".into();
    let error = create_and_start(&mut berth, &pod, &sandbox, config).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["/bin/busybox", "directory"]);

    // After containers that could not be started, another one in the same pod can.
    let id = berth.create(&pod, &sandbox, shell("good", &image, "exec sleep 1000")).await.unwrap();
    berth.start_container(&id).await.unwrap();
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
}

async fn create_and_start(
    berth: &mut Berth,
    pod: &str,
    sandbox: &v1::PodSandboxConfig,
    config: v1::ContainerConfig,
) -> Result<(), Status> {
    let id = berth.create(pod, sandbox, config).await?;
    let started = berth.start_container(&id).await;
    berth.remove_container(&id).await.unwrap();
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_unknown_handler_or_a_pod_without_a_name_is_refused() {
    let mut berth = Berth::start().await;
    let request = v1::RunPodSandboxRequest {
        config: Some(pod(&berth, "handler")),
        runtime_handler: "no-such-handler".into(),
    };
    let error = berth.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(matches!(error.code(), Code::InvalidArgument | Code::NotFound), "{error:?}");
    assert!(error.message().contains("no-such-handler"));
    let error = berth.run(&v1::PodSandboxConfig::default()).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["metadata"]);
    let image = berth.busybox().await;
    assert_usable(&mut berth, &image).await;
}

#[test]
fn root_a_configuration_with_an_unknown_key_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("berth.toml");
    fs::write(&file, "no_such_key = 1\n").unwrap();
    let berthd = berth_tests::program("BERTH_TEST_BIN").join("berthd");
    let output = Command::new(berthd).arg("--config").arg(&file).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no_such_key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_plugins_that_are_missing_failing_or_hanging_are_told_apart_and_nothing_is_left() {
    let plugins = tempfile::tempdir().unwrap();
    let configurations = tempfile::tempdir().unwrap();
    for (name, script) in [
        (
            "failing",
            "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\necho '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"try again\",\"details\":\"no addresses\"}'\nexit 1\n",
        ),
        ("hanging", "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\nexec sleep 1000\n"),
    ] {
        let path = plugins.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let choose = |plugin: &str| {
        let list = json!({"cniVersion": "1.0.0", "name": "tests", "plugins": [{"type": plugin}]});
        let staged = configurations.path().join("staged");
        fs::write(&staged, list.to_string()).unwrap();
        fs::rename(staged, configurations.path().join("10-tests.conflist")).unwrap();
    };
    for (plugin, words) in [
        ("absent", ["absent"].as_slice()),
        ("failing", ["failing", "no addresses"].as_slice()),
        ("hanging", ["hanging"].as_slice()),
    ] {
        choose(plugin);
        let mut berth = Berth::with_cni(configurations.path(), plugins.path()).await;
        let error = berth.run(&pod(&berth, plugin)).await.unwrap_err();
        for word in words {
            assert!(error.message().contains(word), "{word} is not in {}", error.message());
        }
        assert_ne!(error.code(), Code::Unknown);
        let left = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
        assert!(left.into_inner().items.is_empty());
        assert_eq!(fs::read_dir(berth.path().join("run/sandboxes")).unwrap().count(), 0);
    }
}
