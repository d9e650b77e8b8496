use super::programs::Programs;
use super::settings::Settings;
use super::workplace::Workplaces;

/// The daemon's files on disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) programs: Programs,
    pub(super) workplaces: Workplaces,
}

impl Disk {
    pub(super) fn open(settings: &Settings) -> Result<Disk, String> {
        let programs = Programs::open(settings)?;
        let workplaces = Workplaces::open(&std::env::temp_dir());
        let workplaces = workplaces.map_err(|error| format!("cannot create a directory for the workers: {error}"))?;
        Ok(Disk { programs, workplaces })
    }
}
