//! Tokenizers rebuilt from metadata.

use super::*;

/// A byte-level vocabulary of `size` tokens: three special ones, letters, and `ab`.
pub(super) fn add_gpt2(writer: &mut Writer, size: usize) {
    let mut tokens = vec!["<s>".to_owned(), "<unk>".to_owned(), "</s>".to_owned()];
    tokens.extend(('!'..='~').map(String::from));
    tokens.truncate(size - 1);
    tokens.push("ab".to_owned());
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut types = vec![1; texts.len()];
    types[..3].fill(3);
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", "smollm");
    writer.texts("tokenizer.ggml.tokens", &texts);
    writer.ints("tokenizer.ggml.token_type", &types);
    writer.texts("tokenizer.ggml.merges", &["a b"]);
    writer.uint("tokenizer.ggml.bos_token_id", 0);
    writer.uint("tokenizer.ggml.eos_token_id", 2);
    writer.text("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}.{% endfor %}");
}

fn tokenizer(writer: &Writer) -> PackageTokenizer {
    let (_dir, gguf) = open(&writer.finish());
    let json = tokenizer_json(&gguf.expect("opens")).expect("has one");
    PackageTokenizer::parse(&json, FILE, 100_000).expect("is valid")
}

/// The metadata that llama.cpp's converter makes of a byte-level `tokenizer.json`.
fn converted(json: &Json, pre: &str) -> Writer {
    let vocab = json["model"]["vocab"].as_object().expect("an object");
    let added = json["added_tokens"].as_array().expect("a list");
    let mut all: Vec<(u64, String, i32)> = vocab
        .iter()
        .map(|(text, id)| (id.as_u64().expect("an id"), text.clone(), 1))
        .filter(|(id, ..)| added.iter().all(|token| token["id"] != *id))
        .collect();
    for token in added {
        let kind = if token["special"] == true { 3 } else { 4 };
        let content = token["content"].as_str().expect("a text").to_owned();
        all.push((token["id"].as_u64().expect("an id"), content, kind));
    }
    all.sort_unstable();
    let texts: Vec<&str> = all.iter().map(|(_, text, _)| text.as_str()).collect();
    let types: Vec<i32> = all.iter().map(|&(.., kind)| kind).collect();
    let merges = json["model"]["merges"].as_array().expect("a list").iter().map(|merge| {
        let part = |at: usize| merge[at].as_str().expect("a text");
        merge.as_str().map_or_else(|| format!("{} {}", part(0), part(1)), str::to_owned)
    });
    let merges: Vec<String> = merges.collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    let mut writer = Writer::default();
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", pre);
    writer.texts("tokenizer.ggml.tokens", &texts);
    writer.ints("tokenizer.ggml.token_type", &types);
    writer.texts("tokenizer.ggml.merges", &merges);
    writer
}

const TEXTS: &[&str] = &[
    "",
    "Hello, world!",
    "  What's 12345 + 67?\n\n\tIt'S   done.  ",
    "naïve façade — 東京 🦀 e\u{301}",
    "<|im_start|>user\nhi<|im_end|>\n",
    "def f(x):\r\n    return x['a']  # don't\n",
];

#[test]
fn a_byte_level_vocabulary_encodes_as_the_tokenizer_it_was_made_of() {
    let files = crate::starter::files();
    let name = files.list("weights").expect("lists").contains(&"tokenizer.json".to_owned());
    let file = if name { "weights/tokenizer.json" } else { "tokenizer.json" };
    let text = files.read_text(file, LIMITS.tokenizer_bytes).expect("reads").expect("is there");
    let mut json: Json = serde_json::from_str(&text).expect("JSON");
    let bytes = || json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let split = |numbers: &str| {
        let regex = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]})
    };
    let digits = json!({"type": "Sequence", "pretokenizers":
        [{"type": "Digits", "individual_digits": true}, bytes()]});
    for (pre, pre_tokenizer, normalizer) in [
        ("gpt-2", bytes(), Json::Null),
        ("smollm", digits, Json::Null),
        ("llama-bpe", split(r"\p{N}{1,3}"), Json::Null),
        ("qwen2", split(r"\p{N}"), json!({"type": "NFC"})),
    ] {
        json["pre_tokenizer"] = pre_tokenizer;
        json["normalizer"] = normalizer;
        json["post_processor"] = Json::Null;
        let expected = PackageTokenizer::parse(&json.to_string(), file, 100_000).expect("valid");
        let found = tokenizer(&converted(&json, pre));
        for text in TEXTS {
            let ids = found.encode_prompt(text).expect("encodes");
            assert_eq!(ids, expected.encode_prompt(text).expect("encodes"), "{pre}: {text:?}");
            let decoded = found.decode(&ids, false).expect("decodes");
            assert_eq!(decoded, expected.decode(&ids, false).expect("decodes"));
        }
    }
}

/// A vocabulary as `SentencePiece` trains it for Llama.
fn sentence_piece() -> Writer {
    let mut tokens: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    let pieces = ["▁a", "he", "ll", "llo", "hello", "▁hello", "▁", "a", "b", "h", "e", "l", "o"];
    tokens.extend(pieces.iter().zip(0u8..).map(|(p, i)| ((*p).into(), -f32::from(i), 1)));
    let mut writer = Writer::default();
    writer.text("tokenizer.ggml.model", "llama");
    let texts: Vec<&str> = tokens.iter().map(|(text, ..)| text.as_str()).collect();
    writer.texts("tokenizer.ggml.tokens", &texts);
    writer.floats("tokenizer.ggml.scores", &tokens.iter().map(|t| t.1).collect::<Vec<_>>());
    writer.ints("tokenizer.ggml.token_type", &tokens.iter().map(|t| t.2).collect::<Vec<_>>());
    writer.uint("tokenizer.ggml.bos_token_id", 1);
    writer.uint("tokenizer.ggml.eos_token_id", 2);
    writer
}

#[test]
fn a_sentence_piece_vocabulary_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = tokenizer(&sentence_piece());
    let id = |piece: &str| tokenizer.token_to_id(piece).expect(piece);
    let encode = |text: &str| tokenizer.encode_chat(text).expect("encodes");
    assert_eq!(tokenizer.encode_prompt("a").expect("encodes"), [1, id("▁a")]);
    assert_eq!(encode("hello"), [id("▁hello")]);
    assert_eq!(encode("hello hella"), [id("▁hello"), id("▁"), id("he"), id("ll"), id("a")]);
    // No piece has these: their UTF-8 bytes stand for them.
    assert_eq!(encode("aß"), [id("▁a"), id("<0xC3>"), id("<0x9F>")]);
    assert_eq!(encode("a</s>b")[..2], [id("▁a"), 2]);
    for text in ["hello hella", "aß", "🦀 b"] {
        assert_eq!(tokenizer.decode(&encode(text), true).expect("decodes"), text);
    }
}

#[test]
fn the_space_before_a_text_and_the_tokens_around_it_follow_the_metadata() {
    let mut writer = sentence_piece();
    writer.bool("tokenizer.ggml.add_space_prefix", false);
    writer.bool("tokenizer.ggml.add_bos_token", false);
    writer.bool("tokenizer.ggml.add_eos_token", true);
    let tokenizer = tokenizer(&writer);
    let hello = tokenizer.token_to_id("hello").expect("is there");
    assert_eq!(tokenizer.encode_prompt("hello").expect("encodes"), [hello, 2]);
}

#[test]
fn a_tokenizer_of_unknown_kind_is_refused_with_its_name_and_what_to_do() {
    for (model, pre, expected) in [
        ("gpt2", "sprout", "tokenizer.ggml.pre is sprout"),
        ("gpt2", "default", "tokenizer.ggml.pre is default"),
        ("rwkv", "qwen2", "tokenizer.ggml.model is rwkv"),
    ] {
        let mut writer = Writer::default();
        writer.text("tokenizer.ggml.model", model);
        writer.text("tokenizer.ggml.pre", pre);
        writer.texts("tokenizer.ggml.tokens", &["a"]);
        let (_dir, gguf) = open(&writer.finish());
        let error = tokenizer_json(&gguf.expect("opens")).expect_err("unknown");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("tokenizer.json")));
    }
}

#[test]
fn lists_of_a_vocabulary_must_fit_each_other() {
    let mut writer = sentence_piece();
    writer.uint("x", 1);
    let broken = |key: &str, list: fn(&mut Writer, &str)| {
        let mut writer = Writer::default();
        writer.text("tokenizer.ggml.model", "llama");
        writer.texts("tokenizer.ggml.tokens", &["a", "b"]);
        list(&mut writer, key);
        let (_dir, gguf) = open(&writer.finish());
        tokenizer_json(&gguf.expect("opens")).expect_err("does not fit").to_string()
    };
    let error = broken("tokenizer.ggml.token_type", |w, key| w.ints(key, &[1]));
    assert!(error.contains("has 1 elements for 2 tokens"), "{error}");
    let error = broken("tokenizer.ggml.scores", |w, key| w.floats(key, &[1.0, 2.0, 3.0]));
    assert!(error.contains("has 3 elements for 2 tokens"), "{error}");
}

#[test]
fn special_tokens_and_templates_come_from_the_metadata() {
    let mut writer = Writer::default();
    add_gpt2(&mut writer, 97);
    writer.texts("tokenizer.chat_templates", &["tool_use", "none"]);
    writer.text("tokenizer.chat_template.tool_use", "tools");
    let (_dir, gguf) = open(&writer.finish());
    let texts = texts(&gguf.expect("opens")).expect("has them");
    assert_eq!(texts.special.bos.as_deref(), Some("<s>"));
    assert_eq!(texts.special.eos.as_deref(), Some("</s>"));
    let names: Vec<&str> = texts.templates.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["default", "tool_use"]);
}
