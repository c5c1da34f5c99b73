//! Compiles the `.proto` files with protox, so that no protoc is needed. The messages are always
//! generated, the service stubs only with feature `grpc`. The build also writes a table for the
//! codec: the memory that decoded messages cost (`build/shapes.rs`).

#[path = "build/shapes.rs"]
mod shapes;

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 6] = [
    "rangedb/v1/command.proto",
    "rangedb/v1/error.proto",
    "rangedb/v1/kv.proto",
    "rangedb/v1/meta.proto",
    "rangedb/v1/node.proto",
    "rangedb/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=rangedb");
    println!("cargo:rerun-if-changed=build");
    let files = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For the gRPC reflection service.
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    let mut config = tonic_prost_build::Config::new();
    // Payloads are cut out of the received buffer instead of copied.
    config.bytes([".rangedb.v1"]);
    // The rarest body of an envelope is by far the largest, and stores move envelopes all the time.
    config.boxed(".rangedb.v1.RaftEnvelope.body.removed");
    // The codec finds a message's shape by the message's type name.
    config.enable_type_names();
    std::fs::write(out.join("shapes.rs"), shapes::table(&files.file))?;
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .codec_path("crate::codec::BoundedCodec")
        // BTreeMap: iteration order is part of a deterministic run.
        .btree_map(".rangedb.v1")
        .compile_fds_with_config(files, config)?;
    Ok(())
}
