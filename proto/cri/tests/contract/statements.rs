//! A protobuf contract as a set of statements that can be compared with another's.

use std::{collections::BTreeSet, env, path::Path};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

/// All properties that are visible on a connection, one statement each. Comments, order and file options are left out.
pub fn statements(set: &FileDescriptorSet) -> BTreeSet<String> {
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

/// The statements that only one of the sets contains, each with its side.
pub fn differences(ours: &FileDescriptorSet, theirs: &FileDescriptorSet) -> Vec<String> {
    let (ours, theirs) = (statements(ours), statements(theirs));
    let only_ours = ours.difference(&theirs).map(|statement| format!("only here:     {statement}"));
    let only_theirs = theirs.difference(&ours).map(|statement| format!("only upstream: {statement}"));
    only_ours.chain(only_theirs).collect()
}

/// Fails unless `ours` has the statements of the file that the environment variable names.
pub fn must_agree_with_upstream(ours: &FileDescriptorSet, variable: &str) {
    let upstream = env::var_os(variable).expect("set by hack/contract");
    let upstream = Path::new(&upstream);
    let theirs = protox::compile([upstream], [upstream.parent().unwrap()]).unwrap();
    let differences = differences(ours, &theirs);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    println!("{} statements agree", statements(&theirs).len());
}

/// Number of calls of a service, given by its full name.
pub fn calls(set: &FileDescriptorSet, service: &str) -> usize {
    let prefix = format!("rpc {service}/");
    statements(set).iter().filter(|statement| statement.starts_with(&prefix)).count()
}
