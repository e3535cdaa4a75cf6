//! Inferences that outlive their callers: the numbered event log of each, and where it is found again.

mod buffer;
mod inference;
mod progress;
mod restore;
mod store;
#[cfg(test)]
mod tests;

pub use buffer::{Cursor, Outcome, StreamBuffer};
pub(crate) use inference::{Inference, OnDisconnect, Reader};
pub(crate) use progress::Progress;
pub(crate) use restore::{go_on, restore};
pub(crate) use store::{Begun, IdempotencyKey, StreamLimits, StreamStore, StreamUsage};

/// Code of the error that ends a stream whose readers are gone.
pub(crate) const CLIENT_GONE: &str = "client_gone";

/// Code of the error that ends a stream that was cancelled by name.
pub(crate) const CANCELLED: &str = "cancelled";
