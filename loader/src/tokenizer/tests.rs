//! Tokenizers: real enough ones, broken ones, and ones that mean harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// One token a byte of lower-case ASCII, `<s>` and `</s>`, and a post-processor that starts with `<s>`.
pub(crate) fn tokenizer_json() -> Value {
    let mut vocab: serde_json::Map<String, Value> = [("<unk>", 0), ("<s>", 1), ("</s>", 2)]
        .map(|(t, id)| (t.to_owned(), json!(id)))
        .into_iter()
        .collect();
    for (at, c) in ('a'..='z').chain([' ', '.', '!']).enumerate() {
        vocab.insert(c.to_string(), json!(at + 3));
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    })
}

fn parse(json: &Value) -> Result<PackageTokenizer, TokenizerError> {
    PackageTokenizer::parse(&json.to_string(), "tokenizer.json", 97)
}

#[test]
fn a_prompt_gets_the_tokenizers_own_special_tokens_and_a_chat_gets_none() {
    let tokenizer = parse(&tokenizer_json()).expect("valid");
    assert_eq!(tokenizer.encode_prompt("ab").expect("encodes"), [1, 3, 4]);
    assert_eq!(tokenizer.encode_chat("<s>ab</s>").expect("encodes"), [1, 3, 4, 2]);
    assert_eq!(tokenizer.decode(&[1, 3, 4, 2], true).expect("decodes"), "ab");
    assert_eq!(tokenizer.decode(&[1, 3, 4, 2], false).expect("decodes"), "<s>ab</s>");
    assert_eq!(tokenizer.token_to_id("</s>"), Some(2));
}

#[test]
fn truncation_that_the_file_asks_for_is_off() {
    let tokenizer = parse(&tokenizer_json()).expect("valid");
    assert_eq!(tokenizer.encode_chat("abcdefgh").expect("encodes").len(), 8);
}

#[test]
fn text_that_is_no_json_is_an_error_where_the_library_panics() {
    for text in [r#"{"decoder":[}}}"#, "", "{", "\u{0}", "[[[["] {
        let error = PackageTokenizer::parse(text, "tokenizer.json", 97).expect_err("no JSON");
        assert!(matches!(error, TokenizerError::Json { .. }), "{text:?}: {error}");
    }
}

#[test]
fn json_that_is_no_tokenizer_is_an_error() {
    let mut wrong_decoder = tokenizer_json();
    wrong_decoder["decoder"] = json!([]);
    let mut wrong_model = tokenizer_json();
    wrong_model["model"] = json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]});
    let mut wrong_regex = tokenizer_json();
    wrong_regex["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false});
    for json in [json!({}), json!([]), json!(1), wrong_decoder, wrong_model, wrong_regex] {
        let error = parse(&json).expect_err("no tokenizer");
        assert_eq!(error.code(), "tokenizer_invalid", "{error}");
        assert!(error.to_string().ends_with(": tokenizer.json"), "{error}");
    }
    let deep = format!("{{\"decoder\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(PackageTokenizer::parse(&deep, "tokenizer.json", 97).is_err());
}

#[test]
fn a_regex_that_explodes_ends_and_does_not_panic() {
    let mut json = tokenizer_json();
    for pattern in ["(a+)+$", "(?=(a+)+$)a", "(a|aa)+(?!b)$", "(?:(a+)+)+(?<!c)$"] {
        json["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let tokenizer = parse(&json).expect("a valid pattern");
        let text = format!("{}!", "a".repeat(24));
        match tokenizer.encode_chat(&text) {
            Ok(ids) => assert_eq!(ids.len(), 25, "{pattern}"),
            Err(error) => assert_eq!(error.code(), "text_not_encodable", "{pattern}"),
        }
        assert_eq!(tokenizer.encode_chat("abc").expect("still works").len(), 3, "{pattern}");
    }
}

#[test]
fn a_panic_inside_the_library_becomes_an_error() {
    let mut tokenizer = parse(&tokenizer_json()).expect("valid");
    let inner = Arc::get_mut(&mut tokenizer.inner).expect("not shared yet");
    inner.with_decoder(Some(tokenizers::decoders::ctc::CTC::default()));
    let caught = quiet::catch(|| -> u32 { panic!("the library gives up: {}", 7) });
    let message = caught.expect_err("a panic");
    assert!(message.starts_with("the library gives up: 7 (tests.rs:"), "{message}");
    assert_eq!(quiet::catch(|| 5), Ok(5));
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let error = PackageTokenizer::parse(&tokenizer_json().to_string(), "tokenizer.json", 20);
    let error = error.expect_err("31 tokens do not fit 20 rows");
    assert!(matches!(error, TokenizerError::Vocabulary { id: 31, vocab_size: 20, .. }), "{error}");
}

#[test]
fn an_added_token_without_a_row_is_refused_only_when_it_is_used() {
    let mut json = tokenizer_json();
    json["added_tokens"].as_array_mut().expect("a list").push(json!({"id": 32, "content": "[PAD]",
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}));
    let tokenizer =
        PackageTokenizer::parse(&json.to_string(), "tokenizer.json", 32).expect("loads");
    assert_eq!(tokenizer.added_out_of_vocabulary(), ["[PAD]"]);
    assert!(tokenizer.encode_chat("ab").is_ok());
    let error = tokenizer.encode_chat("a[PAD]").expect_err("no row for it");
    assert!(matches!(error, TokenizerError::OutOfVocabulary { id: 32, vocab_size: 32 }), "{error}");
}

#[test]
fn a_text_beyond_the_limit_is_refused_before_it_is_encoded() {
    let tokenizer = parse(&tokenizer_json()).expect("valid");
    let error = tokenizer.encode_chat(&"a".repeat(LIMITS.prompt_bytes + 1)).expect_err("too long");
    assert_eq!(error.code(), "text_too_long");
}

#[test]
fn ids_that_no_token_has_decode_to_nothing_or_an_error() {
    let tokenizer = parse(&tokenizer_json()).expect("valid");
    assert_eq!(tokenizer.decode(&[96, u32::MAX], false).unwrap_or_default(), "");
}

proptest! {
    #[test]
    fn any_text_is_encoded_or_refused_and_never_panics(text in "\\PC{0,64}") {
        let tokenizer = parse(&tokenizer_json()).expect("valid");
        let _ = tokenizer.encode_prompt(&text);
    }

    #[test]
    fn a_damaged_tokenizer_never_panics(at in 0_usize..3_000, byte in any::<u8>()) {
        let mut text = tokenizer_json().to_string().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(text) = String::from_utf8(text)
            && let Ok(tokenizer) = PackageTokenizer::parse(&text, "tokenizer.json", 97)
        {
            let _ = tokenizer.encode_prompt("abc </s> .");
        }
    }
}

/// A tokenizer that merges, has bytes of several kinds, and a merge in each notation.
fn merging() -> Value {
    let mut json = tokenizer_json();
    for (token, id) in [("ab", 60), ("abab", 61), ("é", 62)] {
        json["model"]["vocab"][token] = json!(id);
    }
    json["model"]["merges"] = json!([["a", "b"], ["ab", "ab"]]);
    json["normalizer"] = json!({"type": "NFC"});
    json
}

#[test]
fn a_compact_tokenizer_is_the_same_tokenizer() {
    let mut legacy = merging();
    legacy["model"]["merges"] = json!(["a b", "ab ab"]);
    let starter = crate::starter::files().read_text("weights/tokenizer.json", 1 << 20);
    let starter: Value =
        serde_json::from_str(&starter.expect("reads").expect("is there")).expect("is JSON");
    for json in [tokenizer_json(), merging(), legacy, starter] {
        let text = json.to_string();
        let bytes = compact::encode(&text).expect("is a byte-pair tokenizer");
        let original = PackageTokenizer::parse(&text, "t", 50_000).expect("valid");
        let same = PackageTokenizer::decode_compact(&bytes, "t", 50_000).expect("valid");
        let shown = |one: &PackageTokenizer| one.shared().to_string(false).expect("is shown");
        assert_eq!(shown(&same), shown(&original));
        for prompt in ["abababab", "<s>Hello, world! 12345</s> é\n\n", ""] {
            let encode =
                |one: &PackageTokenizer| one.encode_prompt(prompt).map_err(|e| e.to_string());
            assert_eq!(encode(&same), encode(&original), "{prompt:?}");
        }
    }
}

#[test]
fn what_has_no_compact_form_keeps_its_own() {
    let mut words = tokenizer_json();
    words["model"] = json!({"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"});
    let mut dangling = merging();
    dangling["model"]["merges"] = json!([["a", "missing"]]);
    for json in [words.to_string(), dangling.to_string(), "{}".to_owned(), "no JSON".to_owned()] {
        assert!(compact::encode(&json).is_none(), "{json}");
    }
}

#[test]
fn compact_bytes_of_no_tokenizer_are_an_error() {
    let whole = compact::encode(&merging().to_string()).expect("is a byte-pair tokenizer");
    for length in (0..whole.len()).step_by(7) {
        assert!(PackageTokenizer::decode_compact(&whole[..length], "t", 97).is_err(), "{length}");
    }
}
