//! How much of a package the loader is willing to read, parse and render.

/// Bounds that hold for every package, checked before the work they bound.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a `cog.yaml`, `config.json` or any other small JSON file.
    pub metadata_bytes: u64,
    /// Bytes of a `tokenizer.json`.
    pub tokenizer_bytes: u64,
    /// Bytes of a chat template.
    pub template_bytes: u64,
    /// Bytes of the header of one safetensors file.
    pub header_bytes: u64,
    /// Bytes of the header of a GGUF file, vocabulary included.
    pub gguf_header_bytes: u64,
    /// Keys of the metadata of a GGUF file.
    pub gguf_keys: usize,
    /// Bytes of a key or a tensor's name in a GGUF file.
    pub gguf_name_bytes: u64,
    /// Elements of all arrays in the metadata of a GGUF file.
    pub gguf_elements: usize,
    /// Tensors in one checkpoint, over all its files.
    pub tensors: usize,
    /// Files one weight index may name.
    pub shards: usize,
    /// Dimensions of one tensor.
    pub rank: usize,
    /// Template instructions that every render may use.
    pub fuel: u64,
    /// Template instructions a render may use on top for each message and tool.
    pub fuel_per_item: u64,
    /// Depth of template calls and includes.
    pub recursion: usize,
    /// Bytes one rendered prompt may have.
    pub rendered_bytes: usize,
    /// Bytes of text one encode call may be given.
    pub prompt_bytes: usize,
}

/// The bounds in force. They are the same for every package, so that a package behaves alike everywhere.
pub const LIMITS: Limits = Limits {
    metadata_bytes: 4 << 20,
    tokenizer_bytes: 64 << 20,
    template_bytes: 1 << 20,
    header_bytes: 8 << 20,
    gguf_header_bytes: 64 << 20,
    gguf_keys: 65_536,
    gguf_name_bytes: 65_535,
    gguf_elements: 4 << 20,
    tensors: 65_536,
    shards: 1_024,
    rank: 8,
    fuel: 500_000,
    fuel_per_item: 2_000,
    recursion: 100,
    rendered_bytes: 32 << 20,
    prompt_bytes: 32 << 20,
};
