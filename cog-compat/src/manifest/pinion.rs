//! The `pinion:` block: how this node serves a package. Its keys are pinion's own, so an unknown one is an error.
use std::fmt;

use super::read::{Field, Fields, Findings};
use crate::diagnostic::Diagnostic;

/// The `pinion:` block. Everything is optional.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PinionBlock {
    /// What executes the package.
    pub backend: Option<Backend>,
    /// What the weights are kept as.
    pub dtype: Option<DType>,
    /// The longest sequence, prompt and answer, in tokens.
    pub max_model_len: Option<u32>,
    /// The most sequences in one batch.
    pub max_num_seqs: Option<u32>,
    /// The most tokens that are guessed and checked in one step; zero is off.
    pub speculative_tokens: Option<u32>,
    /// Cog input names of this package that mean a known input.
    pub inputs: InputAliases,
    /// A template that replaces the tokenizer's chat template.
    pub prompt_template: Option<String>,
    /// `LoRA` adapters served beside the base model.
    pub adapters: Vec<Adapter>,
    /// What the tokens cost.
    pub price: Option<Price>,
}

/// What executes a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Pinion's own engine.
    Native,
    /// The package's container.
    Container,
    /// Cog's own server as a child process.
    Process,
}

/// What weights are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8-bit blocks.
    Q8_0,
    /// 4-bit blocks.
    Q4_0,
    /// 4-bit blocks with minimums.
    Q4K,
    /// 5-bit blocks with minimums.
    Q5K,
    /// 6-bit blocks.
    Q6K,
    /// 8-bit floats; CUDA only.
    Fp8,
}

/// A meaning that an input of a text package can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the input of the same name")]
pub enum InputName {
    Prompt,
    SystemPrompt,
    PromptTemplate,
    MaxTokens,
    MinTokens,
    Temperature,
    TopP,
    TopK,
    PresencePenalty,
    FrequencyPenalty,
    RepetitionPenalty,
    StopSequences,
    Seed,
}

/// The other names under which a package takes a known input, in the order written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputAliases {
    /// `(meaning, name)`; no name appears twice.
    pub names: Vec<(InputName, String)>,
}

/// A `LoRA` adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The name that requests use.
    pub name: String,
    /// A path in the package, or a URI as for weights.
    pub source: String,
}

/// What tokens cost. A rate that is absent is not charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// For prompt tokens.
    pub input: Option<Amount>,
    /// For prompt tokens found in the prefix cache; `input` applies if absent.
    pub cached_input: Option<Amount>,
    /// For generated tokens.
    pub output: Option<Amount>,
    /// How many tokens a rate is for.
    pub per_tokens: u64,
}

/// A sum of money, in billionths of the operator's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// Billionths.
    pub nanos: u64,
}

impl Backend {
    /// Every backend with its name in `cog.yaml` and on the command line.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Native, "native"), (Self::Container, "container"), (Self::Process, "process")];

    /// The backend of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(backend, _)| *backend)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl DType {
    /// Every dtype with its name.
    pub const NAMES: [(Self, &'static str); 9] = [
        (Self::F32, "f32"),
        (Self::F16, "f16"),
        (Self::Bf16, "bf16"),
        (Self::Q8_0, "q8_0"),
        (Self::Q4_0, "q4_0"),
        (Self::Q4K, "q4_k"),
        (Self::Q5K, "q5_k"),
        (Self::Q6K, "q6_k"),
        (Self::Fp8, "fp8"),
    ];

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(dtype, _)| *dtype)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl InputName {
    /// Every meaning with its own name.
    pub const NAMES: [(Self, &'static str); 13] = [
        (Self::Prompt, "prompt"),
        (Self::SystemPrompt, "system_prompt"),
        (Self::PromptTemplate, "prompt_template"),
        (Self::MaxTokens, "max_tokens"),
        (Self::MinTokens, "min_tokens"),
        (Self::Temperature, "temperature"),
        (Self::TopP, "top_p"),
        (Self::TopK, "top_k"),
        (Self::PresencePenalty, "presence_penalty"),
        (Self::FrequencyPenalty, "frequency_penalty"),
        (Self::RepetitionPenalty, "repetition_penalty"),
        (Self::StopSequences, "stop_sequences"),
        (Self::Seed, "seed"),
    ];

    /// The meaning of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(input, _)| *input)
    }

    /// Its own name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl InputAliases {
    /// The names that mean `input`, without its own.
    pub fn of(&self, input: InputName) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .filter(move |(meaning, _)| *meaning == input)
            .map(|(_, name)| name.as_str())
    }
}

impl Amount {
    /// Reads a decimal such as `0.10`: not negative, at most nine digits after the point.
    pub fn from_decimal(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return None;
        }
        let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
        let nanos = whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)?;
        Some(Self { nanos })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.nanos % 1_000_000_000);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}.{fraction:0<2}", self.nanos / 1_000_000_000)
    }
}

pub(super) fn read(field: &Field<'_>, out: &mut Findings) -> PinionBlock {
    let Some(mut fields) = Fields::of(field, out) else { return PinionBlock::default() };
    let backend = fields.take("backend").and_then(|field| one_of(&field, &Backend::NAMES, out));
    let dtype = fields.take("dtype").and_then(|field| one_of(&field, &DType::NAMES, out));
    let max_model_len = fields.take("max_model_len").and_then(|field| field.count(1, out));
    let max_num_seqs = fields.take("max_num_seqs").and_then(|field| field.count(1, out));
    let speculative_tokens =
        fields.take("speculative_tokens").and_then(|field| field.count(0, out));
    let inputs = fields.take("inputs").map(|field| aliases(&field, out)).unwrap_or_default();
    let prompt_template = fields.take("prompt_template").and_then(|field| field.text(out));
    let adapters = fields.take("adapters").map(|field| adapters(&field, out)).unwrap_or_default();
    let price = fields.take("price").and_then(|field| price(&field, out));
    refuse_unknown(&fields, out);
    PinionBlock {
        backend,
        dtype,
        max_model_len,
        max_num_seqs,
        speculative_tokens,
        inputs,
        prompt_template,
        adapters,
        price,
    }
}

fn one_of<T: Copy>(
    field: &Field<'_>,
    names: &[(T, &'static str)],
    out: &mut Findings,
) -> Option<T> {
    let text = field.text(out)?;
    let found = names.iter().find(|(_, name)| *name == text).map(|(value, _)| *value);
    if found.is_none() {
        let valid: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        out.not_one_of(field, &text, &valid);
    }
    found
}

fn refuse_unknown(fields: &Fields, out: &mut Findings) {
    for entry in fields.unknown() {
        let hint = match fields.meant(&entry.key) {
            Some(near) => {
                format!("did you mean `{near}`? known keys: {}", fields.known().join(", "))
            }
            None => format!("known keys: {}", fields.known().join(", ")),
        };
        out.push(
            Diagnostic::error(entry.mark, &fields.path_of(&entry.key), "unknown key").hint(hint),
        );
    }
}

fn aliases(field: &Field<'_>, out: &mut Findings) -> InputAliases {
    let Some(fields) = Fields::of(field, out) else { return InputAliases::default() };
    let mut names: Vec<(InputName, String)> = Vec::new();
    for (entry, field) in fields.entries() {
        let Some(input) = InputName::from_name(&entry.key) else {
            let valid: Vec<&str> = InputName::NAMES.iter().map(|(_, name)| *name).collect();
            let at = Field { node: &entry.value, path: field.path.clone() };
            out.not_one_of(&at, &entry.key, &valid);
            continue;
        };
        for name in field.one_or_few_texts(out) {
            if let Some((other, _)) = names.iter().find(|(_, known)| *known == name) {
                out.invalid(&field, format!("{name} already means {}", other.name()));
            } else if InputName::from_name(&name).is_some_and(|other| other != input) {
                out.invalid(&field, format!("{name} is an input of its own"));
            } else if name.is_empty() {
                out.invalid(&field, "an empty name");
            } else if name != input.name() {
                names.push((input, name));
            }
        }
    }
    InputAliases { names }
}

fn adapters(field: &Field<'_>, out: &mut Findings) -> Vec<Adapter> {
    let mut adapters: Vec<Adapter> = Vec::new();
    for item in field.few_items(out) {
        let Some(adapter) = adapter(&item, out) else { continue };
        if adapters.iter().any(|known| known.name == adapter.name) {
            out.invalid(&item, format!("two adapters are called {}", adapter.name));
        }
        adapters.push(adapter);
    }
    adapters
}

fn adapter(item: &Field<'_>, out: &mut Findings) -> Option<Adapter> {
    let mut fields = Fields::of(item, out)?;
    let mut text = |name, out: &mut Findings| {
        fields.take(name).and_then(|field| field.text(out)).filter(|text| !text.is_empty())
    };
    let (name, source) = (text("name", out), text("source", out));
    for (key, value) in [("name", &name), ("source", &source)] {
        if value.is_none() {
            out.push(Diagnostic::error(fields.mark, &fields.path_of(key), "missing"));
        }
    }
    refuse_unknown(&fields, out);
    Some(Adapter { name: name?, source: source? })
}

fn price(field: &Field<'_>, out: &mut Findings) -> Option<Price> {
    let mut fields = Fields::of(field, out)?;
    let mut amount = |name| fields.take(name).and_then(|field| amount(&field, out));
    let (input, cached_input, output) = (amount("input"), amount("cached_input"), amount("output"));
    let units = [(1, "1"), (1_000, "1K"), (1_000_000, "1M")];
    let per_tokens =
        fields.take("unit").map_or(Some(1_000_000), |field| one_of(&field, &units, out));
    refuse_unknown(&fields, out);
    Some(Price { input, cached_input, output, per_tokens: per_tokens? })
}

fn amount(field: &Field<'_>, out: &mut Findings) -> Option<Amount> {
    let text = field.text(out)?;
    let amount = Amount::from_decimal(&text);
    if amount.is_none() {
        let message = format!("not an amount: {text}");
        let hint =
            "write a decimal such as \"0.10\", not negative, at most nine digits after the point";
        out.push(Diagnostic::error(field.node.mark, &field.path, message).hint(hint));
    }
    amount
}
