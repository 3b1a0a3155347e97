//! Code generation for the ttrpc contracts, shared by their build scripts. No protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

/// Compiles a file of `proto/` to rust-protobuf messages and an async ttrpc service, as modules in `$OUT_DIR/gen`.
pub fn compile(proto: &str) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={proto}");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("gen");
    fs::create_dir_all(&out)?;
    Codegen::new()
        .out_dir(&out)
        .inputs([proto])
        .include("proto")
        .rust_protobuf()
        .customize(Customize { async_all: true, gen_mod: true, ..Default::default() })
        .rust_protobuf_customize(ProtobufCustomize::default())
        .run()?;
    Ok(())
}
