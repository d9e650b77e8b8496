//! Chunks that the coordinator assigns.

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{Assign, Segment};

use super::Ledger;
use super::chunks::Chunk;
use super::items::Items;

impl Ledger {
    /// Gives the chunks their numbers, where they are. Nothing of their items is copied.
    pub(super) fn assign(&mut self, mut assign: Assign) -> Result<(), ProtocolError> {
        let mut segments = &assign.segments[..];
        let mut all_live = true;
        for told in &mut assign.chunks {
            let (name, count) = (told.job, told.segments as usize);
            let Some(&key) = self.job_names.get(&name) else {
                let message = format!("chunk {} is of job {name}, which was not started", told.chunk);
                return Err(ProtocolError::new(message));
            };
            let Some((own, rest)) = segments.split_at_checked(count) else {
                return Err(ProtocolError::new(format!("the items of chunk {} are missing", told.chunk)));
            };
            segments = rest;
            let job = &mut self.jobs[key as usize];
            if !job.lives {
                // Its pool has ended here, and the coordinator has taken its chunks back or is about to.
                told.job = 0;
                all_live = false;
                continue;
            }
            let items = Items::new(told.first, own.iter().map(items_in).sum()).filter(|items| !items.is_empty());
            let Some(items) = items else {
                let message = format!("the items of chunk {} of job {name} are malformed", told.chunk);
                return Err(ProtocolError::new(message));
            };
            job.chunks += 1;
            told.job = job.start.job;
            told.chunk = self.chunks.insert(Chunk::new(told, job.pool, key, items));
        }
        if !segments.is_empty() {
            return Err(ProtocolError::new(format!("{} segments belong to no chunk", segments.len())));
        }
        if !all_live {
            leave_out(&mut assign, |chunk| chunk.job == 0);
        }
        if !assign.chunks.is_empty() {
            self.tell_agent(Command::Assign(assign));
        }
        Ok(())
    }
}

fn items_in(segment: &Segment) -> u64 {
    (segment.ends.len() / 4) as u64
}

/// Takes chunks out, with their items.
fn leave_out(assign: &mut Assign, unwanted: impl Fn(&farpool_proto::v1::Chunk) -> bool) {
    let mut segments = std::mem::take(&mut assign.segments).into_iter();
    assign.chunks.retain(|chunk| {
        let own = segments.by_ref().take(chunk.segments as usize);
        let wanted = !unwanted(chunk);
        if wanted {
            assign.segments.extend(own)
        } else {
            own.for_each(drop)
        }
        wanted
    });
}
