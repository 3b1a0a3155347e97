//! Seccomp filters.

use berth_nri::nri::{LinuxSeccomp, LinuxSyscall, OptionalUInt32};
use oci_spec::runtime as oci;
use serde_json::{Value, json};

use crate::{
    error::{Error, Kind, Result},
    nri::convert::Optional,
};

/// Converts the filter to its OCI form. Fails on an unknown action, architecture, flag or operator.
pub(super) fn filter(wanted: &LinuxSeccomp) -> Result<oci::LinuxSeccomp> {
    let mut filter = json!({
        "defaultAction": wanted.default_action,
        "architectures": wanted.architectures,
        "flags": wanted.flags,
        "syscalls": wanted.syscalls.iter().map(rule).collect::<Vec<_>>(),
    });
    set(&mut filter, "defaultErrnoRet", OptionalUInt32::get(&wanted.default_errno).map(Value::from));
    set(&mut filter, "listenerPath", text(&wanted.listener_path));
    set(&mut filter, "listenerMetadata", text(&wanted.listener_metadata));
    serde_json::from_value(filter).map_err(|error| {
        Error::caused(Kind::InvalidArgument, "an NRI plugin sets a seccomp policy that cannot be", error)
    })
}

fn rule(wanted: &LinuxSyscall) -> Value {
    let arguments = wanted.args.iter().map(|argument| {
        json!({
            "index": argument.index,
            "value": argument.value,
            "valueTwo": argument.value_two,
            "op": argument.op,
        })
    });
    let mut rule = json!({
        "names": wanted.names,
        "action": wanted.action,
        "args": arguments.collect::<Vec<_>>(),
    });
    set(&mut rule, "errnoRet", OptionalUInt32::get(&wanted.errno_ret).map(Value::from));
    rule
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[field] = value;
    }
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}
