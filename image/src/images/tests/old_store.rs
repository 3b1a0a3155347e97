//! Stores of an earlier version.

use super::*;

/// A layer that only implies its directories, one that stands alone, and a base on which the first comes out otherwise.
struct Parts {
    implying: Vec<u8>,
    alone: Vec<u8>,
    base: Vec<u8>,
}

fn parts() -> Parts {
    Parts {
        implying: Tarball::new().file("bin/app", b"app").bytes(),
        alone: small_layer("alone"),
        base: Tarball::new().dir("usr/", 0o755).dir("usr/bin/", 0o755).symlink("bin", "usr/bin").bytes(),
    }
}

/// Turns the store into one of version 1, where `image` has the bottom layer `diff_id` at `position`.
fn age(root: &Path, image: &Digest, position: u32, diff_id: &Digest) {
    let db = rusqlite::Connection::open(root.join("index.db")).unwrap();
    let sql = "UPDATE image_layers SET layer = ?1 WHERE image = ?2 AND position = ?3";
    let changed = db.execute(sql, (diff_id.to_string(), image.to_string(), position)).unwrap();
    assert_eq!(changed, 1);
    let unused = "DELETE FROM layers WHERE NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = key)";
    assert_eq!(db.execute(unused, []).unwrap(), 1);
    for column in ["stands_alone", "hides_all_below"] {
        db.execute(&format!("ALTER TABLE layers DROP COLUMN {column}"), []).unwrap();
    }
    db.pragma_update(None, "user_version", 1).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_image_with_a_layer_that_was_unpacked_for_another_base_is_pulled_again() {
    let registry = Scripted::start();
    let Parts { implying, alone, base } = parts();
    let bottom = Published::of(&[implying.clone(), alone.clone()]);
    let wrong = Published::of(&[base.clone(), implying]);
    let right = Published::of(&[base, alone]);
    let images = [("bottom", &bottom), ("wrong", &wrong), ("right", &right)];
    let fixture = Fixture::new().await;
    for (name, image) in images {
        image.publish(&registry, name, "1");
        fixture.pull(&registry.name(&format!("{name}:1"))).await.unwrap();
    }
    fixture.images.lease(&right.id(), "holder").await.unwrap();
    let Fixture { root, images } = fixture;
    drop(images);
    age(root.path(), &wrong.id(), 1, &wrong.layers[1].2);
    let images = Images::open(config(root.path())).await.unwrap();
    let fixture = Fixture { root, images };
    let mut left: Vec<_> = fixture.images.list().iter().map(|image| image.id.clone()).collect();
    left.sort();
    let mut expected = vec![bottom.id(), right.id()];
    expected.sort();
    assert_eq!(left, expected);
    let pulled = fixture.pull(&registry.name("wrong:1")).await.unwrap();
    let layers = fixture.images.lease(&pulled.id, "c").await.unwrap();
    assert!(layers.lower[0].join("usr/bin/app").exists());
    assert!(!layers.lower[0].join("bin").exists());
    assert_eq!(registry.asked(&right.layer_path("right", 1)), 0, "what stands alone is known to");
    assert_eq!(registry.asked(&wrong.layer_path("wrong", 0)), 1, "what was right is not fetched again");
    assert_eq!(fixture.images.leases(), ["c", "holder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_opaque_root_in_an_old_store_is_found() {
    let registry = Scripted::start();
    let Parts { implying, base, .. } = parts();
    let opaque = Tarball::new().file(".wh..wh..opq", b"").dir("etc/", 0o755).bytes();
    let bottom = Published::of(std::slice::from_ref(&implying));
    let hiding = Published::of(&[base, implying, opaque]);
    bottom.publish(&registry, "bottom", "1");
    hiding.publish(&registry, "hiding", "1");
    let fixture = Fixture::new().await;
    fixture.pull(&registry.name("bottom:1")).await.unwrap();
    fixture.pull(&registry.name("hiding:1")).await.unwrap();
    fixture.images.lease(&hiding.id(), "holder").await.unwrap();
    let Fixture { root, images } = fixture;
    drop(images);
    age(root.path(), &hiding.id(), 1, &hiding.layers[1].2);
    let images = Images::open(config(root.path())).await.unwrap();
    let fixture = Fixture { root, images };
    fixture.pull(&registry.name("hiding:1")).await.unwrap();
    assert_eq!(fixture.images.lease(&hiding.id(), "c").await.unwrap().lower.len(), 1);
    assert_eq!(registry.asked(&hiding.layer_path("hiding", 2)), 1);
}
