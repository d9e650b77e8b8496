use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::*;

/// Returns whether `check` holds in a fork of this process that does nothing else.
fn holds_in_a_fork(check: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls `check`, which takes no lock that another thread of the tests could hold, and leaves.
    match unsafe { fork() }.unwrap() {
        // SAFETY: _exit(2) may be called at any time.
        ForkResult::Child => unsafe { libc::_exit(i32::from(!check())) },
        ForkResult::Parent { child } => waitpid(child, None).unwrap() == WaitStatus::Exited(child, 0),
    }
}

#[test]
fn a_fork_is_not_the_owner() {
    let owner = Owner::this_process();
    assert!(owner.is_here() && check_pool(owner).is_ok());
    assert!(holds_in_a_fork(|| !owner.is_here() && Owner::this_process().is_here()));
    assert!(owner.is_here());
    assert!(holds_in_a_fork(|| {
        let error = check_pool(owner).unwrap_err();
        let words = "this process is a fork of it: open a pool in the fork";
        error.kind() == crate::ErrorKind::InvalidArgument
            && error.message() == format!("the pool was opened by process {}; {words}", owner.pid())
    }));
}

#[test]
fn only_the_owner_drops() {
    struct Counting<'a>(&'a AtomicUsize);
    impl Drop for Counting<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = AtomicUsize::new(0);
    let owned = Owned::new(Counting(&drops));
    let copied = Owned::of(owned.owner(), Counting(&drops));
    assert!(holds_in_a_fork(|| {
        drop(copied);
        drops.load(Ordering::SeqCst) == 0
    }));
    drop(owned);
    assert_eq!(drops.load(Ordering::SeqCst), 2, "both are dropped in this process, the copy together with the closure");
}

#[test]
fn a_static_is_new_in_a_fork_even_if_it_is_locked() {
    static NUMBERS: PerProcess<Mutex<Vec<u32>>> = PerProcess::new();
    NUMBERS.get().lock().unwrap().push(1);
    let locked = NUMBERS.get().lock().unwrap();
    let begins_anew = holds_in_a_fork(|| {
        let mut numbers = NUMBERS.get().lock().unwrap();
        numbers.push(2);
        *numbers == [2] && std::ptr::eq(NUMBERS.get(), NUMBERS.get())
    });
    drop(locked);
    assert!(begins_anew);
    assert_eq!(*NUMBERS.get().lock().unwrap(), [1]);
}

#[test]
fn all_threads_get_the_same_static() {
    static PLACE: PerProcess<AtomicUsize> = PerProcess::new();
    let threads: Vec<_> = (0..8).map(|_| thread::spawn(|| PLACE.get().fetch_add(1, Ordering::SeqCst))).collect();
    threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() < 8));
    assert_eq!(PLACE.get().load(Ordering::SeqCst), 8);
}
