//! Tests of `detokenizer`.

use std::sync::Arc;

use proptest::prelude::*;
use tokenizers::Tokenizer;

use super::stop::StopMatcher;
use super::{Delta, Detokenizer, DetokenizerOptions};

/// Tokens of more than one byte: words, whole emoji, and emoji cut in the middle.
const PIECES: [&[u8]; 14] = [
    b"he",
    b"llo",
    b" wor",
    b"ld",
    b"END",
    b"ab",
    b"\xf0\x9f",
    b"\x98\x80",
    "🦀".as_bytes(),
    b"x\xf0",
    b"\x9f\x98\x80y\xe2",
    b"\x82\xac",
    "é".as_bytes(),
    "\u{fffd}".as_bytes(),
];
const END_OF_TEXT: u32 = 256 + PIECES.len() as u32;

/// A byte-level BPE vocabulary: token `b` is byte `b`, then come `PIECES`, then a special token.
fn byte_level() -> Arc<Tokenizer> {
    let bytes = (0..=255u8).map(|byte| vec![byte]);
    let tokens = bytes.chain(PIECES.iter().map(|piece| piece.to_vec()));
    let tokens = tokens.map(|bytes| bytes.iter().map(|&byte| printable(byte)).collect::<String>());
    let decoder = r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false}"#;
    tokenizer(tokens.chain(["<|end|>".to_owned()]), decoder, END_OF_TEXT)
}

/// GPT-2's printable stand-ins for bytes.
fn printable(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if is_printable(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|&other| !is_printable(other)).count();
    char::from_u32(256 + index as u32).unwrap()
}

/// As `SentencePiece` does it: `▁` for spaces, the first one left out, bytes as `<0x..>`.
fn byte_fallback() -> Arc<Tokenizer> {
    let words = ["▁hello", "▁world", "▁", "a", ",", "叫"].map(str::to_owned);
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let decoder = r#"{"type":"Sequence","decoders":[
        {"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},
        {"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    tokenizer(bytes.chain(words).chain(["</s>".to_owned()]), decoder, 262)
}

fn tokenizer(tokens: impl Iterator<Item = String>, decoder: &str, special: u32) -> Arc<Tokenizer> {
    let tokens: Vec<String> = tokens.collect();
    let entries = tokens.iter().enumerate().map(|(id, token)| {
        let escaped = token.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\":{id}")
    });
    let vocab = entries.collect::<Vec<_>>().join(",");
    let content = &tokens[special as usize];
    let json = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"normalizer":null,"pre_tokenizer":null,
        "post_processor":null,"added_tokens":[{{"id":{special},"content":"{content}","single_word":
        false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}],"decoder":{decoder},
        "model":{{"type":"BPE","vocab":{{{vocab}}},"merges":[]}}}}"#
    );
    Arc::new(json.parse().unwrap())
}

fn options(stop: &[&str]) -> DetokenizerOptions {
    DetokenizerOptions {
        stop: stop.iter().map(|&text| text.to_owned()).collect(),
        include_stop: false,
        min_tokens: 0,
        skip_special_tokens: true,
    }
}

fn start(tokenizer: &Arc<Tokenizer>, options: DetokenizerOptions) -> Detokenizer {
    Detokenizer::new(tokenizer.clone(), &[], options).unwrap()
}

/// Pushes everything; the deltas, the last one from `finish`.
fn deltas(mut detokenizer: Detokenizer, ids: &[u32]) -> Vec<Delta> {
    let mut deltas: Vec<Delta> = ids.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
    deltas.push(detokenizer.finish().unwrap());
    deltas
}

fn texts(detokenizer: Detokenizer, ids: &[u32]) -> Vec<String> {
    deltas(detokenizer, ids).into_iter().map(|delta| delta.text).collect()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn a_character_comes_when_its_last_byte_is_there() {
    let tokenizer = byte_level();
    let ids: Vec<u32> = bytes("a€😀b");
    let texts = texts(start(&tokenizer, options(&[])), &ids);
    assert_eq!(texts, ["a", "", "", "€", "", "", "", "😀", "b", ""]);
}

#[test]
fn bytes_that_never_become_a_character_come_out_as_replacements() {
    let tokenizer = byte_level();
    let run = |ids: &[u32]| texts(start(&tokenizer, options(&[])), ids);
    assert_eq!(run(&[0xf0, 0x9f, 0x98]), ["", "", "", "\u{fffd}"]);
    assert_eq!(run(&[0xe2, u32::from(b'a')]), ["", "\u{fffd}a", ""]);
    let long = run(&[0xff; 500]);
    assert_eq!(long.concat(), "\u{fffd}".repeat(500));
    assert!(long.iter().all(|text| text.len() <= 9), "nothing is kept for long: {long:?}");
}

#[test]
fn special_tokens_are_left_out_or_kept() {
    let tokenizer = byte_level();
    let ids = [256, END_OF_TEXT, 257, END_OF_TEXT];
    assert_eq!(texts(start(&tokenizer, options(&[])), &ids).concat(), "hello");
    let kept = DetokenizerOptions { skip_special_tokens: false, ..options(&[]) };
    assert_eq!(texts(start(&tokenizer, kept), &ids).concat(), "he<|end|>llo<|end|>");
}

#[test]
fn a_space_between_words_is_kept_and_one_at_the_start_depends_on_the_context() {
    let tokenizer = byte_fallback();
    let (hello, world, space, special) = (256, 257, 258, 262);
    let run = |context: &[u32], ids: &[u32]| {
        let start = Detokenizer::new(tokenizer.clone(), context, options(&[])).unwrap();
        texts(start, ids).concat()
    };
    assert_eq!(run(&[], &[hello, world]), "hello world");
    assert_eq!(run(&[hello], &[world]), " world");
    assert_eq!(run(&[], &[space, world]), " world");
    assert_eq!(run(&[], &[hello, special, special, world]), "hello world");
    let many = [vec![hello], vec![special; 300], vec![world]].concat();
    assert_eq!(run(&[], &many), "hello world");
}

#[test]
fn byte_fallback_waits_for_the_rest_of_a_character() {
    let tokenizer = byte_fallback();
    let run = |ids: &[u32]| texts(start(&tokenizer, options(&[])), ids);
    let twice = [bytes("叫"), bytes("叫")].concat();
    assert_eq!(run(&twice), ["", "", "叫", "", "", "叫", ""]);
    // The decoder gives up on the whole run of bytes; what was given out stays.
    let broken = [bytes("叫"), vec![0xff, 259]].concat();
    assert_eq!(run(&broken), ["", "", "叫", "", "\u{fffd}a", ""]);
    let endless = [bytes("叫"), vec![0xff; 200]].concat();
    let out = run(&endless);
    assert!(out.concat().starts_with("叫\u{fffd}"));
    assert!(150 < out.concat().chars().count());
}

#[test]
fn a_stop_string_is_cut_off_wherever_tokens_part_it() {
    let tokenizer = byte_level();
    let end = 256 + 4;
    for ids in [
        [bytes("one "), vec![end], bytes("more")].concat(),
        bytes("one END more"),
        [bytes("one EN"), bytes("D"), vec![257]].concat(),
    ] {
        let deltas = deltas(start(&tokenizer, options(&["nope", "END"])), &ids);
        let text: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
        assert_eq!(text, "one ");
        assert_eq!(deltas.iter().filter_map(|delta| delta.stop).collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn the_stop_string_can_be_part_of_the_output() {
    let tokenizer = byte_level();
    let options = DetokenizerOptions { include_stop: true, ..options(&["END"]) };
    assert_eq!(texts(start(&tokenizer, options), &bytes("one END more")).concat(), "one END");
}

#[test]
fn what_only_looks_like_a_stop_string_comes_late_and_complete() {
    let tokenizer = byte_level();
    let texts = texts(start(&tokenizer, options(&["abab!"])), &bytes("xababab-ab"));
    assert_eq!(texts, ["x", "", "", "", "", "ab", "", "abab-", "", "", "ab"]);
}

#[test]
fn the_stop_string_that_is_complete_first_counts_and_of_two_the_longer() {
    let tokenizer = byte_level();
    let run = |stop: &[&str], text: &str| {
        let deltas = deltas(start(&tokenizer, options(stop)), &bytes(text));
        let index = deltas.iter().find_map(|delta| delta.stop);
        (deltas.into_iter().map(|delta| delta.text).collect::<String>(), index)
    };
    assert_eq!(run(&["abcd", "bc"], "xabcd"), ("xa".into(), Some(1)));
    assert_eq!(run(&["c", "abc"], "xabcd"), ("x".into(), Some(1)));
    assert_eq!(run(&["", "€"], "1€"), ("1".into(), Some(1)));
    assert_eq!(run(&[""], "abc"), ("abc".into(), None));
}

#[test]
fn the_pieces_in_which_text_comes_make_no_difference_to_stop_strings() {
    for pieces in [&["xabcdef"][..], &["xab", "cdef"], &["x", "a", "b", "c", "d", "e", "f"]] {
        let mut matcher = StopMatcher::new(vec!["abcde".into(), "cd".into()], true);
        let deltas: Vec<Delta> = pieces.iter().map(|piece| matcher.push(piece)).collect();
        let text: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
        assert_eq!((text.as_str(), deltas.iter().find_map(|d| d.stop)), ("xabcd", Some(1)));
    }
}

#[test]
fn the_window_stays_small_whatever_comes() {
    let tokenizer = byte_level();
    let ends_in_half = 256 + 9;
    for ids in
        [vec![0xff], vec![ends_in_half], vec![END_OF_TEXT], vec![0xff, END_OF_TEXT], vec![97]]
    {
        let mut detokenizer = start(&tokenizer, options(&[]));
        let ids: Vec<u32> = ids.iter().copied().cycle().take(1000).collect();
        let mut text = String::new();
        for &id in &ids {
            text += &detokenizer.push(id).unwrap().text;
            assert!(detokenizer.window.ids.len() < 64, "{ids:?}");
        }
        text += &detokenizer.finish().unwrap().text;
        assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
    }
}

#[test]
fn stop_strings_wait_for_min_tokens() {
    let tokenizer = byte_level();
    let options = DetokenizerOptions { min_tokens: 3, ..options(&["a"]) };
    assert_eq!(texts(start(&tokenizer, options), &bytes("aabbab")).concat(), "aabb");
}

/// Decodes everything, then cuts at the stop string that is complete first.
fn naive(tokenizer: &Tokenizer, ids: &[u32], stop: &[&str]) -> (String, bool) {
    let text = tokenizer.decode(ids, true).unwrap();
    for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
        let found = stop.iter().filter(|stop| text[..end].ends_with(**stop));
        if let Some(longest) = found.map(|stop| stop.len()).max() {
            return (text[..end - longest].to_owned(), true);
        }
    }
    (text, false)
}

fn ids() -> impl Strategy<Value = Vec<u32>> {
    let any = 0..=END_OF_TEXT;
    let piece = 256..=END_OF_TEXT;
    let emoji = prop::sample::select(vec![0xf0u32, 0x9f, 0x98, 0x80]);
    prop::collection::vec(prop_oneof![1 => any, 3 => piece, 2 => emoji], 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_deltas_joined_are_the_text_decoded_at_once(ids in ids()) {
        let tokenizer = byte_level();
        let joined = texts(start(&tokenizer, options(&[])), &ids).concat();
        prop_assert_eq!(joined, tokenizer.decode(&ids, true).unwrap());
    }

    #[test]
    fn stop_strings_cut_where_a_search_of_the_whole_text_would(
        ids in prop::collection::vec(prop_oneof![256u32..270, 97u32..100], 0..60),
    ) {
        let tokenizer = byte_level();
        let stop = ["abab", "hellohello", "😀y", "c\u{fffd}", "ldE", "orldEND"];
        let deltas = deltas(start(&tokenizer, options(&stop)), &ids);
        let joined: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
        let has_stopped = deltas.iter().any(|delta| delta.stop.is_some());
        prop_assert_eq!((joined, has_stopped), naive(&tokenizer, &ids, &stop));
    }
}
