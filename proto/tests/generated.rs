//! The committed code is what the .proto files generate.

use std::path::Path;

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

const FILES: [&str; 5] = ["journal.proto", "service.proto", "session.proto", "status.proto", "worker.proto"];

#[test]
fn the_generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = FILES.map(|name| root.join("farpool/v1").join(name));
    let descriptors = protox::compile(&files, [root]).expect("the .proto files compile");
    let out = std::env::temp_dir().join(format!("farpool-proto-{}", std::process::id()));
    std::fs::create_dir_all(&out).expect("a temporary folder");
    // The descriptors that gRPC reflection serves.
    std::fs::write(out.join("farpool.v1.bin"), descriptors.encode_to_vec()).expect("descriptors can be written");
    const SERVICES: &str = "#[cfg(feature = \"services\")]";
    let configured = tonic_prost_build::configure().bytes(".").out_dir(&out);
    let configured = configured.client_mod_attribute(".", SERVICES).server_mod_attribute(".", SERVICES);
    let configured = BOXED.iter().fold(configured, |all, path| all.boxed(format!(".farpool.v1.{path}")));
    let configured = configured.skip_debug(SECRET.map(|name| format!(".farpool.v1.{name}")));
    configured.compile_fds(descriptors).expect("code is generated");
    share_batches(&out.join("farpool.v1.rs"));
    for name in ["farpool.v1.rs", "farpool.v1.bin"] {
        let fresh = std::fs::read(out.join(name)).expect("the generated file");
        let committed = root.join("src").join(name);
        if std::env::var_os("FARPOOL_REGENERATE").is_some() {
            std::fs::write(&committed, &fresh).expect("the generated file is written");
        }
        let there = std::fs::read(&committed).unwrap_or_default();
        assert!(there == fresh, "proto/src/{name} is stale: run FARPOOL_REGENERATE=1 cargo test -p farpool-proto");
    }
    std::fs::remove_dir_all(&out).expect("the temporary folder goes away");
}

/// The generator supports no type but `Vec` for repeated fields.
fn share_batches(path: &Path) {
    let code = std::fs::read_to_string(path).expect("the generated code");
    let shared = SHARED.iter().fold(code, |code, message| {
        let vec = format!("pub messages: ::prost::alloc::vec::Vec<{message}>");
        assert_eq!(code.matches(&vec).count(), 1, "{message} is in one frame");
        code.replace(&vec, &format!("pub messages: crate::Batch<{message}>"))
    });
    std::fs::write(path, shared).expect("the generated code is written");
}
