//! The vocabulary of a GGUF file as the `tokenizer.json` that the tokenizer library reads.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::Gguf;
use super::metadata::Metadata;
use super::value::Texts;
use crate::metadata::{NamedTemplate, SpecialTokens, TokenizerConfig};
use crate::source::WeightsError;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Bytes of a token that can come about by merging; far above those of any trained vocabulary.
const MAX_PIECE: usize = 512;

/// How the words of GPT-2 and its relatives are cut, except for numbers.
const WORDS_BEFORE_NUMBERS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
const WORDS_AFTER_NUMBERS: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is cut into words before the merges of a byte-level BPE.
struct Cut {
    /// Its names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    pieces: Pieces,
    /// Unicode normalization before everything.
    nfc: bool,
    /// Whether a word that is a token is never cut further.
    ignore_merges: bool,
    /// Whether a text starts with the first token where the file does not say.
    add_bos: bool,
}

enum Pieces {
    /// GPT-2's own.
    Gpt2,
    /// GPT-2's own, every digit by itself.
    Digits,
    /// That of newer models, with a pattern for numbers.
    Numbers(&'static str),
}

const CUTS: &[Cut] = &[
    Cut {
        names: &["gpt-2"],
        pieces: Pieces::Gpt2,
        nfc: false,
        ignore_merges: false,
        add_bos: false,
    },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r"],
        pieces: Pieces::Digits,
        nfc: false,
        ignore_merges: false,
        add_bos: false,
    },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pieces: Pieces::Numbers(r"\p{N}{1,3}"),
        nfc: false,
        ignore_merges: true,
        add_bos: true,
    },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen"],
        pieces: Pieces::Numbers(r"\p{N}"),
        nfc: true,
        ignore_merges: false,
        add_bos: false,
    },
];

/// What a token is, by its number in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Role {
    fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// Special tokens and chat templates, as a `tokenizer_config.json` has them.
pub(crate) fn texts(gguf: &Gguf) -> Result<TokenizerConfig, WeightsError> {
    let metadata = &gguf.metadata;
    let tokens = metadata.texts(TOKENS)?;
    let token = |name: &str| -> Result<Option<String>, WeightsError> {
        let id = metadata.uint(&format!("tokenizer.ggml.{name}_token_id"))?;
        let text = id.and_then(|id| tokens?.get(usize::try_from(id).ok()?));
        Ok(text.map(str::to_owned))
    };
    let special = SpecialTokens {
        bos: token("bos")?,
        eos: token("eos")?,
        pad: token("padding")?,
        unk: token("unknown")?,
    };
    let mut templates = Vec::new();
    if let Some(template) = metadata.text(TEMPLATE)? {
        let (name, template) = ("default".to_owned(), template.to_owned());
        templates.push(NamedTemplate { name, template });
    }
    for name in metadata.texts("tokenizer.chat_templates")?.into_iter().flat_map(Texts::iter) {
        if let Some(template) = metadata.text(&format!("{TEMPLATE}.{name}"))? {
            let (name, template) = (name.to_owned(), template.to_owned());
            templates.push(NamedTemplate { name, template });
        }
    }
    Ok(TokenizerConfig { special, templates })
}

/// The text of a `tokenizer.json` for this file.
pub(crate) fn tokenizer_json(gguf: &Gguf) -> Result<String, WeightsError> {
    let metadata = &gguf.metadata;
    if let Some(json) = metadata.text("tokenizer.huggingface.json")? {
        return Ok(json.to_owned());
    }
    let model = metadata.required(MODEL, Metadata::text)?;
    let vocabulary = Vocabulary::read(metadata)?;
    let tokenizer = match model {
        "gpt2" => byte_level(metadata, &vocabulary)?,
        "llama" => sentence_piece(metadata, &vocabulary)?,
        _ => return Err(unknown(gguf, MODEL, model)),
    };
    tokenizer
        .map(|json| json.to_string())
        .ok_or_else(|| unknown(gguf, PRE, metadata.text(PRE).ok().flatten().unwrap_or("(none)")))
}

fn unknown(gguf: &Gguf, key: &'static str, name: &str) -> WeightsError {
    WeightsError::GgufTokenizer { file: gguf.path.clone(), key, name: name.to_owned() }
}

/// The tokens of a file and what each one is.
struct Vocabulary<'a> {
    tokens: &'a Texts,
    roles: Vec<Role>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, WeightsError> {
        const TYPES: &str = "tokenizer.ggml.token_type";
        let tokens = metadata.required(TOKENS, Metadata::texts)?;
        let roles = match metadata.numbers(TYPES)? {
            None => vec![Role::Normal; tokens.len()],
            Some(numbers) => numbers
                .into_iter()
                .map(|number| Role::from_number(number).unwrap_or(Role::Normal))
                .collect(),
        };
        if roles.len() != tokens.len() {
            let problem = format!("has {} elements for {} tokens", roles.len(), tokens.len());
            return Err(metadata.wrong(TYPES, problem));
        }
        Ok(Self { tokens, roles })
    }

    /// Id, text and role of every token that is used.
    fn used(&self) -> impl Iterator<Item = (usize, &'a str, Role)> {
        let all = self.tokens.iter().zip(&self.roles).enumerate();
        all.map(|(id, (text, role))| (id, text, *role)).filter(|(.., role)| *role != Role::Unused)
    }

    /// Text to id. A text that two ids have keeps the first one.
    fn ids(&self) -> HashMap<&'a str, usize> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        self.used().for_each(|(id, text, _)| {
            ids.entry(text).or_insert(id);
        });
        ids
    }

    /// The tokens that are found in a text before it is cut into words.
    fn added(&self) -> Vec<Value> {
        let added = self
            .used()
            .filter(|(.., role)| matches!(role, Role::Control | Role::UserDefined | Role::Unknown));
        added
            .map(|(id, content, role)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": role != Role::UserDefined})
            })
            .collect()
    }
}

/// A byte-level BPE; none where `tokenizer.ggml.pre` is unknown.
fn byte_level(
    metadata: &Metadata,
    vocabulary: &Vocabulary<'_>,
) -> Result<Option<Value>, WeightsError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let name = metadata.text(PRE)?.unwrap_or_default();
    let Some(cut) = CUTS.iter().find(|cut| cut.names.contains(&name)) else { return Ok(None) };
    let merges = metadata.required(MERGES, Metadata::texts)?;
    let bytes = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": use_regex})
    };
    let pre_tokenizer = match cut.pieces {
        Pieces::Gpt2 => bytes(true),
        Pieces::Digits => sequence(
            "pretokenizers",
            &[json!({"type": "Digits", "individual_digits": true}), bytes(true)],
        ),
        Pieces::Numbers(numbers) => {
            let pattern = format!("{WORDS_BEFORE_NUMBERS}{numbers}{WORDS_AFTER_NUMBERS}");
            let split = json!({"type": "Split", "pattern": {"Regex": pattern},
                "behavior": "Isolated", "invert": false});
            sequence("pretokenizers", &[split, bytes(false)])
        }
    };
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
        "byte_fallback": false, "ignore_merges": cut.ignore_merges,
        "vocab": vocabulary.ids(), "merges": merges.iter().collect::<Vec<_>>()});
    Ok(Some(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": if cut.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre_tokenizer,
        "post_processor": around(metadata, vocabulary.tokens, cut.add_bos)?,
        "decoder": bytes(true),
        "model": model,
    })))
}

/// A BPE over characters with scores instead of merges, as `SentencePiece` writes them for Llama.
fn sentence_piece(
    metadata: &Metadata,
    vocabulary: &Vocabulary<'_>,
) -> Result<Option<Value>, WeightsError> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = metadata.required(SCORES, Metadata::floats)?;
    if scores.len() != vocabulary.tokens.len() {
        let (found, tokens) = (scores.len(), vocabulary.tokens.len());
        return Err(metadata.wrong(SCORES, format!("has {found} elements for {tokens} tokens")));
    }
    let unknown = vocabulary.used().find(|(.., role)| *role == Role::Unknown);
    let unknown = unknown.map(|(_, text, _)| text);
    let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
        "byte_fallback": true, "ignore_merges": false,
        "vocab": vocabulary.ids(), "merges": merges_of(vocabulary, scores)});
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut normalizers = vec![spaces];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Some(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": sequence("normalizers", &normalizers),
        "pre_tokenizer": null,
        "post_processor": around(metadata, vocabulary.tokens, true)?,
        "decoder": sequence("decoders", &decoders),
        "model": model,
    })))
}

/// Every way to make a token of two others, the best-scored token first.
fn merges_of(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Vec<[String; 2]> {
    let pieces: HashMap<&str, usize> = vocabulary
        .used()
        .filter(|(.., role)| matches!(role, Role::Normal | Role::UserDefined))
        .map(|(id, text, _)| (text, id))
        .collect();
    let mut merges = Vec::new();
    for (&text, &id) in pieces.iter().filter(|(text, _)| text.len() <= MAX_PIECE) {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (pieces.get(left), pieces.get(right)) {
                merges.push((id, left_id, right_id, [left.to_owned(), right.to_owned()]));
            }
        }
    }
    merges.sort_by(|a, b| {
        let by_score = scores[b.0].total_cmp(&scores[a.0]);
        by_score.then_with(|| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)))
    });
    merges.into_iter().map(|(.., merge)| merge).collect()
}

/// What the tokenizer puts before and after a text.
fn around(metadata: &Metadata, tokens: &Texts, bos: bool) -> Result<Value, WeightsError> {
    let mut special = Map::new();
    let mut token = |wanted: bool, name: &str| -> Result<Option<Value>, WeightsError> {
        let id = metadata.uint(&format!("tokenizer.ggml.{name}_token_id"))?.filter(|_| wanted);
        let Some(id) = id else { return Ok(None) };
        let Some(text) = usize::try_from(id).ok().and_then(|id| tokens.get(id)) else {
            let key = format!("tokenizer.ggml.{name}_token_id");
            return Err(metadata.wrong(&key, format!("is no token: {id}")));
        };
        special.insert(text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
        Ok(Some(json!({"SpecialToken": {"id": text, "type_id": 0}})))
    };
    let bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(bos);
    let eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let (before, after) = (token(bos, "bos")?, token(eos, "eos")?);
    if special.is_empty() {
        return Ok(Value::Null);
    }
    let parts = |text: &str| -> Vec<Value> {
        let text = json!({"Sequence": {"id": text, "type_id": 0}});
        before.iter().cloned().chain([text]).chain(after.iter().cloned()).collect()
    };
    let pair: Vec<Value> = [parts("A"), parts("B")].concat();
    Ok(json!({"type": "TemplateProcessing", "single": parts("A"), "pair": pair,
        "special_tokens": special}))
}

fn sequence(of: &str, steps: &[Value]) -> Value {
    let mut sequence = Map::new();
    sequence.insert("type".to_owned(), json!("Sequence"));
    sequence.insert(of.to_owned(), json!(steps));
    Value::Object(sequence)
}
