//! What can be wrong with the weights of a package.

use thiserror::Error;

use crate::files::FileError;

/// Weights that cannot be loaded, and why. `file` is relative to the package.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is nothing to load.
    #[error(
        "no weights found in {place}: expected model.safetensors or model.safetensors.index.json"
    )]
    Missing {
        /// Where they were looked for.
        place: String,
    },
    /// Only weights that are Python pickles.
    #[error("weights are Python pickles, which can run code and are never loaded: {file}")]
    Pickle {
        /// One of them.
        file: String,
    },
    /// Only GGUF weights.
    #[error("gguf weights are not supported yet: {file}")]
    Gguf {
        /// One of them.
        file: String,
    },
    /// Several files and nothing that says which tensor is where.
    #[error("{count} .safetensors files and no model.safetensors.index.json in {place}")]
    NoIndex {
        /// Where they were found.
        place: String,
        /// How many.
        count: usize,
    },
    /// The index names a file that is not there.
    #[error("shard is missing: {file} (named by {index} for tensor `{tensor}`)")]
    ShardMissing {
        /// The shard.
        file: String,
        /// The index.
        index: String,
        /// A tensor that lives in it.
        tensor: String,
    },
    /// The index is not what it should be.
    #[error("weight index is invalid: {reason}: {file}")]
    Index {
        /// The index.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The index says a tensor is in a file, and it is not.
    #[error("tensor `{tensor}` is not in {file}, where the weight index says it is")]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The shard.
        file: String,
    },
    /// The file ends before its header or its tensors do.
    #[error("file is truncated: {needed} bytes needed, {size} there: {file}")]
    Truncated {
        /// The file.
        file: String,
        /// Bytes that the header promises, itself included.
        needed: u64,
        /// Bytes there are.
        size: u64,
    },
    /// The header is longer than any real one.
    #[error("safetensors header has {size} bytes, and {limit} are allowed: {file}")]
    HeaderTooLarge {
        /// The file.
        file: String,
        /// Bytes it claims.
        size: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// The header is not a safetensors header.
    #[error("safetensors header is invalid: {reason}: {file}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// One tensor is described wrongly.
    #[error("tensor `{tensor}` is invalid: {reason}: {file}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the model needs has a type that is not loaded.
    #[error(
        "tensor `{tensor}` has dtype {dtype}, and only F32, BF16 and F16 are supported: {file}"
    )]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
        /// Its type as safetensors writes it.
        dtype: String,
    },
}

impl WeightsError {
    /// A stable name of the cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Missing { .. } => "weights_missing",
            Self::Pickle { .. } => "weights_are_pickle",
            Self::Gguf { .. } => "gguf_not_supported",
            Self::NoIndex { .. } => "weight_index_missing",
            Self::ShardMissing { .. } => "weight_shard_missing",
            Self::Index { .. } => "weight_index_invalid",
            Self::NotInShard { .. } => "tensor_not_in_shard",
            Self::Truncated { .. } => "weights_truncated",
            Self::HeaderTooLarge { .. } => "weights_header_too_large",
            Self::Header { .. } => "weights_header_invalid",
            Self::Tensor { .. } => "tensor_invalid",
            Self::Dtype { .. } => "tensor_dtype_not_supported",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(e) => e.hint(),
            Self::Missing { .. } => Some(
                "put config.json, tokenizer.json and model.safetensors into `weights/`, or name their directory in cog.yaml `weights:`",
            ),
            Self::Pickle { .. } => Some(
                "convert them once with `safetensors` where you trust them: load with torch.load(weights_only=True), save with safetensors.torch.save_file",
            ),
            Self::Gguf { .. } => Some("use the safetensors files of the same model"),
            Self::NoIndex { .. } => Some(
                "add the model.safetensors.index.json that came with the shards, or merge them into model.safetensors",
            ),
            Self::ShardMissing { .. } | Self::Truncated { .. } => {
                Some("the copy or download was not complete: fetch the file again")
            }
            Self::Dtype { .. } => Some("convert the checkpoint to bf16 or f32"),
            Self::Index { .. }
            | Self::NotInShard { .. }
            | Self::HeaderTooLarge { .. }
            | Self::Header { .. }
            | Self::Tensor { .. } => Some(
                "the file is damaged or was not written by safetensors: fetch or convert it again",
            ),
        }
    }
}
