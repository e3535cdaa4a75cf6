//! Input that is made to hurt ends quickly in a clear error.
use pinion_cog_compat::Manifest;
use pinion_cog_compat::manifest::{MAX_FILE_BYTES, strict};
use proptest::prelude::*;

/// The message of the first error.
fn refusal(text: &str) -> String {
    let faults = Manifest::parse(text).expect_err("refused");
    faults.iter().find(|fault| fault.is_error()).unwrap().message.clone()
}

#[test]
fn every_fixture_is_read_without_a_panic() {
    let mut read = 0;
    for (name, bytes) in super::fixtures("cog-yaml-edge", "yaml") {
        for end in 0..=bytes.len() {
            let cut = &bytes[..end];
            let _ = Manifest::parse_bytes(cut);
            let _ = strict::check(&String::from_utf8_lossy(cut), &|_| Some(String::new()));
        }
        assert!(!name.is_empty());
        read += 1;
    }
    assert_eq!(read, 28);
}

#[test]
fn a_file_over_the_limit_is_refused_unread() {
    let text = format!("run: a.py:R # {}", "x".repeat(MAX_FILE_BYTES));
    assert!(refusal(&text).starts_with("file too large"));
}

#[test]
fn aliases_cannot_multiply_without_bound() {
    let level = |level: usize| {
        format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10))
    };
    let levels: Vec<String> = (1..30).map(level).collect();
    let text = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}", levels.concat());
    assert!(refusal(&text).starts_with("too large once aliases are expanded"));
}

#[test]
fn an_alias_of_a_long_text_counts_with_its_length() {
    let aliases = "*long, ".repeat(1000);
    let text = format!("long: &long {}\nlist: [{aliases}]\n", "x".repeat(100_000));
    assert!(refusal(&text).starts_with("too large once aliases are expanded"));
}

#[test]
fn merge_keys_cannot_multiply_without_bound() {
    let level = |level: usize| {
        let previous = level - 1;
        format!("m{level}: &m{level} {{x: {{<<: *m{previous}}}, y: {{<<: *m{previous}}}}}\n")
    };
    let levels: Vec<String> = (1..40).map(level).collect();
    let text = format!("m0: &m0 {{a: {{b: c}}, d: {{e: f}}, g: {{h: i}}}}\n{}", levels.concat());
    assert!(refusal(&text).starts_with("too large once aliases are expanded"));
}

#[test]
fn an_alias_of_the_value_around_it_is_refused() {
    assert!(refusal("build: &b\n  run: [*b]\n").contains("contains it"));
}

#[test]
fn an_unknown_alias_is_one_fault_among_others() {
    let faults = Manifest::parse("run: *nowhere\npinion: {dtype: f99}\n").unwrap_err();
    let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    assert_eq!(messages, ["unknown anchor: *nowhere", "unknown value: f99"]);
}

#[test]
fn deep_and_long_files_of_every_shape_are_read_or_refused() {
    let pieces = [
        "[", "{", "- ", "? ", "a: ", "a:\n ", "&a ", "!a ", "\"", "'", "|\n", "#\n", "---\n",
        "%A\n", "*a ", "\t", ",",
    ];
    for piece in pieces {
        let _ = Manifest::parse(&piece.repeat(200_000 / piece.len()));
    }
    let keys: Vec<String> = (0..60_000).map(|key| format!("k{key}:\n")).collect();
    assert!(refusal(&keys.concat()).starts_with("too large"));
    let weight = |i| format!("- {{name: w{i}, target: /w{i}, source: {{uri: x}}}}\n");
    let weights: Vec<String> = (0..5_000).map(weight).collect();
    assert!(refusal(&format!("weights:\n{}", weights.concat())).starts_with("too many"));
}

#[test]
fn a_file_of_faults_is_reported_in_a_length_that_a_person_can_read() {
    let keys: Vec<String> = (0..1000).map(|key| format!("k{key}: 1\n")).collect();
    let text = format!("{}pinion: {{dtype: f99}}\n", keys.concat());
    let faults = Manifest::parse(&text).unwrap_err();
    assert_eq!(faults.len(), 201);
    assert!(faults.iter().any(|fault| fault.message == "unknown value: f99"));
    assert_eq!(faults[200].message, "findings left out: 801");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let faults = Manifest::parse_bytes(b"run: a.py:R\nmodel: \xff\n").unwrap_err();
    assert_eq!((faults[0].line, faults[0].column, faults[0].message.as_str()), (2, 8, "not UTF-8"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Manifest::parse_bytes(&bytes);
        let _ = strict::check(&String::from_utf8_lossy(&bytes), &|_| None);
    }

    #[test]
    fn arbitrary_yaml_never_panics(parts in proptest::collection::vec(prop::sample::select(PARTS), 0..60)) {
        let text = parts.concat();
        let _ = Manifest::parse(&text);
        let _ = strict::check(&text, &|_| Some("torch\n".to_owned()));
    }

    #[test]
    fn every_fault_has_a_place_in_the_file(parts in proptest::collection::vec(prop::sample::select(PARTS), 0..40)) {
        let text = parts.concat();
        let lines = text.lines().count() + 1;
        for fault in Manifest::parse(&text).err().unwrap_or_default() {
            prop_assert!((1..=lines).contains(&fault.line) && fault.column >= 1, "{fault} in {text:?}");
        }
    }
}

const PARTS: &[&str] = &[
    "\n",
    "\n  ",
    "\n    ",
    " ",
    "- ",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "---\n",
    "...\n",
    "run",
    "predict",
    "build:",
    "build",
    "gpu: yes",
    "python_version: 3.10",
    "weights:",
    "name: a",
    "target: /b",
    "source: {uri: x}",
    "pinion:",
    "dtype: q4_k",
    "inputs: ",
    "price: {input: 1.5}",
    "concurrency: 4",
    "environment: [A=1]",
    "null",
    "true",
    "1_0",
    "0x",
    "-",
    "é",
    "\u{feff}",
    "\u{0}",
    "\t",
    "~",
    "adapters: [{name: a, source: b}]",
    "observability:",
    "traces:",
];
