//! Files that are damaged or made to do harm.

use super::*;

/// Places in [`tiny_file`] that tests overwrite.
const VERSION: usize = 4;
const NUM_TENSORS: usize = 8;
const NUM_KEYS: usize = 16;
const FIRST_KEY: usize = 24;

fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).rposition(|window| window == needle).expect("is there")
}

/// `bytes` with `with` written at `at`.
fn patch(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn the_file_that_is_damaged_below_is_right() {
    let header = read(&tiny_file());
    let (a, b) = (&header.tensors["a"], &header.tensors["b"]);
    assert_eq!((a.shape.as_slice(), a.kind.name()), (&[2, 2][..], "F32"));
    assert_eq!((b.shape.as_slice(), b.kind.name(), b.end - b.begin), (&[32][..], "Q8_0", 34));
    assert_eq!(tiny_file()[b.begin..b.end], [2; 34]);
}

#[test]
fn each_kind_of_damage_is_refused_in_its_own_words() {
    let whole = tiny_file();
    let key_type = FIRST_KEY + 8 + "general.architecture".len();
    let list = find(&whole, b"list") + 4;
    // A tensor: length and name (9), rank (4), sizes (16), type (4), offset (8).
    let a = find(&whole, b"\x01\0\0\0\0\0\0\0a\x02\0\0\0") + 9;
    let b = find(&whole, b"\x01\0\0\0\0\0\0\0b\x01\0\0\0") + 9;
    let huge = u64::MAX.to_le_bytes();
    let u64 = |value: u64| value.to_le_bytes();
    let u32 = |value: u32| value.to_le_bytes();
    let cases: &[(&str, usize, &[u8])] = &[
        ("does not start with `GGUF`", 0, b"GGML"),
        ("version is not supported: 1", VERSION, &u32(1)),
        ("version is not supported: 4", VERSION, &u32(4)),
        ("big-endian", VERSION, &3u32.to_be_bytes()),
        ("tensors, 65536 are allowed", NUM_TENSORS, &huge),
        ("keys, 65536 are allowed", NUM_KEYS, &u64(65_537)),
        ("a key has 18446744073709551615 bytes", FIRST_KEY, &huge),
        ("a key is not UTF-8", FIRST_KEY + 8, &[0xff]),
        ("value of unknown type 13", key_type, &u32(13)),
        ("`general.architecture` has", key_type + 4, &huge),
        ("value of unknown type 77", list + 4, &u32(77)),
        ("elements in `list`, 4194304 are allowed", list + 8, &u64(4_194_305)),
        ("it has 0 dimensions", a, &u32(0)),
        ("it has 5 dimensions", a, &u32(5)),
        ("its shape cannot exist", a + 4, &u64(0)),
        ("its shape cannot exist", a + 4, &u64(1 << 62)),
        ("its shape cannot exist", a + 12, &huge),
        ("its type is unknown: 4", a + 20, &u32(4)),
        ("its type is unknown: 4294967295", a + 20, &u32(u32::MAX)),
        ("its offset is no multiple of 32: 1", a + 24, &u64(1)),
        ("its offset is out of range", a + 24, &u64(!31)),
        ("truncated", a + 24, &u64(1 << 40)),
        ("truncated", a + 4, &u64(4096)),
        ("overlaps", b + 16, &u64(0)),
        ("a row of 33 is no whole blocks of Q8_0", b + 4, &u64(33)),
        ("is there twice", b - 1, b"a"),
    ];
    for &(expected, at, with) in cases {
        let error = refuse(&patch(&whole, at, with));
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(error.hint().is_some() && error.to_string().ends_with(FILE), "{error}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = tiny_file();
    for length in 0..whole.len() {
        let error = refuse(&whole[..length]);
        assert_eq!(error.code(), "weights_truncated", "{length}: {error}");
    }
}

#[test]
fn alignment_is_a_power_of_two_within_reason() {
    for alignment in [64, 1, 4096] {
        let mut writer = Writer::aligned(alignment);
        writer.blocks("a", 0, &[3], vec![1; 12]);
        writer.blocks("b", 0, &[3], vec![2; 12]);
        let bytes = writer.finish();
        let header = read(&bytes);
        assert_eq!(bytes[header.tensors["b"].begin..header.tensors["b"].end], [2; 12]);
    }
    for alignment in [0, 3, 48, 1 << 21, u32::MAX] {
        let mut writer = Writer::default();
        writer.uint("general.alignment", alignment);
        let error = refuse(&writer.finish()).to_string();
        assert!(error.contains("general.alignment is not possible"), "{error}");
    }
    let mut writer = Writer::default();
    writer.text("general.alignment", "32");
    assert!(refuse(&writer.finish()).to_string().contains("is not a number"));
}

#[test]
fn keys_are_unique_and_arrays_are_not_bottomless() {
    let mut writer = Writer::default();
    writer.uint("a", 1);
    writer.uint("a", 2);
    assert!(refuse(&writer.finish()).to_string().contains("`a` is there twice"));
    // Arrays of one array each, a hundred thousand deep.
    let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let mut writer = Writer::default();
    writer.raw("deep", 9, &level.repeat(100_000));
    assert!(refuse(&writer.finish()).to_string().contains("nests arrays"));
    let mut writer = Writer::default();
    writer.raw("bool", 7, &[2]);
    assert!(refuse(&writer.finish()).to_string().contains("bool of value 2"));
}

#[test]
fn the_elements_of_all_arrays_together_are_bounded() {
    let half = LIMITS.gguf_elements / 2 + 1;
    let list = [&0u32.to_le_bytes()[..], &(half as u64).to_le_bytes(), &vec![0; half]].concat();
    let mut writer = Writer::default();
    writer.raw("a", 9, &list);
    assert_eq!(read(&writer.finish()).metadata.len(), 1);
    writer.raw("b", 9, &list);
    assert!(refuse(&writer.finish()).to_string().contains("elements in `b`"));
}

#[test]
fn parts_of_a_model_are_refused() {
    let mut writer = Writer::default();
    writer.raw("split.count", 2, &2u16.to_le_bytes());
    assert_eq!(refuse(&writer.finish()).code(), "gguf_split_not_supported");
}

proptest! {
    /// Whatever a file says, it is read or refused, and what was read can be loaded or is refused.
    #[test]
    fn no_damage_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = models::llama_file();
        let header = bytes.len().min(2600);
        for (at, byte) in changes {
            bytes[at.index(header)] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(8));
        let (_dir, gguf) = open(&bytes);
        if let Ok(gguf) = gguf {
            let _ = (config_json(&gguf), texts(&gguf), tokenizer_json(&gguf));
            if let Ok(source) = GgufSource::new(Arc::new(gguf), silent()) {
                for tensor in tiny_llama().tensors().expect("valid") {
                    let _ = (source.load(&tensor.name), source.check_dtype(&tensor.name));
                }
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let start = b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0";
        let _ = (parse(FILE, &bytes), parse(FILE, &[&start[..], &bytes].concat()));
    }
}
