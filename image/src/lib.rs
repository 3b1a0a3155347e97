//! Container images: references, registries, layers and their store.

#![forbid(unsafe_code)]
