//! The journal on a simulated disk, so that it can be stopped at every byte.

mod crash;
mod cut;
mod damage;
mod faults;
mod missing;
mod model;
mod old;
mod reads;
mod refused;
mod space;
mod withdrawn;
