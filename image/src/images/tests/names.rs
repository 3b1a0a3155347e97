//! Names, and the image they lead to.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn root_one_image_under_two_names_is_one_image_and_is_removed_as_one() {
    let (one, other) = (Scripted::start(), Scripted::start());
    let image = Published::of(&[small_layer("a")]);
    image.publish(&one, "app", "1");
    image.publish(&other, "mirror/app", "v1");
    let fixture = Fixture::new().await;
    fixture.pull(&one.name("app:1")).await.unwrap();
    let pulled = fixture.pull(&other.name("mirror/app:v1")).await.unwrap();
    assert_eq!(fixture.images.list().len(), 1);
    let mut tags = vec![one.name("app:1"), other.name("mirror/app:v1")];
    tags.sort();
    assert_eq!(pulled.tags, tags);
    assert_eq!(pulled.digests.len(), 2);
    assert!(fixture.images.usage().bytes > 0);
    fixture.images.remove(&one.name("app:1")).await.unwrap();
    fixture.images.remove(&one.name("app:1")).await.unwrap();
    assert!(fixture.images.list().is_empty());
    assert_eq!(fixture.images.usage(), Usage::default());
    assert_eq!(fixture.entries("layers"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_pulled_by_digest_has_no_tag() {
    let registry = Scripted::start();
    let digest = Published::of(&[small_layer("a")]).publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    for name in [format!("app@{digest}"), format!("app:1@{digest}")] {
        let pulled = fixture.pull(&registry.name(&name)).await.unwrap();
        assert!(pulled.tags.is_empty());
        assert_eq!(pulled.digests, [registry.name(&format!("app@{digest}"))]);
        assert!(fixture.images.get(&registry.name(&name)).is_some());
    }
    assert!(fixture.images.get(&registry.name("app:1")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_tag_that_moved_is_taken_from_the_image_that_had_it() {
    let registry = Scripted::start();
    let (old, new) = (Published::of(&[small_layer("old")]), Published::of(&[small_layer("new")]));
    let fixture = Fixture::new().await;
    let digest = old.publish(&registry, "app", "latest");
    fixture.pull(&registry.name("app")).await.unwrap();
    new.publish(&registry, "app", "latest");
    let pulled = fixture.pull(&registry.name("app")).await.unwrap();
    assert_eq!((pulled.id.clone(), pulled.tags.len()), (new.id(), 1));
    let left = fixture.images.get(&old.id().to_string()).unwrap();
    assert!(left.tags.is_empty());
    assert_eq!(left.digests, [registry.name(&format!("app@{digest}"))]);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.images.get(&registry.name("app:latest")).unwrap().id, new.id());
    assert_eq!(fixture.images.list().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_is_found_by_id_prefix_and_any_spelling_of_its_names() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    let digest = image.publish(&registry, "app", "latest");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("app")).await.unwrap();
    let id = image.id();
    let names = [
        id.to_string(),
        id.hex().to_owned(),
        id.hex()[..12].to_owned(),
        format!("sha256:{}", &id.hex()[..12]),
        registry.name("app"),
        registry.name("app:latest"),
        registry.name(&format!("app@{digest}")),
        registry.name(&format!("app:latest@{digest}")),
    ];
    for name in &names {
        assert_eq!(fixture.images.get(name).map(|image| image.id.clone()), Some(id.clone()), "{name}");
    }
    let other = Digest::sha256(b"other");
    for name in
        ["", "app", &id.hex()[..3], "sha256:", &other.to_string(), &registry.name("app:other"), "UPPER//x"]
    {
        assert!(fixture.images.get(name).is_none(), "{name:?}");
    }
    fixture.images.remove("nothing-of-the-kind").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_pinned_names_are_told() {
    must_be_root();
    let registry = Scripted::start();
    Published::of(&[small_layer("a")]).publish(&registry, "pause", "3");
    let root = tempfile::tempdir().unwrap();
    let config = Config { pinned: vec![registry.name("pause:3")], ..config(root.path()) };
    let images = Images::open(config).await.unwrap();
    let pulled = images.pull(&registry.name("pause:3").parse().unwrap(), None).await.unwrap();
    assert!(pulled.pinned);
}
