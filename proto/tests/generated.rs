//! The committed code is what the .proto files generate.

use std::path::Path;

#[test]
fn the_generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["session.proto", "worker.proto"].map(|name| root.join("farpool/v1").join(name));
    let descriptors = protox::compile(&files, [root]).expect("the .proto files compile");
    let out = std::env::temp_dir().join(format!("farpool-proto-{}", std::process::id()));
    std::fs::create_dir_all(&out).expect("a temporary folder");
    prost_build::Config::new().bytes(["."]).out_dir(&out).compile_fds(descriptors).expect("code is generated");
    let fresh = std::fs::read_to_string(out.join("farpool.v1.rs")).expect("the generated file");
    std::fs::remove_dir_all(&out).expect("the temporary folder goes away");
    let committed = root.join("src/farpool.v1.rs");
    if std::env::var_os("FARPOOL_REGENERATE").is_some() {
        std::fs::write(&committed, &fresh).expect("the generated file is written");
    }
    let there = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(there == fresh, "proto/src/farpool.v1.rs is stale: run FARPOOL_REGENERATE=1 cargo test -p farpool-proto");
}
