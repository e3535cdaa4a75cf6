//! Which backend a `cog.yaml` asks for, as far as the file alone decides, and why.
use super::{Backend, Manifest};

/// What `cog.yaml` says about the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHint {
    /// The backend to use.
    pub backend: Backend,
    /// Whether the file alone decides. If not, the backend is `native` only when the weights' `config.json` names a
    /// supported architecture, and `container` otherwise.
    pub certain: bool,
    /// The reason, to be printed after the backend.
    pub reason: String,
}

impl Manifest {
    /// The backend, in the order: `pinion.backend`; a runner means `container`; else `native` if the weights allow it.
    pub fn backend_hint(&self) -> BackendHint {
        if let Some(backend) = self.pinion.backend {
            let reason = format!("cog.yaml says `pinion.backend: {backend}`");
            return BackendHint { backend, certain: true, reason };
        }
        let Some(runner) = self.runner() else {
            let reason = "cog.yaml names no runner (`run:` or `predict:`)".to_owned();
            return BackendHint { backend: Backend::Native, certain: false, reason };
        };
        let field = if self.run.as_deref() == Some(runner) { "run" } else { "predict" };
        let reason = format!(
            "cog.yaml names a runner (`{field}: {runner}`), and its Python may do more than its weights"
        );
        BackendHint { backend: Backend::Container, certain: true, reason }
    }
}
