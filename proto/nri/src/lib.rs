//! The wire contract of the Node Resource Interface, NRI 0.12, package `nri.pkg.api.v1alpha1`. No logic lives here.

#![allow(missing_docs, clippy::all, non_snake_case, non_camel_case_types)]

include!(concat!(env!("OUT_DIR"), "/gen/mod.rs"));
