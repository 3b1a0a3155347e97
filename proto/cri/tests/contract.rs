//! Whether our api.proto is the contract that kubelet is built against.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, env, path::Path};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

fn ours() -> FileDescriptorSet {
    FileDescriptorSet::decode(berth_cri::DESCRIPTORS).unwrap()
}

/// Everything that either side of a connection can tell, one statement each. Comments, order and options of files are
/// not among it.
fn statements(set: &FileDescriptorSet) -> BTreeSet<String> {
    set.file.iter().flat_map(of_file).collect()
}

fn of_file(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let mut all = vec![format!("package {package} is {}", file.syntax())];
    all.extend(file.service.iter().flat_map(|service| of_service(package, service)));
    all.extend(file.message_type.iter().flat_map(|message| of_message(package, message)));
    all.extend(file.enum_type.iter().flat_map(|values| of_enum(package, values)));
    all
}

fn of_service(package: &str, service: &ServiceDescriptorProto) -> Vec<String> {
    let of_method = |method: &prost_types::MethodDescriptorProto| {
        let stream = |streams| if streams { "stream " } else { "" };
        format!(
            "rpc {package}.{}/{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type(),
            stream(method.server_streaming()),
            method.output_type(),
        )
    };
    service.method.iter().map(of_method).collect()
}

fn of_message(parent: &str, message: &DescriptorProto) -> Vec<String> {
    let name = format!("{parent}.{}", message.name());
    let map = message.options.as_ref().is_some_and(|options| options.map_entry());
    let mut all = vec![format!("message {name}{}", if map { " is an entry of a map" } else { "" })];
    all.extend(message.field.iter().map(|field| of_field(&name, message, field)));
    all.extend(message.nested_type.iter().flat_map(|nested| of_message(&name, nested)));
    all.extend(message.enum_type.iter().flat_map(|values| of_enum(&name, values)));
    all
}

fn of_field(message_name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    format!(
        "field {message_name}.{} = {}: {:?} {:?} {}, {:?} in JSON, in oneof {:?}, optional {}",
        field.name(),
        field.number(),
        field.label(),
        field.r#type(),
        field.type_name(),
        field.json_name(),
        oneof.map(|oneof| oneof.name()),
        field.proto3_optional(),
    )
}

fn of_enum(parent: &str, values: &EnumDescriptorProto) -> Vec<String> {
    let name = format!("{parent}.{}", values.name());
    values.value.iter().map(|value| format!("{name}.{} = {}", value.name(), value.number())).collect()
}

/// What one set says and the other does not, each with the side that says it.
fn differences(ours: &FileDescriptorSet, theirs: &FileDescriptorSet) -> Vec<String> {
    let (ours, theirs) = (statements(ours), statements(theirs));
    let only_ours = ours.difference(&theirs).map(|statement| format!("only here:     {statement}"));
    let only_theirs = theirs.difference(&ours).map(|statement| format!("only upstream: {statement}"));
    only_ours.chain(only_theirs).collect()
}

#[test]
#[ignore = "needs upstream's api.proto; hack/contract fetches it and runs this"]
fn our_contract_is_upstreams() {
    let upstream = env::var_os("BERTH_CRI_API_PROTO").expect("set by hack/contract");
    let upstream = Path::new(&upstream);
    let theirs = protox::compile([upstream], [upstream.parent().unwrap()]).unwrap();
    let differences = differences(&ours(), &theirs);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    println!("{} statements agree", statements(&theirs).len());
}

#[test]
fn the_contract_has_its_43_calls() {
    let all = statements(&ours());
    let calls = |service: &str| {
        let prefix = format!("rpc runtime.v1.{service}/");
        all.iter().filter(|statement| statement.starts_with(&prefix)).count()
    };
    assert_eq!((calls("RuntimeService"), calls("ImageService")), (37, 6));
    assert_eq!(all.iter().filter(|statement| statement.contains("returns (stream")).count(), 7);
}

#[test]
fn values_of_variables_are_bytes() {
    assert!(
        statements(&ours())
            .iter()
            .any(|s| s.starts_with("field runtime.v1.KeyValue.value = 2: Optional Bytes"))
    );
}

/// The message of this name, to be spoilt.
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
