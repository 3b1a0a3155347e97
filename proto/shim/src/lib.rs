//! The service that Berth's shim offers beside containerd's shim v2, package `berth.shim.v1`. No logic lives here.

#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/gen/mod.rs"));
