//! A package as Cog's API shows it.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use pinion_cog_compat::{InputValidator, Schema};

use super::registry::Registry;
use crate::supervisor::{Package, StateKind};

/// What answers for a server of Cog.
pub(super) const VERSION: &str = concat!("pinion/", env!("CARGO_PKG_VERSION"));

/// A package with its schema and its predictions.
#[derive(Debug)]
pub(super) struct Service {
    /// What runs the predictions.
    pub(super) package: Package,
    /// What they take and give.
    pub(super) schema: Schema,
    /// Checks what they take.
    pub(super) validator: InputValidator,
    /// Those in flight and those that ended.
    pub(super) predictions: Registry,
    /// A mutex because a task writes what requests read.
    setup: Mutex<SetupTimes>,
}

/// When the last setup began and ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetupTimes {
    pub(super) started: Timestamp,
    pub(super) completed: Option<Timestamp>,
}

impl Service {
    /// A package whose schema follows from its manifest.
    pub(super) fn new(
        package: Package,
    ) -> Result<Arc<Self>, pinion_cog_compat::schema::SchemaError> {
        let schema = Schema::native(env!("CARGO_PKG_VERSION"), &package.manifest().pinion.inputs);
        let validator = InputValidator::for_predictions(&schema)?;
        let setup = SetupTimes { started: Timestamp::now(), completed: None };
        let (predictions, setup) = (Registry::default(), Mutex::new(setup));
        Ok(Arc::new(Self { package, schema, validator, predictions, setup }))
    }

    /// When the last setup began and ended.
    pub(super) fn setup(&self) -> SetupTimes {
        *self.setup.lock()
    }

    /// Notes when setups begin and end, until the package is gone.
    pub(super) async fn watch_setup(self: Arc<Self>) {
        let mut states = self.package.watch_state();
        loop {
            let kind = states.borrow_and_update().kind();
            match kind {
                StateKind::Loading => self.setup.lock().note_begin(),
                StateKind::Ready | StateKind::Failed => self.setup.lock().note_end(),
                StateKind::Stopped => return,
                StateKind::Unresponsive | StateKind::Restarting | StateKind::Draining => {}
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }
}

impl SetupTimes {
    fn note_begin(&mut self) {
        if self.completed.take().is_some() {
            self.started = Timestamp::now();
        }
    }

    fn note_end(&mut self) {
        self.completed.get_or_insert_with(Timestamp::now);
    }
}
