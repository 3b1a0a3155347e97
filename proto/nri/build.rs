//! Compiles `proto/nri.proto` to rust-protobuf messages and an async ttrpc service, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/nri.proto");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("gen");
    fs::create_dir_all(&out)?;
    Codegen::new()
        .out_dir(&out)
        .inputs(["proto/nri.proto"])
        .include("proto")
        .rust_protobuf()
        .customize(Customize { async_all: true, gen_mod: true, ..Default::default() })
        .rust_protobuf_customize(ProtobufCustomize::default())
        .run()?;
    Ok(())
}
