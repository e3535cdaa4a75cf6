//! Checkpoints: good ones, and every way in which one can be wrong.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use parking_lot::Mutex;
use pinion_models::TensorSource;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::header::{Header, parse_header};
use super::index::parse_index;
use super::*;
use crate::files::PackageFiles;
use crate::limits::LIMITS;
use crate::progress::{Progress, silent};
use crate::testing::{tensors, write, write_shards};

const FILE: &str = "model.safetensors";

/// A file with this header and so many bytes of data.
fn file(header: &Value, data: usize) -> Vec<u8> {
    raw_file(&header.to_string(), data)
}

fn raw_file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn tensor(dtype: &str, shape: &Value, offsets: [u64; 2]) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": offsets})
}

fn refuse(bytes: &[u8]) -> WeightsError {
    parse_header(FILE, bytes).expect_err("the file is wrong")
}

fn open(dir: &TempDir) -> Result<SafetensorsSource, WeightsError> {
    let files = PackageFiles::directory(dir.path())?;
    SafetensorsSource::open(&files, &find(&files, "w")?, silent())
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).expect("a number").flatten_all().expect("flat");
    tensor.to_vec1().expect("f32")
}

fn assert_whole(source: &SafetensorsSource) {
    let tensors = tensors();
    assert_eq!(source.names().len(), tensors.len());
    for (name, tensor) in tensors {
        let loaded = source.load(&name).expect("loads").expect("is there");
        assert_eq!(loaded.dims(), tensor.dims(), "{name}");
        assert_eq!(floats(&loaded), floats(&tensor), "{name}");
    }
    assert!(source.load("no such tensor").expect("no error").is_none());
}

#[test]
fn a_single_file_gives_back_every_tensor() {
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "w/x", "");
    candle_core::safetensors::save(&tensors(), dir.path().join("w/model.safetensors"))
        .expect("saves");
    assert_whole(&open(&dir).expect("opens"));
}

/// Bytes of a mapped file that are in the memory of this process.
#[cfg(target_os = "linux")]
fn resident(path: &std::path::Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("it can be read");
    let path = path.to_str().expect("it is text");
    let lines = maps.lines().skip_while(|line| !line.ends_with(path)).skip(1);
    let rss = lines.map_while(|line| line.split_once(':')).find(|(name, _)| *name == "Rss");
    let kilobytes = rss.and_then(|(_, value)| value.trim().strip_suffix(" kB")).expect("in kB");
    kilobytes.parse::<usize>().expect("a number") << 10
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_read_is_not_kept_in_memory() {
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "w/x", "");
    let path = dir.path().join("w/model.safetensors");
    let header = json!({"a": tensor("F32", &json!([1 << 20]), [0, 1 << 22])});
    std::fs::write(&path, file(&header, 1 << 22)).expect("writes");
    let source = open(&dir).expect("opens");
    assert_eq!(source.load("a").expect("loads").expect("is there").elem_count(), 1 << 20);
    let resident = resident(&path);
    assert!(resident < 1 << 18, "{resident}");
}

#[test]
fn shards_give_back_every_tensor() {
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "w/x", "");
    write_shards(dir.path(), "w");
    assert_whole(&open(&dir).expect("opens"));
}

#[test]
fn half_precision_keeps_its_type_and_an_unused_integer_does_no_harm() {
    let dir = TempDir::new().expect("a directory");
    let header = json!({
        "a": tensor("BF16", &json!([2]), [0, 4]), "b": tensor("F16", &json!([1, 1]), [4, 6]),
        "ids": tensor("I64", &json!([1]), [6, 14]), "none": tensor("F32", &json!([0, 5]), [14, 14]),
        "__metadata__": {"format": "pt"}});
    write(dir.path(), "w/model.safetensors", file(&header, 14));
    let source = open(&dir).expect("opens");
    assert_eq!(source.load("a").expect("loads").expect("there").dtype(), DType::BF16);
    assert_eq!(source.load("b").expect("loads").expect("there").dtype(), DType::F16);
    assert_eq!(source.load("none").expect("loads").expect("there").dims(), [0, 5]);
    assert_eq!((source.num_parameters(), source.total_bytes()), (4, 14));
    let error = source.load("ids").expect_err("an integer is no weight").to_string();
    assert!(
        error.contains("`ids`") && error.contains("I64") && error.contains("w/model"),
        "{error}"
    );
    assert!(matches!(source.check_dtype("ids"), Err(WeightsError::Dtype { .. })));
    assert!(source.check_dtype("a").is_ok());
}

#[test]
fn progress_counts_every_byte_once() {
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "w/x", "");
    write_shards(dir.path(), "w");
    let files = PackageFiles::directory(dir.path()).expect("opens");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress = Arc::new(move |step| sink.lock().push(step));
    let source = SafetensorsSource::open(&files, &find(&files, "w").expect("finds"), progress)
        .expect("opens");
    for name in source.names() {
        source.load(name).expect("loads");
    }
    let bytes: u64 = tensors().values().map(|t| 4 * t.elem_count() as u64).sum();
    assert_eq!(seen.lock().last(), Some(&Progress::Weights { done: bytes, total: bytes }));
    assert_eq!(seen.lock().len(), tensors().len());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let header =
        json!({"a": tensor("F32", &json!([2]), [0, 8]), "b": tensor("F32", &json!([1]), [8, 12])});
    let whole = file(&header, 12);
    assert_eq!(parse_header(FILE, &whole).expect("is whole").len(), 2);
    for length in 0..whole.len() {
        let error = refuse(&whole[..length]);
        assert!(
            matches!(error, WeightsError::Truncated { size, .. } if size == length as u64),
            "{length}: {error}"
        );
    }
    let mut longer = whole;
    longer.push(0);
    assert!(matches!(refuse(&longer), WeightsError::Header { .. }));
}

#[test]
fn a_header_longer_than_any_real_one_is_refused_before_it_is_read() {
    for length in [LIMITS.header_bytes + 1, u64::MAX, u64::MAX - 7, 1 << 63] {
        let error = refuse(&length.to_le_bytes());
        assert!(
            matches!(error, WeightsError::HeaderTooLarge { size, .. } if size == length),
            "{error}"
        );
    }
}

#[test]
fn half_a_million_empty_tensors_are_refused() {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let header = |count: usize| {
        let entries: Vec<String> = (0..count).map(|at| format!("\"{at}\":{entry}")).collect();
        raw_file(&format!("{{{}}}", entries.join(",")), 0)
    };
    assert!(matches!(refuse(&header(500_000)), WeightsError::HeaderTooLarge { .. }));
    let error = refuse(&header(LIMITS.tensors + 1));
    assert!(error.to_string().contains("more than 65536 tensors"), "{error}");
    assert_eq!(
        parse_header(FILE, &header(LIMITS.tensors)).expect("just fits").len(),
        LIMITS.tensors
    );
}

#[test]
fn headers_that_are_none_are_refused() {
    for header in [
        "",
        "[]",
        "1",
        "{",
        "{}x",
        " {}",
        "{\"a\":1}",
        "{\"a\":{\"dtype\":\"F32\"}}",
        "\u{0}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,0]}}",
    ] {
        let error = refuse(&raw_file(header, 0));
        assert!(matches!(error, WeightsError::Header { .. }), "{header:?}: {error}");
    }
    let mut not_utf8 = raw_file("{\"a\"}", 0);
    not_utf8[10] = 0xff;
    assert!(refuse(&not_utf8).to_string().contains("not UTF-8 at byte 2"));
    let deep = format!("{{\"__metadata__\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(
        parse_header(FILE, &raw_file(&deep, 0)).is_ok()
            || refuse(&raw_file(&deep, 0)).code() == "weights_header_invalid"
    );
}

#[test]
fn a_tensor_given_twice_is_refused() {
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let error = refuse(&raw_file(&format!("{{\"a\":{entry},\"a\":{entry}}}"), 4));
    assert!(error.to_string().contains("`a` is there twice"), "{error}");
}

#[test]
fn tensors_that_cannot_be_are_refused_by_name() {
    let huge = 1_u64 << 62;
    let cases = [
        ("needs 8 bytes", tensor("F32", &json!([2]), [0, 4])),
        ("ends before it begins", tensor("F32", &json!([1]), [4, 0])),
        ("cannot exist", tensor("F32", &json!([huge, huge]), [0, 4])),
        ("cannot exist", tensor("F32", &json!([huge, huge, 0]), [0, 0])),
        ("cannot exist", tensor("F32", &json!([0, huge, huge]), [0, 0])),
        ("cannot exist", tensor("F32", &json!([(1_u64 << 59) + 1, 32]), [0, 128])),
        ("cannot exist", tensor("F4", &json!([1]), [0, 1])),
        ("dtype is unknown", tensor("Q8", &json!([1]), [0, 4])),
        ("9 dimensions", tensor("F32", &json!([1, 1, 1, 1, 1, 1, 1, 1, 1]), [0, 4])),
        ("overlaps", tensor("F32", &json!([1]), [2, 6])),
        ("leaves a gap", tensor("F32", &json!([1]), [8, 12])),
        ("out of range", tensor("U8", &json!([1]), [u64::MAX - 1, u64::MAX])),
    ];
    for (expected, entry) in cases {
        let header = json!({"wrong": entry, "zzz": tensor("F32", &json!([1]), [0, 4])});
        let error = refuse(&file(&header, 12));
        assert!(matches!(&error, WeightsError::Tensor { .. }), "{expected}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.ends_with(FILE), "{expected}: {text}");
    }
}

#[test]
fn a_tensor_beyond_the_end_of_the_file_is_never_read() {
    let header = json!({"a": tensor("F32", &json!([1 << 30]), [0, 1_u64 << 32])});
    let error = refuse(&file(&header, 16));
    assert!(matches!(error, WeightsError::Truncated { .. }), "{error}");
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let index = |file: &str| json!({"weight_map": {"a": file}}).to_string();
    for (file, reason) in [
        ("../x.safetensors", "`..`"),
        ("/etc/x.safetensors", "absolute"),
        ("a/../../x.safetensors", "`..`"),
        ("", "empty"),
        ("x.bin", "not .safetensors"),
        ("/dev/zero", "absolute"),
        ("x\u{0}.safetensors", "NUL"),
    ] {
        let error = parse_index("i.json", "w", &index(file)).expect_err(file);
        assert!(matches!(error, WeightsError::Index { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{file:?}: {error}");
    }
    let shards = parse_index("i.json", "w", &index("a/./b.safetensors")).expect("inside");
    assert_eq!(shards.keys().collect::<Vec<_>>(), ["w/a/b.safetensors"]);
}

#[test]
fn an_index_is_bounded_and_has_each_tensor_once() {
    let twice = r#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#;
    let many: Vec<String> =
        (0..=LIMITS.shards).map(|at| format!("\"{at}\":\"{at}.safetensors\"")).collect();
    let many = format!("{{\"weight_map\":{{{}}}}}", many.join(","));
    let endless: Vec<String> =
        (0..=LIMITS.tensors).map(|at| format!("\"{at}\":\"x.safetensors\"")).collect();
    let endless = format!("{{\"weight_map\":{{{}}}}}", endless.join(","));
    let cases = [
        (twice, "there twice"),
        (many.as_str(), "more than 1024 files"),
        (endless.as_str(), "more than 65536"),
        ("{}", "weight_map"),
        (r#"{"weight_map": {}}"#, "empty"),
        (r#"{"weight_map": {"a": 1}}"#, "string"),
    ];
    for (text, expected) in cases {
        let error = parse_index("i.json", "w", text).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn an_index_that_lies_about_its_shards_is_found_out() {
    let dir = TempDir::new().expect("a directory");
    let map = |file: &str| json!({"weight_map": {"b": file}}).to_string();
    write(dir.path(), "w/model.safetensors.index.json", map("1.safetensors"));
    let error = open(&dir).expect_err("no such shard");
    assert!(
        matches!(&error, WeightsError::ShardMissing { tensor, .. } if tensor == "b"),
        "{error}"
    );
    write(
        dir.path(),
        "w/1.safetensors",
        file(&json!({"a": tensor("F32", &json!([1]), [0, 4])}), 4),
    );
    let error = open(&dir).expect_err("another tensor");
    assert!(matches!(&error, WeightsError::NotInShard { tensor, .. } if tensor == "b"), "{error}");
    std::fs::remove_file(dir.path().join("w/1.safetensors")).expect("removes");
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("w/1.safetensors")).expect("links");
    assert_eq!(open(&dir).expect_err("leads out").code(), "path_escapes_package");
    std::fs::remove_file(dir.path().join("w/1.safetensors")).expect("removes");
    std::fs::create_dir(dir.path().join("w/1.safetensors")).expect("makes");
    assert_eq!(open(&dir).expect_err("a directory").code(), "not_a_regular_file");
}

#[test]
fn what_is_there_instead_of_safetensors_is_named() {
    let code = |files: &[&str]| {
        let dir = TempDir::new().expect("a directory");
        write(dir.path(), "w/config.json", "{}");
        files.iter().for_each(|file| write(dir.path(), &format!("w/{file}"), "x"));
        let files = PackageFiles::directory(dir.path()).expect("opens");
        let error = find(&files, "w").expect_err("no safetensors");
        assert!(error.hint().is_some());
        error.code()
    };
    assert_eq!(code(&[]), "weights_missing");
    assert_eq!(code(&["pytorch_model.bin"]), "weights_are_pickle");
    assert_eq!(code(&["model.PT"]), "weights_are_pickle");
    assert_eq!(code(&["a.gguf", "b.gguf", "pytorch_model.bin"]), "gguf_not_named");
    assert_eq!(code(&["a.safetensors", "b.safetensors"]), "weight_index_missing");
}

#[test]
fn the_type_of_the_matrices_is_known_without_reading_them() {
    let source = |dtype: &str| {
        let dir = TempDir::new().expect("a directory");
        let header = json!({"m": tensor(dtype, &json!([1, 2]), [0, 4]), "n": tensor("F32", &json!([1]), [4, 8])});
        write(dir.path(), "w/model.safetensors", file(&header, 8));
        open(&dir).expect("opens").own_type()
    };
    assert_eq!((source("BF16"), source("F16")), ("bf16".to_owned(), "f32".to_owned()));
}

fn assert_sound(header: &Header, size: usize) {
    for entry in header.values() {
        assert!(entry.begin <= entry.end && entry.end <= size);
        assert!(entry.shape.iter().try_fold(1_usize, |p, &d| p.checked_mul(d)).is_some());
    }
}

fn dimension() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..4, Just(u64::MAX), Just(1 << 32), Just(1 << 62), any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_a_sound_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        if let Ok(header) = parse_header(FILE, &bytes) {
            assert_sound(&header, bytes.len());
        }
    }

    #[test]
    fn any_header_text_is_sound_or_an_error(text in "\\{(\"[a-c]\":\\{\"dtype\":\"(F32|U8|F4)\",\"shape\":\\[[0-9,]{0,6}\\],\"data_offsets\":\\[[0-9]{1,2},[0-9]{1,2}\\]\\},?){0,3}\\}", data in 0_usize..40) {
        let bytes = raw_file(&text, data);
        if let Ok(header) = parse_header(FILE, &bytes) {
            assert_sound(&header, bytes.len());
        }
    }

    #[test]
    fn any_shape_and_offsets_are_sound_or_an_error(
        shape in proptest::collection::vec(dimension(), 0..5), begin in dimension(), end in dimension(), data in 0_usize..64,
    ) {
        let header = json!({"a": tensor("F32", &json!(shape), [begin, end])});
        let bytes = file(&header, data);
        if let Ok(header) = parse_header(FILE, &bytes) {
            assert_sound(&header, bytes.len());
            let entry = &header["a"];
            let data = &bytes[entry.begin..entry.end];
            Tensor::from_raw_buffer(data, DType::F32, &entry.shape, &Device::Cpu).expect("candle agrees");
        }
    }

    #[test]
    fn any_index_text_is_shards_inside_the_directory_or_an_error(text in "(\\{\"weight_map\":\\{(\"[ab]\":\"[a./\\\\]{0,6}(.safetensors)?\",?){0,3}\\}\\}|\\PC{0,40})") {
        if let Ok(shards) = parse_index("i.json", "w", &text) {
            for file in shards.keys() {
                assert!(file.starts_with("w/") && !file.split('/').any(|part| part == ".."), "{file}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_sound_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let header = json!({"a": tensor("F32", &json!([2]), [0, 8]), "b": tensor("BF16", &json!([1, 2]), [8, 12])});
        let mut bytes = file(&header, 12);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(header) = parse_header(FILE, &bytes) {
            assert_sound(&header, bytes.len());
        }
    }
}
