//! Sessions over connections that break, with honest peers and others.

mod acknowledgements;
mod cuts;
mod ends;
mod invalid;
mod pair;
mod replies;
mod wakes;
mod wire;
