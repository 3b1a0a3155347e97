//! Code that needs `unsafe`.

pub mod heap;
