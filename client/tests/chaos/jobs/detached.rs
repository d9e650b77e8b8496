//! Jobs that the coordinator keeps: detached, and picked up by whoever comes along.

use std::path::Path;
use std::thread;

use farpool::{Detached, DetachedState, ErrorKind};

use super::Player;
use crate::client;
use crate::ledger::Mark;
use crate::reading::{Reader, Story, has_ended};
use crate::recipe::Recipe;
use crate::work::{Answer, work};

impl Player<'_> {
    /// Detaches a job, and does something with it, or leaves it to others.
    pub(super) fn detach_one(&mut self) -> Result<(), String> {
        self.jobs += 1;
        let client = Path::new(self.folder).file_name().expect("a client's folder has its name").display();
        let name = format!("{client}-{}-{}", self.thread, self.jobs);
        let recipe = self.ledger.enter(&mut self.random, name);
        self.posts(format!("{recipe:?} is detached"));
        let job = self.pool.job(work).retries(recipe.retries);
        let job = recipe.chunksize.into_iter().fold(job, farpool::Job::chunksize);
        let job = match job.detach(&recipe.name).map(recipe.tasks()) {
            Ok(job) => job,
            // The journal is full, or its disk, which is told, and nothing is left of it: that is looked after in the end.
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && ["is full", "cannot be written to"].iter().any(|words| error.message().contains(words)) =>
            {
                self.count("not detached");
                return Ok(());
            }
            Err(error) => return Err(format!("{recipe:?}: it cannot be detached: {error}")),
        };
        self.ledger.mark(&recipe.name, Mark::Detached);
        self.count("detached");
        self.deal_with(&job, &recipe).map_err(|wrong| format!("{recipe:?}: {wrong}"))
    }

    /// Picks up a job, whoever has detached it, or is about to.
    pub(super) fn pick_one_up(&mut self) -> Result<(), String> {
        let mut all = self.ledger.all();
        all.retain(|recipe| !self.ledger.has(&recipe.name, Mark::Discarded));
        if all.is_empty() {
            return Ok(());
        }
        let recipe = self.random.pick(&all);
        self.posts(format!("{recipe:?} is picked up"));
        self.count("picked up");
        let told = |wrong| format!("{recipe:?}: {wrong}");
        let reader = Reader::new(self.ledger, &recipe);
        match reader.attach(&client::address()).map_err(told)? {
            Some(job) => self.deal_with(&job, &recipe).map_err(told),
            None => Ok(()),
        }
    }

    fn deal_with(&mut self, job: &Detached<Answer>, recipe: &Recipe) -> Result<(), String> {
        let reader = Reader::new(self.ledger, recipe);
        // It does not begin, and never may, when whoever was detaching it was killed.
        match reader.status(job)? {
            Some(status) if status.state != DetachedState::Receiving => {}
            _ => return Ok(()),
        }
        self.posts(format!("{recipe:?} is dealt with"));
        // Whoever still is detaching it, and has not heard that all of it is there, would say all of it again.
        let is_detached = self.ledger.has(&recipe.name, Mark::Detached);
        let story = match self.random.below(8) {
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
                let some = self.random.below(recipe.items + 1);
                return reader.iter(job, some).and_then(|story| reader.check_runs(&story));
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
        self.has_read(&reader, &story)?;
        // The journal is small: it would be full soon.
        if is_detached && !self.random.one_in(3) {
            self.count("discarded");
            reader.discard(&client::address(), job)?;
        }
        Ok(())
    }

    fn has_read(&mut self, reader: &Reader<'_>, story: &Story) -> Result<(), String> {
        reader.check_runs(story)?;
        self.count("detached jobs read");
        story.fates.values().for_each(|fate| self.count(fate.name()));
        *self.counts.entry("items").or_default() += story.fates.len() as u64;
        Ok(())
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}
