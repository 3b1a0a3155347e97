//! What needs unsafe code.

pub mod heap;
