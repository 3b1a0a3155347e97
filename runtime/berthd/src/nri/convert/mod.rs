//! Converts pods and containers to what plugins see. Fields without a counterpart here are left out.

mod container;
mod hooks;
mod limits;
mod linux;
mod optional;
mod pod;
mod process;
mod resources;
mod seccomp;

pub(super) use self::{
    container::{container, stored_container},
    limits::{changed_limits, limits},
    optional::Optional,
    pod::pod,
    resources::asked as resources_asked,
};

/// Returns the JSON string of an OCI value, such as `SCMP_ACT_ALLOW`; empty if it is no string.
fn serialized_name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
