//! Clients that fork while they detach a job, or read one.

use farpool::{DetachedState, ErrorKind};

use super::{attach, cluster, pool, squares};
use crate::failures::checks::has_words;
use crate::failures::forks::{drop_in_fork, ended_well, forked, in_a_fork, leave};
use crate::failures::tasks::nap;

crate::runner::cases![a_fork_reads_anew_and_disturbs_nobody, an_input_that_forks_while_the_job_is_sent,];

/// A handle is a name, which a fork may use. What is being read is the parent's.
fn a_fork_reads_anew_and_disturbs_nobody() {
    let cluster = cluster();
    let pool = pool(cluster.address());
    let job = pool.job(nap).detach("nightly").map(0..40).unwrap();
    let mut outcomes = job.iter().unwrap();
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    let mut others = job.iter().unwrap();
    in_a_fork(|| {
        let error = outcomes.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        has_words(&error, &["this process is a fork of it", "attach(..) to the job here"]);
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

/// The child is in the call as well: it is refused, and does not take back what the parent goes on to send.
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
    ended_well(child.expect("it has forked"));
    let job = job.unwrap();
    assert_eq!(job.get().unwrap(), squares(60_000));
    job.discard().unwrap();
}
