use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags};

use crate::settings::Settings;
use crate::slot_numbers::SlotNumbers;

/// The state that all pools of an agent share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) epoll: Arc<Epoll>,
    pub(crate) settings: Settings,
    pub(crate) slot_numbers: SlotNumbers,
}

impl Host {
    pub(crate) fn new(settings: Settings) -> nix::Result<Host> {
        let name = match &settings.host {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        Ok(Host {
            name,
            epoll,
            settings: Settings { slots: settings.slots.max(1), ..settings },
            slot_numbers: SlotNumbers::default(),
        })
    }
}
