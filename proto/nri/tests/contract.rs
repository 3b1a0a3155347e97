//! Whether our nri.proto is the contract that plugins are built against.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../cri/tests/contract/statements.rs"]
mod statements;

use std::{env, path::Path};

use prost_types::FileDescriptorSet;
use statements::{differences, statements};

fn ours() -> FileDescriptorSet {
    protox::compile(["proto/nri.proto"], ["proto"]).unwrap()
}

#[test]
#[ignore = "needs upstream's api.proto; hack/contract fetches it and runs this"]
fn our_contract_is_upstreams() {
    let upstream = env::var_os("BERTH_NRI_API_PROTO").expect("set by hack/contract");
    let upstream = Path::new(&upstream);
    let theirs = protox::compile([upstream], [upstream.parent().unwrap()]).unwrap();
    let differences = differences(&ours(), &theirs);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    println!("{} statements agree", statements(&theirs).len());
}

#[test]
fn the_contract_has_its_calls() {
    let all = statements(&ours());
    let calls = |service: &str| {
        let prefix = format!("rpc nri.pkg.api.v1alpha1.{service}/");
        all.iter().filter(|statement| statement.starts_with(&prefix)).count()
    };
    assert_eq!((calls("Runtime"), calls("Plugin"), calls("HostFunctions")), (2, 18, 1));
}
