//! Entry point of `containerd-shim-berth-v1`.

fn main() {}
