use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::{Image, Layer, Tar},
    pod::{pod, shell},
};
use tar::EntryType;
use tonic::Code;

async fn status(berth: &mut Berth, name: &str) -> Option<v1::Image> {
    let image = Some(v1::ImageSpec { image: name.into(), ..Default::default() });
    let request = v1::ImageStatusRequest { image, verbose: false };
    berth.images.image_status(request).await.unwrap().into_inner().image
}

async fn remove(berth: &mut Berth, name: &str) {
    let image = Some(v1::ImageSpec { image: name.into(), ..Default::default() });
    berth.images.remove_image(v1::RemoveImageRequest { image }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_is_found_under_every_name_it_was_pulled_by_and_gone_under_all_once_removed() {
    let mut berth = Berth::start().await;
    let image = Image::busybox();
    let first = berth.registry.push("one:1", &image).await;
    let second = berth.registry.push("two:2", &image).await;
    let id = berth.pull(&first).await.unwrap();
    assert_eq!(id, image.id());
    assert_eq!(berth.pull(&second).await.unwrap(), id);
    let shown = status(&mut berth, &id).await.unwrap();
    assert_eq!((shown.repo_tags.len(), shown.repo_digests.len()), (2, 2));
    for name in [&first, &second, &shown.repo_digests[0]] {
        assert_eq!(status(&mut berth, name).await.unwrap().id, id);
    }
    remove(&mut berth, &second).await;
    assert!(status(&mut berth, &first).await.is_none());
    remove(&mut berth, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_pulled_by_digest_has_no_tag_and_one_without_a_tag_is_latest() {
    let mut berth = Berth::start().await;
    let image = Image::busybox();
    let reference = berth.registry.push("plain", &image).await;
    let untagged = reference.strip_suffix(":latest").unwrap();
    let digest = berth_tests::image::sha256(&image.manifest());
    berth.pull(&format!("{untagged}@{digest}")).await.unwrap();
    assert!(status(&mut berth, &image.id()).await.unwrap().repo_tags.is_empty());
    berth.pull(untagged).await.unwrap();
    assert_eq!(status(&mut berth, &image.id()).await.unwrap().repo_tags, [reference]);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_layers_of_every_compression_show_whiteouts_links_modes_and_owners() {
    let mut berth = Berth::start().await;
    let mut image = Image::busybox();
    let below = Tar::default()
        .directory("data", 0o755)
        .directory("data/old", 0o755)
        .file("data/old/file", 0o644, b"old")
        .file("data/gone", 0o644, b"gone")
        .file("data/setuid", 0o4755, b"x");
    let above = Tar::default()
        .file("data/.wh.gone", 0o644, b"")
        .directory("data/old", 0o755)
        .file("data/old/.wh..wh..opq", 0o644, b"")
        .file("data/old/new", 0o600, b"new")
        .link(EntryType::Symlink, "data/link", "old/new")
        .link(EntryType::Link, "data/hard", "data/old/new");
    image.layers.push(Layer::zstd(below));
    image.layers.push(Layer::plain(above));
    let reference = berth.registry.push("layers:1", &image).await;
    let id = berth.pull(&reference).await.unwrap();
    let (_, container) = berth.run_alone("layers", &id, "exec sleep 1000").await;
    assert_eq!(
        berth.shell(&container, "cd /data; ls; ls old; cat link hard").await,
        "hard\nlink\nold\nsetuid\nnew\nnewnew"
    );
    assert_eq!(
        berth.shell(&container, "stat -c '%a %u' /data/setuid; stat -c %h /data/hard").await,
        "4755 0\n2\n"
    );
    // Writes go to the container's own layer: the next container does not see them.
    berth.shell(&container, "echo mine > /data/mine").await;
    let (_, other) = berth.run_alone("other", &id, "exec sleep 1000").await;
    assert!(!berth.shell(&other, "ls /data").await.contains("mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_image_of_a_running_container_may_be_removed_without_harm_to_it() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("held", &image, "exec sleep 1000").await;
    remove(&mut berth, &image).await;
    assert!(status(&mut berth, &image).await.is_none());
    assert_eq!(berth.shell(&id, "cat /etc/passwd | head -n 1 | wc -l").await.trim(), "1");
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(berth.busybox().await, image);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_images_survive_a_killed_daemon() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    berth.kill();
    berth.restart().await;
    let sandbox = pod(&berth, "after");
    let pod = berth.run(&sandbox).await.unwrap();
    let id = berth.create(&pod, &sandbox, shell("c", &image, "true")).await.unwrap();
    berth.start_container(&id).await.unwrap();
    assert_eq!(berth.ended(&id).await.exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_of_an_image_without_layers_has_what_is_mounted_into_it() {
    let mut berth = Berth::start().await;
    let reference = berth.registry.push("empty:1", &Image::of([])).await;
    let id = berth.pull(&reference).await.unwrap();
    let sandbox = pod(&berth, "empty");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = berth_tests::pod::container("c", &id, &["/busybox", "true"]);
    config.mounts.push(v1::Mount {
        container_path: "/busybox".into(),
        host_path: berth_tests::program("BERTH_TEST_BUSYBOX").display().to_string(),
        ..Default::default()
    });
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    assert_eq!(berth.ended(&id).await.exit_code, 0);
}

/// An image of `count` layers: busybox, and above it layers of one file each.
fn tall(count: usize) -> Image {
    let file = |number: usize| layer(&format!("data/{number}"), number.to_string().as_bytes());
    let mut image = Image::busybox();
    image.layers.extend((1..count).map(file));
    image
}

async fn shows_all_layers(berth: &mut Berth, name: &str) {
    let reference = berth.registry.push("tall:1", &tall(127)).await;
    let image = berth.pull(&reference).await.unwrap();
    let (pod, id) = berth.run_alone(name, &image, "exec sleep 1000").await;
    let seen = berth.shell(&id, "echo x > /data/own; ls /data | wc -l; cat /data/1 /data/126").await;
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["127", "1126"]);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_may_have_as_many_layers_as_builders_make() {
    let mut berth = Berth::start().await;
    shows_all_layers(&mut berth, "tall").await;
}

/// A path too long for fsconfig(2) makes the shim mount by mount(2), as on kernels without the new mount API.
#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_may_have_as_many_layers_where_the_kernel_takes_only_a_page_of_options() {
    let mut berth = Berth::start().await;
    berth.terminate();
    let config = berth.path().join("berth.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let root = berth.path().join("root");
    let long = root.join("l".repeat(220));
    let moved = text.replace(&format!("root = {root:?}"), &format!("root = {long:?}"));
    assert_ne!(moved, text);
    std::fs::write(&config, moved).unwrap();
    berth.restart().await;
    shows_all_layers(&mut berth, "tall-by-mount").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_may_hide_all_that_is_below_it() {
    let mut berth = Berth::start().await;
    let mut image = Image::of([
        layer("data/old", b"old"),
        Layer::gzip(Tar::default().file(".wh..wh..opq", 0o644, b"").directory("new", 0o755)),
    ]);
    image.layers.extend(Image::busybox().layers);
    let reference = berth.registry.push("opaque:1", &image).await;
    let image = berth.pull(&reference).await.unwrap();
    let (_, id) = berth.run_alone("opaque", &image, "exec sleep 1000").await;
    let seen = berth.shell(&id, "ls -d /data /new 2>&1").await;
    assert!(seen.contains("/new") && seen.contains("/data: No such file"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_does_not_depend_on_what_was_pulled_before() {
    let mut berth = Berth::start().await;
    let implying = Layer::gzip(Tar::default().file("lib/app", 0o644, b"app"));
    let first = berth.registry.push("first:1", &Image::of([implying.clone()])).await;
    berth.pull(&first).await.unwrap();
    let base = Tar::default().directory("usr", 0o755).directory("usr/lib", 0o755).file(
        "usr/lib/base",
        0o644,
        b"base",
    );
    let mut image = Image::busybox();
    image.layers.push(Layer::gzip(base.link(EntryType::Symlink, "lib", "usr/lib")));
    image.layers.push(implying);
    let reference = berth.registry.push("second:1", &image).await;
    let image = berth.pull(&reference).await.unwrap();
    let (_, id) = berth.run_alone("second", &image, "exec sleep 1000").await;
    assert_eq!(berth.shell(&id, "readlink /lib; cat /lib/base /lib/app").await, "usr/lib\nbaseapp");
}

/// A layer with a directory `data` and a file.
fn layer(path: &str, content: &[u8]) -> Layer {
    Layer::gzip(Tar::default().directory("data", 0o755).file(path, 0o644, content))
}

fn image_mount(image: &str, container_path: &str, sub_path: &str) -> v1::Mount {
    v1::Mount {
        container_path: container_path.into(),
        readonly: true,
        image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_is_a_volume_whole_or_in_part_that_nobody_writes_to() {
    let mut berth = Berth::start().await;
    let busybox = berth.busybox().await;
    let image = Image::of([layer("data/below", b"below"), layer("data/above", b"above")]);
    let reference = berth.registry.push("volume:1", &image).await;
    let id = berth.pull(&reference).await.unwrap();
    let sandbox = pod(&berth, "volumes");
    let pod_id = berth.run(&sandbox).await.unwrap();
    let mut config = shell("reader", &busybox, "sleep 3600");
    let places = [("/all", ""), ("/part", "data"), ("/file", "data/above")];
    config.mounts = places.map(|(place, part)| image_mount(&reference, place, part)).into();
    let container = berth.create(&pod_id, &sandbox, config).await.unwrap();
    // The image's layers stay as long as a container mounts them.
    remove(&mut berth, &reference).await;
    berth.start_container(&container).await.unwrap();
    let read = "cat /all/data/below /all/data/above /part/below /part/above /file";
    assert_eq!(berth.shell(&container, read).await, "belowabovebelowaboveabove");
    for target in ["/all/x", "/all/data/below", "/part/x", "/file"] {
        let refused = berth.shell(&container, &format!("echo x > {target}")).await;
        assert!(refused.contains("Read-only file system"), "{target}: {refused}");
    }
    let mounts = berth.status(&container).await.unwrap().mounts;
    assert!(mounts.iter().all(|mount| mount.readonly && mount.image.as_ref().unwrap().image_ref == id));
    assert_eq!(
        mounts.iter().map(|mount| mount.image_sub_path.as_str()).collect::<Vec<_>>(),
        ["", "data", "data/above"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_volume_that_cannot_be_is_refused_and_holds_nothing() {
    let mut berth = Berth::start().await;
    let busybox = berth.busybox().await;
    let reference = berth.registry.push("volume:1", &Image::of([layer("data/file", b"")])).await;
    berth.pull(&reference).await.unwrap();
    let sandbox = pod(&berth, "refused");
    let pod_id = berth.run(&sandbox).await.unwrap();
    let writable = v1::Mount { readonly: false, ..image_mount(&reference, "/mnt", "") };
    let cases = [
        (image_mount(&reference, "/mnt", "not-existing"), Code::InvalidArgument),
        (image_mount(&reference, "/mnt", "data/file/below"), Code::InvalidArgument),
        (image_mount("nobody:1", "/mnt", ""), Code::NotFound),
        (writable, Code::InvalidArgument),
    ];
    for (mount, code) in cases {
        let mut config = shell("refused", &busybox, "true");
        // The first image mount has its layers leased before the second one fails.
        config.mounts = vec![image_mount(&reference, "/good", ""), mount];
        assert_eq!(berth.create(&pod_id, &sandbox, config).await.unwrap_err().code(), code);
    }
    remove(&mut berth, &reference).await;
    let usage = berth.images.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner();
    let before = usage.image_filesystems[0].inodes_used.as_ref().unwrap().value;
    remove(&mut berth, &busybox).await;
    let usage = berth.images.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert!(usage.image_filesystems[0].inodes_used.as_ref().unwrap().value < before);
    assert_eq!(usage.image_filesystems[0].inodes_used.as_ref().unwrap().value, 0, "nothing is held");
}
