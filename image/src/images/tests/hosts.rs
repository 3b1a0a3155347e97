//! Several registries, and several hosts of one registry.

use super::*;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("must not wait for another registry")
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_registry_that_stalls_holds_up_no_other() {
    let (stalled, working) = (Scripted::start(), Scripted::start());
    let image = Published::of(&["a", "b", "c", "d"].map(small_layer));
    image.publish(&stalled, "app", "1");
    image.publish(&working, "app", "1");
    let layers: Vec<_> = (0..4).map(|layer| image.layer_path("app", layer)).collect();
    layers.iter().for_each(|layer| stalled.hold(layer));
    let fixture = Fixture::new().await;
    let (images, name) = (fixture.images.clone(), stalled.name("app:1"));
    let waiting = tokio::spawn(async move { images.pull(&name.parse().unwrap(), None).await });
    // All slots for this registry are taken, by any of its layers.
    tokio::task::block_in_place(|| stalled.wait_for_some(&layers, 3));
    soon(fixture.pull(&working.name("app:1"))).await.unwrap();
    assert!(!waiting.is_finished());
    stalled.let_go();
    assert_eq!(waiting.await.unwrap().unwrap().id, image.id());
    fixture.assert_tidy();
}

fn mirrored(mirror: &Scripted, upstream: &Scripted) -> [(&'static str, String); 1] {
    let (mirror, upstream) = (mirror.address, upstream.address);
    [("upstream.example", format!("server = \"http://{upstream}\"\n[host.\"http://{mirror}\"]\n"))]
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_that_a_mirror_has_damaged_is_fetched_from_the_next_host() {
    let noise = |seed: u64| {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..18 << 20).map(next).collect::<Vec<u8>>()
    };
    let big = Tarball::new().file("noise", &noise(1)).bytes();
    let (mirror, upstream) = (Scripted::start(), Scripted::start());
    let image = Published::of(&[small_layer("small"), big]);
    image.publish(&mirror, "app", "1");
    image.publish(&upstream, "app", "1");
    for (layer, at) in [(0, 12), (1, 100)] {
        let mut bad = image.layers[layer].1.clone();
        bad[at] ^= 0x55;
        mirror.put(&image.layer_path("app", layer), "application/octet-stream", &bad);
    }
    let fixture = Fixture::with_hosts(&mirrored(&mirror, &upstream)).await;
    assert_eq!(fixture.pull("upstream.example/app:1").await.unwrap().id, image.id());
    for layer in 0..2 {
        let path = image.layer_path("app", layer);
        assert_eq!((mirror.asked(&path), upstream.asked(&path)), (1, 1), "layer {layer}");
    }
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_layer_that_all_hosts_have_damaged_is_refused() {
    let (mirror, upstream) = (Scripted::start(), Scripted::start());
    let image = Published::of(&[small_layer("a")]);
    for registry in [&mirror, &upstream] {
        image.publish(registry, "app", "1");
        registry.put(&image.layer_path("app", 0), "application/octet-stream", &[7; 300]);
    }
    let fixture = Fixture::with_hosts(&mirrored(&mirror, &upstream)).await;
    let error = soon(fixture.pull("upstream.example/app:1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{}", whole_chain(&error));
    assert_eq!((fixture.entries("staging"), fixture.entries("layers")), (0, 0));
}
