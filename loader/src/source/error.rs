//! What can be wrong with the weights of a package.

use thiserror::Error;

use crate::files::FileError;

/// What GGUF tensors may be stored as.
const GGUF_TYPES: &str = "F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_K, Q5_K, Q6_K";

/// Weights that cannot be loaded, and why. `file` is relative to the package.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is nothing to load.
    #[error(
        "no weights found in {place}: expected model.safetensors, model.safetensors.index.json or a .gguf file"
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
    /// Several GGUF files, of which each could be the weights.
    #[error("{count} .gguf files in {place}, and none is named")]
    GgufChoice {
        /// Where they were found.
        place: String,
        /// How many.
        count: usize,
    },
    /// One of several parts of a model.
    #[error("gguf file is one part of several, which is not supported: {file}")]
    GgufSplit {
        /// The file.
        file: String,
    },
    /// The header is not a GGUF header.
    #[error("gguf header is invalid: {reason}: {file}")]
    GgufHeader {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A key of the metadata is missing, or its value cannot be used.
    #[error("gguf metadata: `{key}` {problem}: {file}")]
    GgufKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },
    /// A tokenizer that cannot be rebuilt from its metadata.
    #[error("gguf metadata names an unknown tokenizer: {key} is {name}: {file}")]
    GgufTokenizer {
        /// The file.
        file: String,
        /// The key that names it.
        key: &'static str,
        /// The name.
        name: String,
    },
    /// A tensor that the model needs is stored in blocks that are not loaded.
    #[error("tensor `{tensor}` is stored as {kind}, supported are: {GGUF_TYPES}: {file}")]
    GgufType {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
        /// Its type as GGML writes it.
        kind: String,
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
    #[error("header has {size} bytes, and {limit} are allowed: {file}")]
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
            Self::GgufChoice { .. } => "gguf_not_named",
            Self::GgufSplit { .. } => "gguf_split_not_supported",
            Self::GgufHeader { .. } | Self::GgufKey { .. } => "gguf_invalid",
            Self::GgufTokenizer { .. } => "gguf_tokenizer_not_supported",
            Self::NoIndex { .. } => "weight_index_missing",
            Self::ShardMissing { .. } => "weight_shard_missing",
            Self::Index { .. } => "weight_index_invalid",
            Self::NotInShard { .. } => "tensor_not_in_shard",
            Self::Truncated { .. } => "weights_truncated",
            Self::HeaderTooLarge { .. } => "weights_header_too_large",
            Self::Header { .. } => "weights_header_invalid",
            Self::Tensor { .. } => "tensor_invalid",
            Self::Dtype { .. } | Self::GgufType { .. } => "tensor_dtype_not_supported",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(e) => e.hint(),
            Self::Missing { .. } => Some(
                "put config.json, tokenizer.json and model.safetensors, or one .gguf file, into `weights/`, or name their directory in cog.yaml `weights:`",
            ),
            Self::Pickle { .. } => Some(
                "convert them once with `safetensors` where you trust them: load with torch.load(weights_only=True), save with safetensors.torch.save_file",
            ),
            Self::GgufChoice { .. } => {
                Some("name one in cog.yaml: `weights: [{source: {uri: ./weights/NAME.gguf}}]`")
            }
            Self::GgufSplit { .. } => Some("join the parts with `llama-gguf-split --merge`"),
            Self::GgufTokenizer { .. } => {
                Some("put the tokenizer.json of the model beside the file")
            }
            Self::GgufType { .. } => Some("take the file of the same model in another type"),
            Self::GgufHeader { .. } | Self::GgufKey { .. } => {
                Some("the file is damaged or of another kind: fetch or convert it again")
            }
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
            | Self::Tensor { .. } => {
                Some("the file is damaged or was written wrongly: fetch or convert it again")
            }
        }
    }
}
