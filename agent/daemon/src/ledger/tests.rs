mod messages;
mod model;
