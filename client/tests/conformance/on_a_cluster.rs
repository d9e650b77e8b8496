//! What there is on a cluster only.

use crate::tasks::square;
use crate::{cluster, pools};

crate::runner::cases![the_default_is_all_slots];

fn the_default_is_all_slots() {
    let pool = pools::pool(pools::builder());
    assert_eq!(pool.processes(), cluster::AGENTS * cluster::SLOTS);
    assert_eq!(pool.map(square, [2]).unwrap(), [4]);
}
