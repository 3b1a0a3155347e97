#![allow(clippy::unwrap_used)]

use std::time::Instant;

use super::*;

fn opened() -> (tempfile::TempDir, Arc<Store>) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().to_owned(), HashSet::new()).unwrap();
    (root, Arc::new(store))
}

#[test]
fn a_layer_is_put_in_place_while_others_use_the_index() {
    let (root, store) = opened();
    let key = Digest::sha256(b"layer");
    let staged = store.stage().unwrap();
    let index = store.lock_index();
    let committing = {
        let (store, key) = (Arc::clone(&store), key.clone());
        std::thread::spawn(move || store.commit_layer(staged, &key, Layer::default()))
    };
    let started = Instant::now();
    while !root.path().join("layers").join(key.hex()).exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "it waits for the index to come to the disk");
        std::thread::yield_now();
    }
    assert_eq!(store.layer(&key, &key), None, "it is not known yet");
    drop(index);
    committing.join().unwrap().unwrap();
    assert_eq!(store.layer(&key, &key), Some(key));
}

#[test]
fn nobody_waits_for_a_layer_on_its_way_to_the_disk() {
    let (_root, store) = opened();
    let _on_its_way = lock(&store.committing);
    assert!(matches!(store.lease(&Digest::sha256(b"image"), "holder"), Err(Error::Unknown { .. })));
    store.release("holder").unwrap();
}

#[test]
fn layers_of_unfinished_pulls_are_swept_unless_a_pull_counts_on_them() {
    let (root, store) = opened();
    let keys = [b"one", b"two"].map(|name| Digest::sha256(name));
    for key in &keys {
        store.commit_layer(store.stage().unwrap(), key, Layer::default()).unwrap();
    }
    let protection = store.protect(vec![keys[0].clone()]);
    store.sweep_unfinished(KEEP_UNFINISHED).unwrap();
    assert!(keys.iter().all(|key| store.layer(key, key).is_some()));
    store.sweep_unfinished(Duration::ZERO).unwrap();
    assert_eq!(keys.each_ref().map(|key| store.layer(key, key).is_some()), [true, false]);
    drop(protection);
    store.sweep_unfinished(Duration::ZERO).unwrap();
    assert_eq!(std::fs::read_dir(root.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_release_that_failed_is_made_when_it_is_repeated() {
    let (root, store) = opened();
    let keys = vec![Digest::sha256(b"layer")];
    store.lock_index().lease("holder", &keys).unwrap();
    store.cache_mut().leases.insert("holder".to_owned(), keys);
    let other = rusqlite::Connection::open(root.path().join("index.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.release("holder").is_err());
    other.execute_batch("ROLLBACK").unwrap();
    store.release("holder").unwrap();
    assert!(store.lock_index().leases().unwrap().is_empty());
}

#[test]
fn the_index_comes_to_the_disk_beside_those_who_change_it() {
    let (root, store) = opened();
    let index = root.path().join("index.db");
    let state = || std::fs::metadata(&index).map(|found| (found.len(), found.modified().unwrap())).unwrap();
    let key = [Digest::sha256(b"layer")];
    let change =
        |count| (0..count).for_each(|n| store.lock_index().lease(&format!("{count}-{n}"), &key).unwrap());
    let before = state();
    change(checkpoint::CHANGES_PER_CHECKPOINT - 10);
    assert_eq!(state(), before, "a change waited for the disk");
    change(10);
    let started = Instant::now();
    while state() == before {
        assert!(started.elapsed() < Duration::from_secs(60), "the log is not emptied");
        std::thread::yield_now();
    }
}
