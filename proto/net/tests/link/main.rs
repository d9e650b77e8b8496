//! Sessions over connections that break, between honest ends and with others.

mod acknowledgements;
mod cuts;
mod ends;
mod lies;
mod pair;
mod replies;
mod wire;
