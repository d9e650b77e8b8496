//! Jobs that the coordinator keeps: detached by one client, read by any.

use std::path::Path;
use std::thread;

use farpool::{Detached, DetachedState, ErrorKind};

use super::ClientThread;
use crate::client;
use crate::job_records::Mark;
use crate::job_spec::JobSpec;
use crate::reading::{Observed, Reader, has_ended};
use crate::work::{Answer, work};

impl ClientThread<'_> {
    /// Detaches a job, and uses it or leaves it to others.
    pub(super) fn detach_one(&mut self) -> Result<(), String> {
        self.jobs += 1;
        let client = Path::new(self.folder).file_name().expect("the client's folder has no name").display();
        let name = format!("{client}-{}-{}", self.thread, self.jobs);
        let job_spec = self.job_records.create(&mut self.random, name);
        self.post(format!("{job_spec:?} is detached"));
        let job = self.pool.job(work).retries(job_spec.retries);
        let job = job_spec.chunksize.into_iter().fold(job, farpool::Job::chunksize);
        let job = match job.detach(&job_spec.name).map(job_spec.tasks()) {
            Ok(job) => job,
            // The journal or its disk is full. The error says so, and nothing of the job is left, which is checked at the end.
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && ["is full", "cannot be written to"].iter().any(|words| error.message().contains(words)) =>
            {
                self.count("not detached");
                return Ok(());
            }
            Err(error) => return Err(format!("{job_spec:?}: it cannot be detached: {error}")),
        };
        self.job_records.mark(&job_spec.name, Mark::Detached);
        self.count("detached");
        self.use_job(&job, &job_spec).map_err(|wrong| format!("{job_spec:?}: {wrong}"))
    }

    /// Attaches to a job of any client, even if it is still being detached.
    pub(super) fn attach_one(&mut self) -> Result<(), String> {
        let mut all = self.job_records.all();
        all.retain(|job_spec| !self.job_records.has(&job_spec.name, Mark::Discarded));
        if all.is_empty() {
            return Ok(());
        }
        let job_spec = self.random.pick(&all);
        self.post(format!("{job_spec:?} is attached to"));
        self.count("picked up");
        let with_spec = |wrong| format!("{job_spec:?}: {wrong}");
        let reader = Reader::new(self.job_records, &job_spec);
        match reader.attach(&client::address()).map_err(with_spec)? {
            Some(job) => self.use_job(&job, &job_spec).map_err(with_spec),
            None => Ok(()),
        }
    }

    fn use_job(&mut self, job: &Detached<Answer>, job_spec: &JobSpec) -> Result<(), String> {
        let reader = Reader::new(self.job_records, job_spec);
        // It has not started, and never may, if its client was killed.
        match reader.status(job)? {
            Some(status) if status.state != DetachedState::Receiving => {}
            _ => return Ok(()),
        }
        self.post(format!("{job_spec:?} is used"));
        // Otherwise it must not be discarded: a client that does not know that the job is complete would send it again.
        let is_detached = self.job_records.has(&job_spec.name, Mark::Detached);
        let observed = match self.random.below(8) {
            0 => return Ok(()),
            1 => {
                thread::sleep(self.random.millis(0..300));
                reader.cancel(job)?;
                self.count("cancelled");
                reader.iter(job, u64::MAX)?
            }
            2 if is_detached => {
                thread::sleep(self.random.millis(0..300));
                self.count("discarded");
                return reader.discard(&client::address(), job);
            }
            3 => {
                let some = self.random.below(job_spec.items + 1);
                return reader.iter(job, some).and_then(|observed| reader.check_runs(&observed));
            }
            4 => {
                while reader.status(job)?.is_some_and(|status| !has_ended(&status)) {
                    thread::sleep(self.random.millis(0..100));
                }
                reader.get(job)?
            }
            5 => reader.get(job)?,
            _ => reader.iter(job, u64::MAX)?,
        };
        self.has_read(&reader, &observed)?;
        // Otherwise the small journal would soon be full.
        if is_detached && !self.random.one_in(3) {
            self.count("discarded");
            reader.discard(&client::address(), job)?;
        }
        Ok(())
    }

    fn has_read(&mut self, reader: &Reader<'_>, observed: &Observed) -> Result<(), String> {
        reader.check_runs(observed)?;
        self.count("detached jobs read");
        observed.fates.values().for_each(|fate| self.count(fate.name()));
        *self.counts.entry("items").or_default() += observed.fates.len() as u64;
        Ok(())
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}
