//! The node over HTTP, with a worker that follows a script, and the whole program with real ones.

mod auth;
mod chat;
mod cog;
mod completions;
mod faults;
mod invalid;
mod node;
mod node_routes;
mod process;
mod resume;
mod serving;
mod streams;
mod worker;
