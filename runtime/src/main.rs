//! Entry point of `berthd`.

#![forbid(unsafe_code)]

fn main() {}
