//! Tells the program its version.

fn main() {
    farpool_common::commit::emit_version();
}
