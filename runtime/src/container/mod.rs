//! Containers.

pub mod config;
