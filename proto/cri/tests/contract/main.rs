//! Checks that our api.proto is the contract that kubelet is built against.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod statements;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};
use statements::{calls, differences, must_agree_with_upstream, statements};

fn ours() -> FileDescriptorSet {
    FileDescriptorSet::decode(berth_cri::DESCRIPTORS).unwrap()
}

#[test]
#[ignore = "needs upstream's api.proto; hack/contract fetches it and runs this"]
fn our_contract_is_upstreams() {
    must_agree_with_upstream(&ours(), "BERTH_CRI_API_PROTO");
}

#[test]
fn the_contract_has_its_43_calls() {
    let ours = ours();
    let calls = |service| calls(&ours, &format!("runtime.v1.{service}"));
    assert_eq!((calls("RuntimeService"), calls("ImageService")), (37, 6));
    assert_eq!(statements(&ours).iter().filter(|statement| statement.contains("returns (stream")).count(), 7);
}

#[test]
fn values_of_variables_are_bytes() {
    assert!(
        statements(&ours())
            .iter()
            .any(|s| s.starts_with("field runtime.v1.KeyValue.value = 2: Optional Bytes"))
    );
}

/// The message of this name, for the test to alter.
fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    set.file[0].message_type.iter_mut().find(|message| message.name() == name).unwrap()
}

#[test]
fn every_kind_of_change_is_noticed() {
    type Change = fn(&mut FileDescriptorSet);
    let changes: [(&str, Change); 11] = [
        ("a number", |set| message(set, "Mount").field[0].number = Some(99)),
        ("a name", |set| message(set, "Mount").field[0].name = Some("path".into())),
        ("a JSON name", |set| message(set, "Mount").field[0].json_name = Some("path".into())),
        ("a type", |set| {
            message(set, "KeyValue").field[1].set_type(prost_types::field_descriptor_proto::Type::String)
        }),
        ("a label", |set| {
            message(set, "ExecSyncRequest").field[1]
                .set_label(prost_types::field_descriptor_proto::Label::Optional);
        }),
        ("a message type", |set| {
            message(set, "Mount").field[4].type_name = Some(".runtime.v1.Signal".into())
        }),
        ("a missing field", |set| drop(message(set, "Mount").field.pop())),
        ("a missing message", |set| drop(set.file[0].message_type.pop())),
        ("a missing call", |set| drop(set.file[0].service[0].method.pop())),
        ("a stream", |set| set.file[0].service[0].method[0].server_streaming = Some(true)),
        ("an enum's value", |set| set.file[0].enum_type[0].value[0].number = Some(77)),
    ];
    assert_eq!(differences(&ours(), &ours()), Vec::<String>::new());
    for (what, change) in changes {
        let mut changed = ours();
        change(&mut changed);
        assert!(!differences(&ours(), &changed).is_empty(), "{what} was not noticed");
    }
}
