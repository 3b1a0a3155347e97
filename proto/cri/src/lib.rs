//! The wire contract of the Container Runtime Interface v1 (cri-api 0.37). No logic lives here.

#![forbid(unsafe_code)]

/// Messages, clients and servers of package `runtime.v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// The compiled `FileDescriptorSet`, for checks against the upstream contract and for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
