//! Processes of the lowest priority that keep the cores awake.

use std::process::{Child, Command};

use nix::sys::signal::Signal;

pub(crate) const ROLE: &str = "--spin";

/// The running spinners. Dropping this kills them.
pub(crate) struct Spinners(Vec<Child>);

pub(crate) fn one_on_each_core() -> Spinners {
    let start = |core: usize| Command::new("/proc/self/exe").args([ROLE, &core.to_string()]).spawn();
    Spinners((0..farpool_testkit::machine::cores()).map(|core| start(core).expect("cannot start a spinner")).collect())
}

/// The main function of such a process.
pub(crate) fn spin(core: &str) -> ! {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a spinner can be tied to its parent");
    let _pinned = crate::limit::pin(core.parse().expect("the spinner has a core as argument"));
    // SAFETY: nice(2) takes a number and touches no memory.
    unsafe { libc::nice(19) };
    loop {
        std::hint::spin_loop();
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}
