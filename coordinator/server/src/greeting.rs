//! Checks the first message of a session: the peer's build, limits of the network, and the secret, which is replaced by
//! the session's id. Nothing else sees the secret.
//!
//! The coordinator itself checks that it is the right message, and its other contents.

use bytes::Bytes;
use farpool_net::{session_id, version};
use farpool_proto::v1::{AgentEvent, ClientMessage, OpenPool, Program, agent_event, client_message};
use tonic::Status;

/// The length of a program's digest, which is BLAKE3's.
const DIGEST_BYTES: usize = 32;

/// A message that a session may begin with.
pub(super) trait Greeting {
    /// Checks the message, and replaces its secret by the session's id.
    fn admit(&mut self) -> Result<(), Status>;
}

impl Greeting for ClientMessage {
    fn admit(&mut self) -> Result<(), Status> {
        match &mut self.body {
            Some(client_message::Body::OpenPool(open)) => {
                check_pool(open)?;
                // A pool without a secret cannot be resumed. The secret also proves that a detached job is this client's.
                let needs_id = open.detached || !open.secret.is_empty();
                (open.id, open.secret) = if needs_id { replaced_by_id(&open.secret)? } else { Default::default() };
            }
            Some(client_message::Body::Attach(attach)) => {
                version::check("the coordinator", "the client", attach.version.as_ref())?;
                let has_secret = !attach.secret.is_empty();
                (attach.session, attach.secret) =
                    if has_secret { replaced_by_id(&attach.secret)? } else { Default::default() };
            }
            _ => {}
        }
        Ok(())
    }
}

impl Greeting for AgentEvent {
    fn admit(&mut self) -> Result<(), Status> {
        let Some(agent_event::Body::Hello(hello)) = &mut self.body else { return Ok(()) };
        version::check("the coordinator", "the agent", hello.version.as_ref())?;
        (hello.id, hello.secret) = replaced_by_id(&hello.secret)?;
        Ok(())
    }
}

/// Returns the id of a secret, and empty bytes to replace the secret.
fn replaced_by_id(secret: &[u8]) -> Result<(Bytes, Bytes), Status> {
    Ok((Bytes::copy_from_slice(&session_id(secret)?), Bytes::new()))
}

fn check_pool(open: &OpenPool) -> Result<(), Status> {
    let OpenPool { version, program, .. } = open;
    version::check("the coordinator", "the client", version.as_ref())?;
    let unpacked = Program::unpacked(program);
    let Some(program) = unpacked.map_err(|error| Status::invalid_argument(format!("the pool's program: {error}")))?
    else {
        return Err(Status::invalid_argument("OpenPool without its program"));
    };
    if program.digest.len() != DIGEST_BYTES {
        let length = program.digest.len();
        return Err(Status::invalid_argument(format!("a program's digest of {length} bytes, not {DIGEST_BYTES}")));
    }
    if program.size == 0 {
        return Err(Status::invalid_argument("a program of no bytes"));
    }
    Ok(())
}
