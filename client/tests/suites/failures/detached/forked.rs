//! Clients that fork while they detach or read a job.

use farpool::{DetachedState, ErrorKind};

use super::{attach, cluster, pool, squares};
use crate::failures::checks::check_words;
use crate::failures::forks::{assert_success, drop_in_fork, forked, in_a_fork, leave};
use crate::failures::tasks::nap;

crate::runner::cases![a_fork_reads_again_and_is_harmless, an_input_that_forks_while_the_job_is_sent,];

/// A handle is only a name, which a fork may use. Outcomes that are being read belong to the parent.
fn a_fork_reads_again_and_is_harmless() {
    let cluster = cluster();
    let pool = pool(cluster.address());
    let job = pool.job(nap).detach("nightly").map(0..40).unwrap();
    let mut outcomes = job.iter().unwrap();
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    let mut others = job.iter().unwrap();
    in_a_fork(|| {
        let error = outcomes.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        check_words(&error, &["this process is a fork of it", "attach(..) to the job here"]);
        assert!(outcomes.next().is_none());
        drop_in_fork(&others);
        assert_eq!(job.get().unwrap(), (0..40).collect::<Vec<_>>());
        assert_eq!(attach(&cluster, "nightly").status().unwrap().state, DetachedState::Finished);
        drop_in_fork(&outcomes);
        drop_in_fork(&job);
    });
    assert_eq!(outcomes.map(Result::unwrap).collect::<Vec<_>>(), (1..40).collect::<Vec<_>>());
    assert_eq!(others.by_ref().map(Result::unwrap).count(), 40);
    job.discard().unwrap();
}

/// The child is also inside the call: it gets an error, and does not disturb what the parent keeps sending.
fn an_input_that_forks_while_the_job_is_sent() {
    let (cluster, parent) = (cluster(), std::process::id());
    let pool = pool(cluster.address());
    let mut child = None;
    let input = (0..60_000_u64).inspect(|item| {
        if *item == 30_000 {
            child = forked();
        }
    });
    let job = pool.job(crate::failures::tasks::square).detach("nightly").map(input);
    if std::process::id() != parent {
        let error = job.unwrap_err();
        leave(i32::from(error.kind() != ErrorKind::InvalidArgument));
    }
    assert_success(child.expect("the fork failed"));
    let job = job.unwrap();
    assert_eq!(job.get().unwrap(), squares(60_000));
    job.discard().unwrap();
}
