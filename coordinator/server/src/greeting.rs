//! The first message of a session: the build that the peer is of, and what only the network asks for.
//!
//! That it is the right message, and what is in it otherwise, the coordinator checks itself.

use farpool_net::version;
use farpool_proto::v1::{AgentEvent, AgentHello, ClientMessage, OpenPool, Program, agent_event, client_message};
use tonic::Status;

/// BLAKE3's.
const DIGEST_BYTES: usize = 32;
const AGENT_ID_BYTES: usize = 16;

/// A message that sessions may begin with.
pub(super) trait Greeting {
    /// Whether the session can go on.
    fn check(&self) -> Result<(), Status>;
}

impl Greeting for ClientMessage {
    fn check(&self) -> Result<(), Status> {
        let open = match &self.body {
            Some(client_message::Body::OpenPool(open)) => open,
            Some(client_message::Body::Detach(detach)) => {
                detach.pool.as_ref().ok_or_else(|| Status::invalid_argument("Detach without its pool"))?
            }
            _ => return Ok(()),
        };
        let OpenPool { version, program, .. } = open;
        version::check("the coordinator", "the client", version.as_ref())?;
        let unpacked = Program::unpacked(program);
        let Some(program) =
            unpacked.map_err(|error| Status::invalid_argument(format!("the pool's program: {error}")))?
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
}

impl Greeting for AgentEvent {
    fn check(&self) -> Result<(), Status> {
        let Some(agent_event::Body::Hello(hello)) = &self.body else { return Ok(()) };
        let AgentHello { version, id, .. } = &**hello;
        version::check("the coordinator", "the agent", version.as_ref())?;
        if id.len() != AGENT_ID_BYTES {
            let length = id.len();
            return Err(Status::invalid_argument(format!("an agent's id of {length} bytes, not {AGENT_ID_BYTES}")));
        }
        Ok(())
    }
}
