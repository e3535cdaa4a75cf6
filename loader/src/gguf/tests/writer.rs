//! Writes GGUF files as llama.cpp's converter does.

use super::*;

/// A file in the making.
#[derive(Clone)]
pub(super) struct Writer {
    alignment: usize,
    keys: Vec<Vec<u8>>,
    tensors: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { alignment: 32, keys: Vec::new(), tensors: Vec::new() }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    pub(super) fn aligned(alignment: usize) -> Self {
        Self { alignment, ..Self::default() }
    }

    pub(super) fn raw(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.keys.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
    }

    pub(super) fn uint(&mut self, key: &str, value: u32) {
        self.raw(key, 4, &value.to_le_bytes());
    }

    pub(super) fn float(&mut self, key: &str, value: f32) {
        self.raw(key, 6, &value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, key: &str, value: bool) {
        self.raw(key, 7, &[u8::from(value)]);
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.raw(key, 8, &text(value));
    }

    pub(super) fn list(&mut self, key: &str, kind: u32, elements: &[Vec<u8>]) {
        let head = [&kind.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes()].concat();
        self.raw(key, 9, &[head, elements.concat()].concat());
    }

    pub(super) fn texts(&mut self, key: &str, texts: &[&str]) {
        self.list(key, 8, &texts.iter().map(|element| text(element)).collect::<Vec<_>>());
    }

    pub(super) fn ints(&mut self, key: &str, values: &[i32]) {
        self.list(key, 5, &values.iter().map(|v| v.to_le_bytes().to_vec()).collect::<Vec<_>>());
    }

    pub(super) fn floats(&mut self, key: &str, values: &[f32]) {
        self.list(key, 6, &values.iter().map(|v| v.to_le_bytes().to_vec()).collect::<Vec<_>>());
    }

    /// A tensor of this type number, its sizes as they are written: the fastest one first.
    pub(super) fn blocks(&mut self, name: &str, kind: u32, sizes: &[u64], bytes: Vec<u8>) {
        let mut head = text(name);
        head.extend((sizes.len() as u32).to_le_bytes());
        sizes.iter().for_each(|size| head.extend(size.to_le_bytes()));
        head.extend(kind.to_le_bytes());
        self.tensors.push((head, bytes));
    }

    /// A tensor in its own type.
    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor) {
        let kind = match tensor.dtype() {
            DType::F16 => 1,
            DType::BF16 => 30,
            _ => 0,
        };
        let flat = tensor.flatten_all().expect("flat");
        let bytes = match tensor.dtype() {
            DType::F32 => {
                let values: Vec<f32> = flat.to_vec1().expect("f32");
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            DType::BF16 => {
                halves(&flat.to_vec1::<half::bf16>().expect("bf16"), half::bf16::to_bits)
            }
            _ => halves(&flat.to_vec1::<half::f16>().expect("f16"), half::f16::to_bits),
        };
        let sizes: Vec<u64> = tensor.dims().iter().rev().map(|&size| size as u64).collect();
        self.blocks(name, kind, &sizes, bytes);
    }

    /// The bytes of the file.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut keys = self.clone();
        if keys.alignment != 32 {
            keys.uint("general.alignment", keys.alignment as u32);
        }
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((keys.tensors.len() as u64).to_le_bytes());
        bytes.extend((keys.keys.len() as u64).to_le_bytes());
        keys.keys.iter().for_each(|key| bytes.extend(key));
        let mut offset = 0u64;
        for (head, data) in &keys.tensors {
            bytes.extend(head);
            bytes.extend(offset.to_le_bytes());
            offset += data.len().next_multiple_of(keys.alignment) as u64;
        }
        for (_, data) in &keys.tensors {
            bytes.resize(bytes.len().next_multiple_of(keys.alignment), 0);
            bytes.extend(data);
        }
        bytes
    }
}

fn halves<T: Copy>(values: &[T], bits: fn(T) -> u16) -> Vec<u8> {
    values.iter().flat_map(|&value| bits(value).to_le_bytes()).collect()
}

/// A small file with a key and two tensors, for damage.
pub(super) fn tiny_file() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text("general.architecture", "llama");
    writer.texts("list", &["a", "bc"]);
    writer.blocks("a", 0, &[2, 2], vec![1; 16]);
    writer.blocks("b", 8, &[32], vec![2; 34]);
    writer.finish()
}

/// The file of a model, with query and key rows as `convert_hf_to_gguf.py` stores them.
pub(super) fn model_file(
    architecture: &str,
    config: &Json,
    tensors: &HashMap<String, Tensor>,
) -> Writer {
    let mut writer = Writer::default();
    writer.text("general.architecture", architecture);
    let heads = config["num_attention_heads"].as_u64().expect("a number");
    let kv_heads = config["num_key_value_heads"].as_u64().expect("a number");
    for (key, field) in [
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("attention.value_length", "head_dim"),
    ] {
        if let Some(value) = config[field].as_u64() {
            writer.uint(&format!("{architecture}.{key}"), value as u32);
        }
    }
    let float = |field: &str| config[field].as_f64().map(|value| value as f32);
    let eps = float("rms_norm_eps").expect("a number");
    writer.float(&format!("{architecture}.attention.layer_norm_rms_epsilon"), eps);
    if let Some(theta) = float("rope_theta") {
        writer.float(&format!("{architecture}.rope.freq_base"), theta);
    }
    let mut names: Vec<&String> = tensors.keys().collect();
    names.sort_unstable();
    for name in names {
        let heads = match architecture {
            "llama" if name.contains(".q_proj.") => Some(heads),
            "llama" if name.contains(".k_proj.") => Some(kv_heads),
            _ => None,
        };
        let tensor = heads.map_or_else(
            || tensors[name].clone(),
            |heads| interleave(&tensors[name], heads as usize),
        );
        writer.tensor(&gguf_name(name).expect("GGUF has it"), &tensor);
    }
    writer
}

/// `permute` of llama.cpp's converter.
fn interleave(tensor: &Tensor, heads: usize) -> Tensor {
    let half = tensor.dims()[0] / heads / 2;
    let rest = tensor.elem_count() / heads / 2 / half;
    let split = tensor.reshape((heads, 2, half, rest)).expect("heads of even height");
    let swapped = split.transpose(1, 2).and_then(|t| t.contiguous()).expect("transposes");
    swapped.reshape(tensor.dims()).expect("as it was")
}
