//! Packages as the daemon sees them: a worker process each, its life, and the requests on it.

mod generation;
mod package;
mod process;
mod snapshots;
mod state;
mod task;
#[cfg(test)]
pub(crate) mod testing;
mod tracked;

pub use generation::{Events, Generation};
pub(crate) use package::Resumption;
pub use package::{Package, PackageSpec};
pub use snapshots::{SnapshotPolicy, SnapshotState};
pub use state::{PackageState, StateKind};
