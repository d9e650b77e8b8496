//! Sessions with a fake coordinator and fake workers, in simulated time.

mod cases;
mod coordinator;
mod workers;
