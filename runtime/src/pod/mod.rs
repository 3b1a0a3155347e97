//! Pods: the sandboxes that containers run in.

pub mod config;
