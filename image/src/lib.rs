//! Container images: references, registries, layers and their store.

#![forbid(unsafe_code)]

pub mod digest;
pub mod reference;
pub mod registry;
