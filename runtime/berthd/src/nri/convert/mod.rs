//! What plugins see of pods and containers. Only looks; what has no counterpart here is left out.

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

/// The word that stands for an OCI value in JSON, as `SCMP_ACT_ALLOW`.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
