mod model;
mod words;
