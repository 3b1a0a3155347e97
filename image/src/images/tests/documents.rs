//! Which documents are fetched, and which form they are taken for.

use super::scripted::{OCI_INDEX, OCI_MANIFEST, blob_path};
use super::*;

fn listing(entries: &[(&Digest, &str)]) -> serde_json::Value {
    let entry = |(digest, media_type): &(&Digest, &str)| json!({"mediaType": media_type, "digest": digest, "size": 1});
    json!({"schemaVersion": 2, "manifests": entries.iter().map(entry).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn root_pulling_again_fetches_nothing() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    let digest = image.publish(&registry, "app", "1");
    registry.manifest("app", "index", OCI_INDEX, &listing(&[(&digest, OCI_MANIFEST)]));
    let fixture = Fixture::new().await;
    let names = ["app:1", "app:index", "app:2", &format!("app@{digest}")].map(|name| registry.name(name));
    fixture.pull(&names[0]).await.unwrap();
    fixture.pull(&names[1]).await.unwrap();
    image.publish(&registry, "app", "2");
    for name in &names {
        assert_eq!(fixture.pull(name).await.unwrap().id, image.id());
    }
    let manifest = |name: &str| format!("/v2/app/manifests/{name}");
    assert_eq!((registry.asked(&manifest("1")), registry.fetched(&manifest("1"))), (2, 1));
    assert_eq!((registry.asked(&manifest("index")), registry.fetched(&manifest("index"))), (3, 1));
    assert_eq!((registry.asked(&manifest("2")), registry.fetched(&manifest("2"))), (1, 0));
    let by_digest = manifest(&digest.to_string());
    assert_eq!((registry.asked(&by_digest), registry.fetched(&by_digest)), (1, 0));
    assert_eq!(registry.asked(&image.layer_path("app", 0)), 1);
    assert_eq!(registry.asked(&blob_path("app", &image.id())), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_tag_that_moved_is_noticed() {
    let registry = Scripted::start();
    let (old, new) = (Published::of(&[small_layer("old")]), Published::of(&[small_layer("new")]));
    let fixture = Fixture::new().await;
    for image in [old, new] {
        image.publish(&registry, "app", "1");
        assert_eq!(fixture.pull(&registry.name("app:1")).await.unwrap().id, image.id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_registry_decides_who_may_have_what_is_here_already() {
    let registry = Scripted::start();
    let digest = Published::of(&[small_layer("a")]).publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("app:1")).await.unwrap();
    let names = ["1".to_owned(), digest.to_string()];
    names.iter().for_each(|name| registry.remove(&format!("/v2/app/manifests/{name}")));
    for name in [registry.name("app:1"), registry.name(&format!("app@{digest}"))] {
        assert_eq!(fixture.pull(&name).await.unwrap_err().kind(), Kind::NotFound, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_registry_that_answers_no_head_is_asked_for_the_document() {
    let registry = Scripted::start();
    registry.answer_no_head();
    Published::of(&[small_layer("a")]).publish(&registry, "app", "1");
    let fixture = Fixture::new().await;
    for _ in 0..2 {
        fixture.pull(&registry.name("app:1")).await.unwrap();
    }
    assert_eq!(registry.fetched("/v2/app/manifests/1"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_of_an_index_that_names_no_platforms_the_one_that_fits_is_taken() {
    let registry = Scripted::start();
    let (ours, mut theirs) = (Published::of(&[small_layer("ours")]), Published::of(&[small_layer("theirs")]));
    theirs.architecture = "s390x".to_owned();
    let mut artifact = theirs.clone();
    artifact.config_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
    let (own, other) = (ours.publish(&registry, "app", "own"), theirs.publish(&registry, "app", "other"));
    let chart = artifact.publish(&registry, "app", "chart");
    let signature = Digest::sha256(b"not there");
    let index = listing(&[
        (&signature, "application/vnd.dev.cosign.simplesigning.v1+json"),
        (&chart, OCI_MANIFEST),
        (&other, OCI_MANIFEST),
        (&own, ""),
    ]);
    registry.manifest("app", "1", OCI_INDEX, &index);
    registry.manifest("app", "none", OCI_INDEX, &listing(&[(&other, OCI_MANIFEST), (&other, "")]));
    let fixture = Fixture::new().await;
    assert_eq!(fixture.pull(&registry.name("app:1")).await.unwrap().id, ours.id());
    let error = fixture.pull(&registry.name("app:none")).await.unwrap_err();
    assert!(whole_chain(&error).contains("there is one for linux/s390x"), "{}", whole_chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_index_leads_to_so_many_documents_and_no_more() {
    let registry = Scripted::start();
    let mut theirs = Published::of(&[small_layer("theirs")]);
    theirs.architecture = "s390x".to_owned();
    let other = theirs.publish(&registry, "app", "other");
    registry.manifest("app", "1", OCI_INDEX, &listing(&vec![(&other, OCI_MANIFEST); 1000]));
    let fixture = Fixture::new().await;
    assert_eq!(fixture.pull(&registry.name("app:1")).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(registry.fetched(&format!("/v2/app/manifests/{other}")), 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_a_document_is_does_not_depend_on_who_serves_it() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    let own = image.publish(&registry, "app", "own");
    let fixture = Fixture::new().await;
    let mut untyped = image.manifest();
    untyped.as_object_mut().unwrap().remove("mediaType");
    for served in [OCI_MANIFEST, OCI_INDEX, "application/json", "text/plain"] {
        for document in [image.manifest(), untyped.clone(), listing(&[(&own, OCI_MANIFEST)])] {
            registry.manifest("app", "1", served, &document);
            assert_eq!(fixture.pull(&registry.name("app:1")).await.unwrap().id, image.id(), "{served}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_document_that_is_two_things_is_refused() {
    let registry = Scripted::start();
    let image = Published::of(&[small_layer("a")]);
    let own = image.publish(&registry, "app", "own");
    let index = listing(&[(&own, OCI_MANIFEST)]);
    let with = |document: &serde_json::Value, key: &str, value: serde_json::Value| {
        let mut document = document.clone();
        document[key] = value;
        document
    };
    let called_index = with(&image.manifest(), "mediaType", json!(OCI_INDEX));
    let inner = registry.manifest("app", "inner", OCI_MANIFEST, &image.manifest());
    let cases = [
        (
            with(&image.manifest(), "manifests", index["manifests"].clone()),
            "both an index and an image manifest",
        ),
        (with(&image.manifest(), "manifests", json!([])), "both an index and an image manifest"),
        (with(&index, "layers", json!([])), "both an index and an image manifest"),
        (with(&index, "config", image.manifest()["config"].clone()), "both an index and an image manifest"),
        (called_index, "is not that of this document, which is an image manifest"),
        (with(&index, "mediaType", json!(OCI_MANIFEST)), "which is an index"),
        (listing(&[(&inner, OCI_INDEX)]), "which is an image manifest"),
        (with(&image.manifest(), "mediaType", json!("application/json")), "neither an image manifest nor"),
        (json!({"schemaVersion": 2}), "neither an image manifest nor an index"),
    ];
    let fixture = Fixture::new().await;
    for (document, said) in cases {
        for served in [OCI_MANIFEST, OCI_INDEX] {
            registry.manifest("app", "1", served, &document);
            let error = fixture.pull(&registry.name("app:1")).await.expect_err(said);
            assert!(whole_chain(&error).contains(said), "{}: {said}", whole_chain(&error));
            assert_eq!(error.kind(), Kind::FailedPrecondition);
        }
    }
    assert!(fixture.images.list().is_empty());
}
