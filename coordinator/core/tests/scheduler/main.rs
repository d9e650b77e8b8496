//! The scheduler in a fake world, which compares every action with its own books.

mod adopting;
mod copies;
mod failed;
mod fairness;
mod placement;
mod places;
mod random;
mod sim;
mod world;
