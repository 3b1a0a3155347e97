//! Content that is fetched once and kept once, and how long it is kept.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn root_two_pulls_at_once_fetch_a_layer_once() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a"), small_layer("b")]);
    image.publish(&registry, "app", "1");
    let blob = image.layer_path("app", 0);
    registry.hold(&blob);
    let fixture = Fixture::new().await;
    let pulls = [(); 4].map(|()| {
        let (images, name) = (fixture.images.clone(), registry.name("app:1"));
        tokio::spawn(async move { images.pull(&name.parse().unwrap(), None).await })
    });
    tokio::task::block_in_place(|| {
        registry.wait_for("/v2/app/manifests/1", 4);
        registry.wait_for(&blob, 1);
    });
    registry.let_go();
    for pull in pulls {
        assert_eq!(pull.await.unwrap().unwrap().id, image.id());
    }
    assert_eq!((registry.asked(&blob), registry.asked(&image.layer_path("app", 1))), (1, 1));
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pull_given_up_leaves_the_layer_to_the_one_that_waits_with_it() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    image.publish(&registry, "app", "1");
    let blob = image.layer_path("app", 0);
    registry.hold(&blob);
    let fixture = Fixture::new().await;
    let name = registry.name("app:1");
    let start = || {
        let (images, name) = (fixture.images.clone(), name.clone());
        tokio::spawn(async move { images.pull(&name.parse().unwrap(), None).await })
    };
    let first = start();
    tokio::task::block_in_place(|| registry.wait_for(&blob, 1));
    let second = start();
    tokio::task::block_in_place(|| registry.wait_for("/v2/app/manifests/1", 2));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    registry.let_go();
    assert_eq!(second.await.unwrap().unwrap().id, image.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pull_given_up_alone_leaves_nothing() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    image.publish(&registry, "app", "1");
    registry.hold(&image.layer_path("app", 0));
    let fixture = Fixture::new().await;
    let (images, name) = (fixture.images.clone(), registry.name("app:1"));
    let pull = tokio::spawn(async move { images.pull(&name.parse().unwrap(), None).await });
    tokio::task::block_in_place(|| registry.wait_for(&image.layer_path("app", 0), 1));
    pull.abort();
    assert!(pull.await.unwrap_err().is_cancelled());
    while fixture.entries("staging") > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((fixture.images.list().len(), fixture.entries("layers")), (0, 0));
    registry.let_go();
    fixture.pull(&registry.name("app:1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_on_another_base_is_not_fetched_again_if_it_stands_alone() {
    let registry = Scripted::start();
    let (one, other) = (
        Published::of(&[small_layer("base1"), small_layer("app")]),
        Published::of(&[small_layer("base2"), small_layer("app")]),
    );
    one.publish(&registry, "one", "1");
    other.publish(&registry, "other", "1");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("one:1")).await.unwrap();
    let second = fixture.pull(&registry.name("other:1")).await.unwrap();
    assert_eq!(registry.asked(&other.layer_path("other", 1)), 0);
    assert_eq!(fixture.entries("layers"), 3);
    fixture.images.remove(&one.id().to_string()).await.unwrap();
    let layers = fixture.images.lease(&second.id, "c").await.unwrap();
    assert_eq!(layers.read("etc/app", 10).unwrap().unwrap(), b"app");
    assert_eq!(layers.read("etc/base1", 10).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_that_implies_directories_is_completed_for_each_base() {
    let registry = Scripted::start();
    let implying = Tarball::new().file("srv/app", b"x").hard_link("srv/link", "srv/base").bytes();
    let base = |mode, data: &[u8]| Tarball::new().dir("srv/", mode).file("srv/base", data).bytes();
    let one = Published::of(&[base(0o700, b"1"), implying.clone()]);
    let other = Published::of(&[base(0o711, b"2"), implying]);
    one.publish(&registry, "one", "1");
    other.publish(&registry, "other", "1");
    let fixture = Fixture::new().await;
    for (name, mode, data) in [("one:1", 0o700, b"1"), ("other:1", 0o711, b"2")] {
        let pulled = fixture.pull(&registry.name(name)).await.unwrap();
        let layers = fixture.images.lease(&pulled.id, name).await.unwrap();
        let srv = std::fs::metadata(layers.lower[0].join("srv")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&srv) & 0o7777, mode);
        assert_eq!(layers.read("srv/link", 10).unwrap().unwrap(), data);
    }
    assert_eq!(fixture.entries("layers"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_that_comes_twice_in_an_image_is_mounted_once() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a"), small_layer("b"), small_layer("a")]);
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let pulled = fixture.pull(&registry.name("app:1")).await.unwrap();
    let layers = fixture.images.lease(&pulled.id, "c").await.unwrap();
    assert_eq!(layers.lower.len(), 2);
    assert!(layers.lower[0].join("etc/a").exists(), "it counts where it is uppermost");
    assert_eq!(registry.asked(&image.layer_path("app", 0)), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_leased_layers_outlive_their_image_and_a_restart() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("app:1")).await.unwrap();
    let layers = fixture.images.lease(&image.id(), "container").await.unwrap();
    fixture.images.remove(&registry.name("app:1")).await.unwrap();
    assert!(fixture.images.list().is_empty());
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.images.leases(), ["container"]);
    assert_eq!(fixture.images.leased("container"), Some(layers.clone()));
    assert_eq!(layers.read("etc/a", 10).unwrap().unwrap(), b"a");
    fixture.images.release("container").await.unwrap();
    fixture.images.release("container").await.unwrap();
    assert!(fixture.images.leases().is_empty());
    assert_eq!((fixture.entries("layers"), fixture.images.usage()), (0, Usage::default()));
    assert!(!layers.lower[0].exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_removing_an_image_keeps_what_another_one_shares() {
    let registry = Scripted::start();
    let one = Published::of(&[small_layer("base"), small_layer("one")]);
    let other = Published::of(&[small_layer("base"), small_layer("other")]);
    one.publish(&registry, "one", "1");
    other.publish(&registry, "other", "1");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("one:1")).await.unwrap();
    fixture.pull(&registry.name("other:1")).await.unwrap();
    fixture.images.remove(&registry.name("one:1")).await.unwrap();
    assert_eq!(fixture.entries("layers"), 2);
    let layers = fixture.images.lease(&other.id(), "c").await.unwrap();
    assert_eq!(layers.read("etc/base", 10).unwrap().unwrap(), b"base");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_many_removals_and_pulls_at_once_agree_in_the_end() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a"), small_layer("b")]);
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let name = registry.name("app:1");
    let tasks: Vec<_> = (0..24)
        .map(|i| {
            let (images, name) = (fixture.images.clone(), name.clone());
            tokio::spawn(async move {
                match i % 2 {
                    0 => images.pull(&name.parse().unwrap(), None).await.map(drop),
                    _ => images.remove(&name).await,
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let pulled = fixture.pull(&name).await.unwrap();
    let layers = fixture.images.lease(&pulled.id, "c").await.unwrap();
    assert_eq!(layers.read("etc/b", 10).unwrap().unwrap(), b"b");
    assert_eq!(fixture.entries("layers"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_a_layer_holds_does_not_depend_on_what_was_pulled_before() {
    let registry = Scripted::start();
    let implying = Tarball::new().file("bin/app", b"app").bytes();
    let base = Tarball::new().dir("usr/", 0o755).dir("usr/bin/", 0o755).symlink("bin", "usr/bin").bytes();
    let bottom = Published::of(std::slice::from_ref(&implying));
    let upper = Published::of(&[base, implying]);
    bottom.publish(&registry, "bottom", "1");
    upper.publish(&registry, "upper", "1");
    for order in [["bottom", "upper"], ["upper", "bottom"]] {
        let fixture = Fixture::new().await;
        for name in order {
            fixture.pull(&registry.name(&format!("{name}:1"))).await.unwrap();
        }
        let on_base = fixture.images.lease(&upper.id(), "upper").await.unwrap();
        assert!(on_base.lower[0].join("usr/bin/app").exists(), "{order:?}");
        assert!(!on_base.lower[0].join("bin").exists(), "{order:?}");
        let alone = fixture.images.lease(&bottom.id(), "bottom").await.unwrap();
        assert!(alone.lower[0].join("bin/app").exists(), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_nothing_is_seen_below_a_layer_whose_root_is_opaque() {
    let registry = Scripted::start();
    let opaque = Tarball::new().dir("etc/", 0o755).file("etc/top", b"").file(".wh..wh..opq", b"").bytes();
    let image = Published::of(&[small_layer("a"), small_layer("b"), opaque, small_layer("c")]);
    image.publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    let pulled = fixture.pull(&registry.name("app:1")).await.unwrap();
    let leased = fixture.images.lease(&pulled.id, "c").await.unwrap();
    assert_eq!(leased.lower.len(), 2, "the kernel does not heed the mark at a layer's root");
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.images.leased("c"), Some(leased.clone()));
    assert_eq!(fixture.entries("layers"), 4);
    assert_eq!(leased.read("etc/a", 10).unwrap(), None);
    assert_eq!(leased.read("etc/c", 10).unwrap().unwrap(), b"c");
}
