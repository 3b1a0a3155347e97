//! The service that Berth's shim offers beside containerd's shim v2, package `berth.shim.v1`, and its socket addresses.
//! No other logic lives here.

#![allow(missing_docs, clippy::all)]

pub mod address;

include!(concat!(env!("OUT_DIR"), "/gen/mod.rs"));
