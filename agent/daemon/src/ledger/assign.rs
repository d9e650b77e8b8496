//! Handles assigned chunks.

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{Assign, Segment};

use super::Ledger;
use super::chunks::Chunk;
use super::items::Items;

impl Ledger {
    /// Translates the chunks' names in place. Items are not copied.
    pub(super) fn assign(&mut self, mut assign: Assign) -> Result<(), ProtocolError> {
        let mut segments = &assign.segments[..];
        let mut all_active = true;
        for assigned in &mut assign.chunks {
            let (name, count) = (assigned.job, assigned.segments as usize);
            let Some(&key) = self.job_names.get(&name) else {
                let message = format!("chunk {} belongs to job {name}, which was not started", assigned.chunk);
                return Err(ProtocolError::new(message));
            };
            let Some((own, rest)) = segments.split_at_checked(count) else {
                return Err(ProtocolError::new(format!("the items of chunk {} are missing", assigned.chunk)));
            };
            segments = rest;
            let job = &mut self.jobs[key as usize];
            if !job.active {
                // Its pool has ended here; the coordinator takes its chunks back.
                assigned.job = 0;
                all_active = false;
                continue;
            }
            let items = Items::new(assigned.first, own.iter().map(items_in).sum()).filter(|items| !items.is_empty());
            let Some(items) = items else {
                let message = format!("the items of chunk {} of job {name} are malformed", assigned.chunk);
                return Err(ProtocolError::new(message));
            };
            job.chunks += 1;
            assigned.job = job.start.job;
            assigned.chunk = self.chunks.insert(Chunk::new(assigned, job.pool, key, items));
        }
        if !segments.is_empty() {
            return Err(ProtocolError::new(format!("{} segments belong to no chunk", segments.len())));
        }
        if !all_active {
            remove_chunks(&mut assign, |chunk| chunk.job == 0);
        }
        if !assign.chunks.is_empty() {
            self.send_to_agent(Command::Assign(assign));
        }
        Ok(())
    }
}

fn items_in(segment: &Segment) -> u64 {
    (segment.ends.len() / 4) as u64
}

/// Removes chunks with their items.
fn remove_chunks(assign: &mut Assign, unwanted: impl Fn(&farpool_proto::v1::Chunk) -> bool) {
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
