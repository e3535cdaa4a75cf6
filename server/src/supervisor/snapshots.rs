//! The daemon's part of snapshots: where they lie, who writes, what is published, what goes.
//!
//! The daemon looks at the files of a package and reads them for its digest, without understanding
//! any. Everything in a snapshot is the worker's; the daemon moves whole folders.

use std::path::PathBuf;
use std::sync::Arc;

use pinion_loader::snapshot::{Identity, SnapshotError, Staging, Store, WriteLock};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use crate::ipc::{PackageSource, SnapshotNews, SnapshotRequest, Verify};

/// Bytes of a snapshot besides its weights, for making room.
const BESIDE_WEIGHTS: u64 = 128 << 20;

/// How snapshots of a package are used.
#[derive(Clone, Debug)]
pub struct SnapshotPolicy {
    /// Where they lie.
    pub store: Store,
    /// Bytes of all snapshots.
    pub limit: u64,
    /// When weights are compared with their sums.
    pub verify: Verify,
    /// Whether one is written where there is none.
    pub write: bool,
}

/// What became of the snapshot of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SnapshotState {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It is there; the package came from it, or the next start will.
    There {
        /// Its folder.
        path: PathBuf,
    },
    /// It is written.
    Writing {
        /// Bytes done.
        done: u64,
        /// Bytes in all, zero if unknown.
        total: u64,
    },
    /// It was written.
    Published {
        /// Its folder.
        path: PathBuf,
        /// Bytes of its image.
        bytes: u64,
    },
    /// There is none, and why.
    Failed {
        /// For people.
        reason: String,
    },
}

/// What the keeper wants of its package's task.
pub(super) enum Wish {
    /// The worker shall write a snapshot of the package with this digest; without one, forget what it
    /// kept for that.
    Write(Option<String>),
    /// The worker computed with damaged weights.
    Discard(String),
}

/// Work that was done on another thread.
enum Done {
    Locked { package: String, lock: WriteLock },
    There { path: PathBuf },
    Published { path: PathBuf, bytes: u64 },
    Failed(SnapshotError),
}

/// The snapshots of one package, while a worker of it runs.
pub(super) struct Keeper {
    policy: Option<(SnapshotPolicy, PathBuf)>,
    state: watch::Sender<SnapshotState>,
    identity: Option<Arc<Identity>>,
    package: Option<String>,
    target: String,
    /// Package and target of snapshots that shall not be used again.
    bad: Vec<(String, String)>,
    staging: Option<Staging>,
    lock: Option<WriteLock>,
    done: (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>),
}

impl Keeper {
    pub(super) fn new(
        policy: Option<SnapshotPolicy>,
        source: &PackageSource,
        state: watch::Sender<SnapshotState>,
    ) -> Self {
        let directory = match source {
            // It is in the binary, and loads as fast.
            PackageSource::Starter => None,
            PackageSource::Directory(path) => Some(path.clone()),
        };
        let policy = policy.zip(directory);
        if policy.is_none() {
            let reason = "snapshots are off, or the package is built in".to_owned();
            state.send_replace(SnapshotState::Failed { reason });
        }
        Self {
            policy,
            state,
            identity: None,
            package: None,
            target: String::new(),
            bad: Vec::new(),
            staging: None,
            lock: None,
            done: mpsc::unbounded_channel(),
        }
    }

    /// What the next worker may use and make.
    pub(super) async fn prepare(&mut self) -> SnapshotRequest {
        (self.staging, self.lock) = (None, None);
        self.done = mpsc::unbounded_channel();
        let Some((policy, directory)) = self.policy.clone() else {
            return SnapshotRequest { verify: Verify::Off, ..SnapshotRequest::default() };
        };
        let (verify, store) = (policy.verify, policy.store.clone());
        let bad = std::mem::take(&mut self.bad);
        let look = spawn_blocking(move || {
            for (package, target) in bad {
                policy.store.remove(&package, &target)?;
            }
            let identity = Identity::of(&directory)?;
            let package = policy.store.known(&identity);
            let staging = policy.write.then(|| policy.store.stage()).transpose()?;
            Ok::<_, SnapshotError>((identity, package, staging))
        });
        let restore = match look.await {
            Ok(Ok((identity, package, staging))) => {
                (self.identity, self.package) = (Some(Arc::new(identity)), package);
                self.staging = staging;
                self.package.as_deref().map(|package| store.folder(package))
            }
            Ok(Err(error)) => {
                self.fail(&error);
                None
            }
            Err(_cancelled) => None,
        };
        SnapshotRequest {
            restore,
            package: self.package.clone(),
            staging: self.staging.as_ref().map(|staging| staging.path().to_owned()),
            verify,
        }
    }

    /// Acts on what the worker says.
    pub(super) fn on_news(&mut self, news: SnapshotNews) -> Option<Wish> {
        let store = self.policy.as_ref().map(|(policy, _)| policy.store.clone())?;
        match news {
            SnapshotNews::Restored { target } => {
                self.staging = None;
                let package = self.package.clone()?;
                let path = store.folder(&package).join(&target);
                self.state.send_replace(SnapshotState::There { path });
                self.spawn(move || {
                    store.touch(&package, &target);
                    None
                });
            }
            SnapshotNews::Refused { target, reason } => {
                tracing::warn!("the snapshot is not used: {reason}");
                self.bad.extend(self.package.clone().zip(Some(target)));
            }
            SnapshotNews::Recorded { target, bytes } => self.lock(store, target, bytes),
            SnapshotNews::Writing { done, total } => {
                self.state.send_replace(SnapshotState::Writing { done, total });
            }
            SnapshotNews::Written { bytes } => self.publish(store, bytes),
            SnapshotNews::Failed { reason } => {
                tracing::warn!("the snapshot was not written: {reason}");
                (self.staging, self.lock) = (None, None);
                self.state.send_replace(SnapshotState::Failed { reason });
            }
            SnapshotNews::Verified => tracing::debug!("the snapshot in use is whole"),
            SnapshotNews::Damaged { target, reason } => {
                self.bad.extend(self.package.clone().zip(Some(target)));
                return Some(Wish::Discard(reason));
            }
        }
        None
    }

    /// What follows from work on another thread.
    pub(super) async fn next(&mut self) -> Option<Wish> {
        match self.done.1.recv().await? {
            Done::Locked { package, lock } => {
                self.lock = Some(lock);
                self.state.send_replace(SnapshotState::Writing { done: 0, total: 0 });
                Some(Wish::Write(Some(package)))
            }
            Done::There { path } => {
                self.staging = None;
                self.state.send_replace(SnapshotState::There { path });
                Some(Wish::Write(None))
            }
            Done::Published { path, bytes } => {
                self.state.send_replace(SnapshotState::Published { path, bytes });
                None
            }
            Done::Failed(error) => {
                self.fail(&error);
                Some(Wish::Write(None))
            }
        }
    }

    /// Finds out which package it is, takes the right to write, and makes room.
    fn lock(&mut self, store: Store, target: String, bytes: u64) {
        let (Some(identity), Some((policy, _))) = (self.identity.clone(), &self.policy) else {
            return;
        };
        let limit = policy.limit;
        self.target.clone_from(&target);
        let bad = std::mem::take(&mut self.bad);
        self.spawn(move || {
            let locked = || {
                let package = store.identify(&identity)?;
                let lock = store.lock(&package)?;
                for (package, target) in bad {
                    store.remove(&package, &target)?;
                }
                if store.has(&package, &target) {
                    let path = store.folder(&package).join(&target);
                    return Ok(Done::There { path });
                }
                store.make_room(bytes.saturating_add(BESIDE_WEIGHTS), limit)?;
                Ok(Done::Locked { package, lock })
            };
            Some(locked().unwrap_or_else(Done::Failed))
        });
    }

    fn publish(&mut self, store: Store, bytes: u64) {
        let (Some(staging), Some(lock)) = (self.staging.take(), self.lock.take()) else { return };
        let target = self.target.clone();
        self.spawn(move || {
            let published = store.publish(&staging, &lock, &target);
            Some(published.map_or_else(Done::Failed, |path| Done::Published { path, bytes }))
        });
    }

    fn fail(&mut self, error: &SnapshotError) {
        tracing::warn!("there is no snapshot: {error}");
        (self.staging, self.lock) = (None, None);
        self.state.send_replace(SnapshotState::Failed { reason: error.to_string() });
    }

    /// Runs file operations where they hold nobody up.
    fn spawn(&self, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        let done = self.done.0.clone();
        drop(spawn_blocking(move || {
            if let Some(result) = work() {
                // A worker that ended meanwhile has a new plan.
                let _ = done.send(result);
            }
        }));
    }
}
