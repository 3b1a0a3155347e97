//! A shim's options as containerd would send them: a protobuf message in an `Any`.

use berth_shim_proto::berth_shim::RuntimeOptions;
use containerd_shim_protos::shim::oci;
use protobuf::Message;
use serde::{Deserialize, Serialize};
use toml::{Table, de::Error};

/// A protobuf message and the name of its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Options {
    pub(super) type_url: &'static str,
    pub(super) value: Vec<u8>,
}

/// Options of runc's shim.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
#[derive(Default)]
struct Runc {
    binary_name: String,
    root: String,
    systemd_cgroup: bool,
    no_pivot_root: bool,
    no_new_keyring: bool,
    shim_cgroup: String,
    io_uid: u32,
    io_gid: u32,
}

/// Options of any other shim; only the shim knows what they mean.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
#[derive(Default)]
struct Other {
    type_url: String,
    config_path: String,
    config_body: String,
}

/// Encodes the options; `None` for an empty table. Fails on an unknown key or a wrong type.
pub(super) fn encode(is_runc: bool, table: &Table) -> Result<Option<Options>, Error> {
    match (table.is_empty(), is_runc) {
        (true, _) => Ok(None),
        (false, true) => runc(table.clone().try_into()?),
        (false, false) => other(table.clone().try_into()?),
    }
}

fn runc(runc: Runc) -> Result<Option<Options>, Error> {
    let message = oci::Options {
        binary_name: runc.binary_name,
        root: runc.root,
        systemd_cgroup: runc.systemd_cgroup,
        no_pivot_root: runc.no_pivot_root,
        no_new_keyring: runc.no_new_keyring,
        shim_cgroup: runc.shim_cgroup,
        io_uid: runc.io_uid,
        io_gid: runc.io_gid,
        ..Default::default()
    };
    pack("containerd.runc.v1.Options", &message)
}

fn other(other: Other) -> Result<Option<Options>, Error> {
    let message = RuntimeOptions {
        type_url: other.type_url,
        config_path: other.config_path,
        config_body: other.config_body.into_bytes(),
        ..Default::default()
    };
    pack("runtimeoptions.v1.Options", &message)
}

fn pack(type_url: &'static str, message: &impl Message) -> Result<Option<Options>, Error> {
    let value = message.write_to_bytes().map_err(serde::de::Error::custom)?;
    Ok(Some(Options { type_url, value }))
}
