//! A byte-pair tokenizer without its JSON: tables that are read as they lie, and the small rest.
//!
//! Most of the time that a `tokenizer.json` takes is spent on its vocabulary and merges, which are most of its bytes.

use ahash::AHashMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer,
};

/// What a compact tokenizer is, in postcard.
#[derive(Serialize, Deserialize)]
struct Compact<'a> {
    /// The JSON without vocabulary and merges.
    rest: &'a str,
    /// Tokens of the model and their ids.
    vocabulary: Vec<(&'a str, u32)>,
    /// Pairs of ids, first to be merged first.
    merges: Vec<(u32, u32)>,
}

/// Fields of a byte-pair model in JSON.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The compact form of a `tokenizer.json`; none where it is no byte-pair tokenizer, or where the compact form would be
/// another tokenizer.
pub(crate) fn encode(json: &str) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_str(json).ok()?;
    let model = value.get_mut("model")?.as_object_mut()?;
    let vocabulary = model.remove("vocab")?;
    let merges = model.remove("merges")?;
    let ids: AHashMap<&str, u32> = vocabulary
        .as_object()?
        .iter()
        .map(|(token, id)| Some((token.as_str(), u32::try_from(id.as_u64()?).ok()?)))
        .collect::<Option<_>>()?;
    let merges: Vec<(u32, u32)> = merges
        .as_array()?
        .iter()
        .map(|pair| {
            let (left, right) = match pair {
                Value::String(both) => both.split_once(' ')?,
                pair => (pair.get(0)?.as_str()?, pair.get(1)?.as_str()?),
            };
            Some((*ids.get(left)?, *ids.get(right)?))
        })
        .collect::<Option<_>>()?;
    let mut vocabulary: Vec<(&str, u32)> = ids.into_iter().collect();
    vocabulary.sort_unstable_by_key(|&(token, id)| (id, token));
    let rest = value.to_string();
    let bytes = postcard::to_stdvec(&Compact { rest: &rest, vocabulary, merges }).ok()?;
    let same = || {
        let (original, compact) =
            (Tokenizer::from_bytes(json.as_bytes()).ok()?, decode(&bytes).ok()?.0);
        Some(original.to_string(false).ok()? == compact.to_string(false).ok()?)
    };
    (same() == Some(true)).then_some(bytes)
}

/// The tokenizer of a compact form, and the largest id of its model. It may panic where the bytes are not those of
/// [`encode`].
pub(super) fn decode(bytes: &[u8]) -> Result<(Tokenizer, Option<u32>), Failure> {
    let compact: Compact<'_> = postcard::from_bytes(bytes)?;
    let mut rest: Value = serde_json::from_str(compact.rest)?;
    let model: Model = part(&mut rest, "model")?;
    if model.kind != "BPE" {
        return Err(format!("it is no byte-pair model: {}", model.kind).into());
    }
    let mut tokenizer = Tokenizer::new(build(model, &compact)?);
    tokenizer.with_normalizer(part::<Option<NormalizerWrapper>>(&mut rest, "normalizer")?)?;
    tokenizer.with_pre_tokenizer(part::<Option<PreTokenizerWrapper>>(&mut rest, "pre_tokenizer")?);
    tokenizer
        .with_post_processor(part::<Option<PostProcessorWrapper>>(&mut rest, "post_processor")?);
    tokenizer.with_decoder(part::<Option<DecoderWrapper>>(&mut rest, "decoder")?);
    tokenizer.with_truncation(part(&mut rest, "truncation")?)?;
    tokenizer.with_padding(part(&mut rest, "padding")?);
    let added: Option<Vec<AddedToken>> = part(&mut rest, "added_tokens")?;
    tokenizer.add_tokens(added.unwrap_or_default())?;
    // They ascend.
    let largest = compact.vocabulary.last().map(|&(_, id)| id);
    Ok((tokenizer, largest))
}

fn part<T: DeserializeOwned>(rest: &mut Value, name: &str) -> serde_json::Result<T> {
    serde_json::from_value(rest.get_mut(name).map(Value::take).unwrap_or_default())
}

fn build(model: Model, compact: &Compact<'_>) -> Result<BPE, Failure> {
    let vocabulary: AHashMap<String, u32> =
        compact.vocabulary.iter().map(|&(token, id)| (token.to_owned(), id)).collect();
    let token = |id: u32| {
        // Most vocabularies have every id, which is then where its token lies.
        let known = &compact.vocabulary;
        let at_its_place = known.get(id as usize).filter(|&&(_, at)| at == id);
        let found = || known.binary_search_by_key(&id, |&(_, at)| at).ok().map(|at| &known[at]);
        at_its_place.or_else(found).map(|&(token, _)| token.to_owned())
    };
    let merges: Option<Vec<_>> =
        compact.merges.iter().map(|&(left, right)| Some((token(left)?, token(right)?))).collect();
    let merges = merges.ok_or("a merge names no token")?;
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .fuse_unk(model.fuse_unk)
        .byte_fallback(model.byte_fallback)
        .ignore_merges(model.ignore_merges);
    if let Some(dropout) = model.dropout {
        builder = builder.dropout(dropout);
    }
    if let Some(unknown) = model.unk_token {
        builder = builder.unk_token(unknown);
    }
    if let Some(prefix) = model.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = model.end_of_word_suffix {
        builder = builder.end_of_word_suffix(suffix);
    }
    builder.build()
}
