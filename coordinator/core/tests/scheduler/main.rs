//! The scheduler in a fake world that compares every action with its own records.

mod adopting;
mod copies;
mod failed;
mod fairness;
mod placement;
mod places;
mod random;
mod sim;
mod world;
