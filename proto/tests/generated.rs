//! The committed code is what `proto/generate` made of the .proto files.

use std::path::Path;

/// Written by `proto/generate`, in the format of `b3sum`.
const DIGESTS: &str = include_str!("../src/farpool.v1.b3");

#[test]
fn the_generated_code_is_up_to_date() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR"));
    let digests: Vec<(&str, &str)> = DIGESTS.lines().map(|line| line.split_once("  ").expect("digest, path")).collect();

    for (digest, path) in &digests {
        let contents = std::fs::read(proto.join(path)).unwrap_or_else(|error| panic!("proto/{path}: {error}"));
        assert_eq!(
            blake3::hash(&contents).to_string(),
            *digest,
            "proto/{path} has changed: run cargo run --manifest-path proto/generate/Cargo.toml"
        );
    }

    let schemas = std::fs::read_dir(proto.join("farpool/v1")).expect("the .proto files");
    for schema in schemas {
        let name = schema.expect("an entry of a folder").file_name().into_string().expect("a name in UTF-8");
        let path = format!("farpool/v1/{name}");
        assert!(digests.iter().any(|(_, known)| *known == path), "proto/{path} is unknown to proto/generate");
    }
}
