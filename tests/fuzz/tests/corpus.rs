//! Replays tests/fuzz/corpus against every fuzz target.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

/// Feeds every file of a target's corpus to the target. Names are printed first, so a failure is in the last one printed.
fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        target(&fs::read(file).unwrap());
    }
}

#[test]
fn spdy() {
    replay("spdy", berth_fuzz::spdy);
}

#[test]
fn websocket() {
    replay("websocket", berth_fuzz::websocket);
}

#[test]
fn seccomp() {
    replay("seccomp", berth_fuzz::seccomp);
}

#[test]
fn root_tar_layer() {
    replay("tar_layer", berth_fuzz::tar_layer);
}

#[test]
fn image_reference() {
    replay("image_reference", berth_fuzz::image_reference);
}

#[test]
fn manifest() {
    replay("manifest", berth_fuzz::manifest);
}

#[test]
fn cni_result() {
    replay("cni_result", berth_fuzz::cni_result);
}

#[test]
fn hosts_toml() {
    replay("hosts_toml", berth_fuzz::hosts_toml);
}

#[test]
fn grpc() {
    replay("grpc", berth_fuzz::grpc);
}

/// The grpc target checks only specs of requests that the daemon accepts, so the corpus must have such requests.
#[test]
fn a_container_of_the_corpus_is_one_that_can_be_made() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/grpc");
    for name in ["CreateContainer-plain", "CreateContainer-tty", "CreateContainer-privileged"] {
        let message = fs::read(corpus.join(name)).unwrap();
        let spec = berthd::fuzz::container_spec(&message[1..]);
        assert!(spec.is_ok(), "{name}: {spec:?}");
    }
}

#[test]
fn every_method_of_the_contract_is_called() {
    let methods = berth_fuzz::methods();
    assert_eq!(methods.first().map(String::as_str), Some("/runtime.v1.RuntimeService/Version"));
    assert!(methods.len() > 40 && methods.len() <= 256, "one byte tells them apart");
}
