//! Checks that our nri.proto is the contract that plugins are built against.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../cri/tests/contract/statements.rs"]
mod statements;

use prost_types::FileDescriptorSet;
use statements::{calls, must_agree_with_upstream};

fn ours() -> FileDescriptorSet {
    protox::compile(["proto/nri.proto"], ["proto"]).unwrap()
}

#[test]
#[ignore = "needs upstream's api.proto; hack/contract fetches it and runs this"]
fn our_contract_is_upstreams() {
    must_agree_with_upstream(&ours(), "BERTH_NRI_API_PROTO");
}

#[test]
fn the_contract_has_its_calls() {
    let ours = ours();
    let calls = |service| calls(&ours, &format!("nri.pkg.api.v1alpha1.{service}"));
    assert_eq!((calls("Runtime"), calls("Plugin"), calls("HostFunctions")), (2, 18, 1));
}
