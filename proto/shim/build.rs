//! Compiles `proto/berth_shim.proto`.

#[path = "../ttrpc.rs"]
mod ttrpc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ttrpc::compile("proto/berth_shim.proto")
}
