//! Opens the store when the server starts.

use std::collections::BTreeMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use farpool_programs::{Form, InUse, ProgramStore, StoreError};
use farpool_store::{JobStore, Phase};

use super::super::super::link::Link;
use super::super::super::programs::Programs;
use super::super::super::settings::Settings;
use super::checks::digest_of;

/// An open store, and the programs of its jobs.
pub(in super::super::super) struct Opened {
    pub(super) store: Box<dyn JobStore>,
    pub(super) programs: Programs,
    pub(super) pins: BTreeMap<u64, InUse>,
    pub(super) now_ms: u64,
}

impl Opened {
    /// Opens the programs. Those of the store's jobs are kept regardless of the bound.
    pub(in super::super::super) fn open(
        store: Option<Box<dyn JobStore>>,
        settings: &Settings,
        link: &Link,
    ) -> io::Result<(Programs, Option<Self>)> {
        let Some(store) = store else {
            let programs = open_programs(settings, settings.program_cache).map_err(io::Error::other)?;
            return Ok((Programs::new(programs, link.clone()), None));
        };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let opened = Self::with(store, settings, link, now_ms)?;
        Ok((opened.programs.clone(), Some(opened)))
    }

    /// Opens the detached jobs of an open store, at this time in ms since 1970.
    pub(in super::super::super) fn with(
        store: Box<dyn JobStore>,
        settings: &Settings,
        link: &Link,
        now_ms: u64,
    ) -> io::Result<Self> {
        let programs = |bound| open_programs(settings, bound).map_err(io::Error::other);
        let pins = pins(&*store, &programs(u64::MAX)?);
        let programs = Programs::new(programs(settings.program_cache)?, link.clone());
        Ok(Self { store, programs, pins, now_ms })
    }
}

/// Opens the programs, which are kept compressed, as clients send them and agents receive them.
fn open_programs(settings: &Settings, bound: u64) -> Result<ProgramStore, StoreError> {
    ProgramStore::open(&settings.programs, Form::Compressed, bound)
}

/// Returns the programs of running jobs.
fn pins(store: &dyn JobStore, programs: &ProgramStore) -> BTreeMap<u64, InUse> {
    let program = |job| programs.get(&digest_of(&store.opening_now(job).ok()?.pool)?);
    let jobs = store.jobs().filter(|job| job.phase() == Phase::Running);
    jobs.filter_map(|job| Some((job.number, program(job.number)?))).collect()
}
