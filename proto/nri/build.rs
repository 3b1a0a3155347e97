//! Compiles `proto/nri.proto`.

#[path = "../ttrpc.rs"]
mod ttrpc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ttrpc::compile("proto/nri.proto")
}
