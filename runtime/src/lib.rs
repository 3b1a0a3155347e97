//! The daemon of Berth.

#![forbid(unsafe_code)]
