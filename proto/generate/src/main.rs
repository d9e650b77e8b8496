//! Writes what is generated from the .proto files: the code, the descriptors that gRPC reflection serves, and the digests
//! by which `proto/tests/generated.rs` notices that something has changed since.
//!
//! `cargo run --manifest-path proto/generate/Cargo.toml`; with `-- --check` it writes nothing, and fails if a file is stale.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use prost::Message;

/// Messages that are rare and large. They are boxed, so that frequent messages, which are moved often, stay small.
const BOXED: [&str; 15] = [
    "ClientMessage.body.open_pool",
    "ClientMessage.body.open_job",
    "ClientMessage.body.attach",
    "ClientEvent.body.items_failed",
    "ClientEvent.body.pool_failed",
    "ClientEvent.body.detached_job",
    "AgentCommand.body.start_pool",
    "AgentCommand.body.adopt_pool",
    "AgentEvent.body.hello",
    "AgentEvent.body.item_fault",
    "AgentEvent.body.pool_fault",
    "JournalRecord.body.job_opened",
    "JournalRecord.body.job_ended",
    "JournalRecord.body.job_state",
    "JournalRecord.body.sealed",
];

/// Messages with a secret have their `Debug` in src/secrets.rs.
const SECRET: [&str; 4] = ["OpenPool", "Attach", "AgentHello", "Resume"];

/// The messages of frames, which their sender keeps too.
const SHARED: [&str; 4] = ["ClientMessage", "ClientEvent", "AgentEvent", "AgentCommand"];

/// What the generated code depends on, relative to proto/.
const SOURCES: [&str; 6] = [
    "farpool/v1/journal.proto",
    "farpool/v1/service.proto",
    "farpool/v1/session.proto",
    "farpool/v1/status.proto",
    "farpool/v1/worker.proto",
    "generate/src/main.rs",
];
const CODE: &str = "src/farpool.v1.rs";
const DESCRIPTORS: &str = "src/farpool.v1.bin";
/// In the format of `b3sum`.
const DIGESTS: &str = "src/farpool.v1.b3";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let only_check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return Err(format!("the only argument is --check, not {other}").into()),
    };
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("proto/generate has a parent")?;

    let mut stale = Vec::new();
    for (path, contents) in generate(proto)? {
        let file = proto.join(path);
        if std::fs::read(&file).is_ok_and(|committed| committed == contents) {
            continue;
        }
        stale.push(path);
        if !only_check {
            std::fs::write(&file, contents)?;
        }
    }
    for path in &stale {
        println!("proto/{path} {}", if only_check { "is stale" } else { "was written" });
    }
    Ok(if only_check && !stale.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the generated files: where each belongs, and its contents.
fn generate(proto: &Path) -> Result<[(&'static str, Vec<u8>); 3], Box<dyn Error>> {
    let files = SOURCES.iter().filter(|path| path.ends_with(".proto")).map(|path| proto.join(path));
    let descriptors = protox::compile(files, [proto])?;
    let descriptor_bytes = descriptors.encode_to_vec();

    let out = std::env::temp_dir().join(format!("farpool-proto-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    const SERVICES: &str = "#[cfg(feature = \"services\")]";
    let configured = tonic_prost_build::configure().bytes(".").out_dir(&out);
    let configured = configured.client_mod_attribute(".", SERVICES).server_mod_attribute(".", SERVICES);
    let configured = BOXED.iter().fold(configured, |all, path| all.boxed(format!(".farpool.v1.{path}")));
    let configured = configured.skip_debug(SECRET.map(|name| format!(".farpool.v1.{name}")));
    configured.compile_fds(descriptors)?;
    let code = share_batches(std::fs::read_to_string(out.join("farpool.v1.rs"))?)?.into_bytes();
    std::fs::remove_dir_all(&out)?;

    let mut digests = String::new();
    for path in SOURCES {
        digests += &digest_line(path, &std::fs::read(proto.join(path))?);
    }
    digests += &digest_line(CODE, &code);
    digests += &digest_line(DESCRIPTORS, &descriptor_bytes);
    Ok([(CODE, code), (DESCRIPTORS, descriptor_bytes), (DIGESTS, digests.into_bytes())])
}

/// The generator supports no type but `Vec` for repeated fields.
fn share_batches(code: String) -> Result<String, String> {
    SHARED.iter().try_fold(code, |code, message| {
        let vec = format!("pub messages: ::prost::alloc::vec::Vec<{message}>");
        match code.matches(&vec).count() {
            1 => Ok(code.replace(&vec, &format!("pub messages: crate::Batch<{message}>"))),
            frames => Err(format!("{message} must be in one frame, and is in {frames}")),
        }
    })
}

fn digest_line(path: &str, contents: &[u8]) -> String {
    format!("{}  {path}\n", blake3::hash(contents))
}
