//! The journal when the server starts.

use std::collections::BTreeMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use farpool_common::log::{info, warn};
use farpool_programs::{Form, InUse, ProgramStore, StoreError};

use super::super::super::link::Link;
use super::super::super::programs::Programs;
use super::super::super::settings::Settings;
use super::super::Driver;
use super::program::digest_of;
use crate::journal::{Journal, Kept, Phase};

/// A journal that was opened, and what its jobs need.
pub(in super::super::super) struct Opened {
    pub(super) journal: Journal,
    pub(super) programs: Programs,
    pub(super) pins: BTreeMap<u64, InUse>,
    pub(super) now_ms: u64,
}

impl Opened {
    /// Opens the programs, and the journal if there is to be one. Programs of its jobs stay, whatever the bound.
    pub(in super::super::super) fn open(settings: &Settings, link: &Link) -> io::Result<(Programs, Option<Self>)> {
        let Some(journal) = &settings.journal else {
            let store = open_programs(settings, settings.program_cache).map_err(io::Error::other)?;
            return Ok((Programs::new(store, link.clone()), None));
        };
        // Nobody else can make it say anything by now.
        let log = link.log.without_limits();
        let warn = |warning: String| warn!(log, detail = warning, "journal warning");
        let journal = Journal::open(journal.clone(), warn).map_err(io::Error::other)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let opened = Self::with(journal, settings, link, now_ms)?;
        Ok((opened.programs.clone(), Some(opened)))
    }

    /// With a journal that is open.
    pub(in super::super::super) fn with(
        journal: Journal,
        settings: &Settings,
        link: &Link,
        now_ms: u64,
    ) -> io::Result<Self> {
        let store = |bound| open_programs(settings, bound).map_err(io::Error::other);
        let pins = pins(&journal, &store(u64::MAX)?);
        let programs = Programs::new(store(settings.program_cache)?, link.clone());
        Ok(Self { journal, programs, pins, now_ms })
    }
}

/// Programs are kept as clients send them, which is how agents get them.
fn open_programs(settings: &Settings, bound: u64) -> Result<ProgramStore, StoreError> {
    ProgramStore::open(&settings.programs, Form::Compressed, bound)
}

/// The programs of jobs that will go on.
fn pins(journal: &Journal, store: &ProgramStore) -> BTreeMap<u64, InUse> {
    let reader = journal.reader();
    let program = |pool| match reader.read(journal.pool(pool)?) {
        Ok(Kept::Pool(pool)) => store.get(&digest_of(&pool)?),
        _ => None,
    };
    let jobs = journal.jobs().filter(|job| job.phase() == Phase::Running);
    jobs.filter_map(|job| Some((job.number(), program(job.pool())?))).collect()
}

impl Driver {
    /// Goes on with what was in the journal when it was opened.
    pub(in super::super) fn begin_with_journal(&mut self) {
        let Some(journal) = &self.detached.journal else { return };
        let feeding = journal.jobs().filter(|job| job.phase() == Phase::Feeding);
        let feeding: Vec<u64> = feeding.map(|job| job.number()).collect();
        let ended = journal.jobs().filter(|job| matches!(job.phase(), Phase::Ended(_))).count();
        let running = journal.jobs().count() - feeding.len() - ended;
        let incomplete = feeding.len();
        if incomplete + ended + running > 0 {
            info!(self.link.log, running, ended, incomplete, "detached jobs are in the journal");
        }
        feeding.into_iter().for_each(|job| self.expect_rest(job));
        self.start_all();
    }
}
