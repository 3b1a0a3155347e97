use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::{Image, Layer, Tar},
    pod::{pod, shell},
};
use tar::EntryType;

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
    // What a container writes is its own: the next one does not see it.
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
        host_path: berth_tests::given("BERTH_TEST_BUSYBOX").display().to_string(),
        ..Default::default()
    });
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    assert_eq!(berth.ended(&id).await.exit_code, 0);
}
