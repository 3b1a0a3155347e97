//! The daemon of Berth: what a pod and a container are, how they come and go, and the RPCs that ask for it.

#![forbid(unsafe_code)]

pub mod config;
pub mod container;
pub mod network;
pub mod pod;
pub mod spec;
