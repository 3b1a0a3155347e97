//! Containers created, started, entered and ended through the shim's init, on this machine's kernel. Needs root and
//! busybox (`apt-get install busybox-static`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod hostile;
mod lifecycle;
mod limits;
mod measure;
mod mounts;
mod pods;
mod process;
mod seccomp;
mod support;
mod terminals;
mod users;
mod visible;
