//! The node over HTTP, with a worker that follows a script.

mod auth;
mod chat;
mod completions;
mod faults;
mod invalid;
mod node;
mod node_routes;
mod serving;
mod streams;
mod worker;
