//! What daemon and worker say to each other, and how it is framed.

mod frame;
mod protocol;
mod snapshots;
#[cfg(test)]
mod tests;
mod urgency;

pub use frame::{FrameError, MAX_FRAME_BYTES, decode, encode, read_frame, write_frame};
pub use protocol::{
    ErrorKind, Event, FinishReason, FromWorker, GenerationParams, LoadRequest, LoadStage,
    ModelInfo, PROTOCOL_VERSION, PackageSource, Prompt, RequestKey, Resume, Stats, Submit,
    ToWorker, TokenLogprob, TokenizeInput, Tokenized, Usage, WorkerError,
};
pub use snapshots::{SnapshotNews, SnapshotRequest, Verify};
pub use urgency::Urgency;
