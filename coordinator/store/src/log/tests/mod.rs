//! The journal on a simulated disk, which can stop it at every byte.

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
