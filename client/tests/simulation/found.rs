//! Seeds of histories in which something goes wrong if what is said of them is not so: found by these histories, or by taking out
//! what it takes.

/// Each is played whatever is asked for.
pub(crate) const SEEDS: &[(u64, &str)] = &[
    (0, "what the slower copy of a chunk says counts as well"),
    (2, "what was said on a connection that is lost is not said again on the next"),
    (5, "a client does not send its items again to a coordinator that does not know them"),
    (7, "the journal says that something is durable before it has synced it"),
    (10, "a job whose stream broke while it was detached is not known again by its id"),
    (13, "agents may forget outcomes of a detached job before they are durable"),
    (18, "an agent keeps an outcome twice that was said twice, and does not tell again what it kept"),
    (19, "who attaches to a job before it is whole is not told how long it has become"),
    (22, "a detached job is given items although its window has no room"),
    (39, "an agent forgets an outcome before the client has it"),
    (46, "items of a detached job that have outcomes are given out again after a restart"),
    (51, "an agent is told what to drop only behind what it gets instead"),
    (63, "an agent calls what was adopted by its old names"),
    (68, "an item that runs at most once runs again when its agent is lost"),
    (71, "the core takes the outcome of an item twice"),
    (100, "it is not durable where a detached job runs before it does"),
    (162, "an item that runs at most once runs again although an agent that may have run it is not back"),
    (168, "what arrives late on a connection that another one has replaced is taken in a second time"),
    (242, "a pool starts at an agent of which its client does not know, which may run the item again"),
    (253, "items that run at most once are given out before it is durable that they may have been"),
    (568, "items that may have been given out are not said again to the pool of a detached job that is opened again"),
    (2900, "jobs go on in the order of a hash map when another coordinator has them"),
    (3571, "it is told that a detached job has ended before that is durable"),
    (3850, "it is told that a detached job is discarded before that is durable"),
    (6931, "a segment that could not be written is made anew while there are later ones, and there it ends"),
    (15401, "that a client says what it has when it comes back is not looked at, and the pool does not start"),
];
