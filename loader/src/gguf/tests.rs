//! GGUF files: good ones, and every way in which one can be wrong.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use pinion_models::testing::{random_source, tiny_llama};
use pinion_models::{ModelConfig, TensorSource};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::header::{Header, parse};
use super::metadata::Metadata;
use super::names::gguf_name;
use super::value::{List, Value};
use super::*;
use crate::files::PackageFiles;
use crate::limits::LIMITS;
use crate::progress::silent;
use crate::source::{CheckpointSource, WeightsError};
use crate::testing::{config_json as tiny_config, write};
use crate::tokenizer::PackageTokenizer;
use crate::{LoadError, LoadOptions, LoadedPackage};

mod damage;
mod models;
mod vocabulary;
mod writer;

use writer::{Writer, tiny_file};

const FILE: &str = "model.gguf";

fn read(bytes: &[u8]) -> Header {
    parse(FILE, bytes).expect("the file is right")
}

fn refuse(bytes: &[u8]) -> WeightsError {
    parse(FILE, bytes).expect_err("the file is wrong")
}

/// A file in a package of its own, opened.
fn open(bytes: &[u8]) -> (TempDir, Result<Gguf, WeightsError>) {
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), FILE, bytes);
    let files = PackageFiles::directory(dir.path()).expect("opens");
    let bytes = files.open(FILE).expect("opens").expect("is there");
    (dir, Gguf::open(FILE, bytes))
}

fn load_from(root: &Path) -> Result<LoadedPackage, LoadError> {
    let files = PackageFiles::directory(root).expect("opens");
    crate::load(&files, &LoadOptions::default(), &silent())
}

#[test]
fn every_type_of_value_is_read() {
    let mut writer = Writer::default();
    writer.raw("u8", 0, &[255]);
    writer.raw("i8", 1, &[255]);
    writer.raw("u16", 2, &u16::MAX.to_le_bytes());
    writer.raw("i16", 3, &i16::MIN.to_le_bytes());
    writer.uint("u32", u32::MAX);
    writer.raw("i32", 5, &i32::MIN.to_le_bytes());
    writer.float("f32", 0.5);
    writer.bool("bool", true);
    writer.text("text", "naïve");
    writer.raw("u64", 10, &u64::MAX.to_le_bytes());
    writer.raw("i64", 11, &i64::MIN.to_le_bytes());
    writer.raw("f64", 12, &0.25f64.to_le_bytes());
    writer.texts("texts", &["a", "", "ß"]);
    writer.ints("ints", &[-1, 2]);
    // A list of one list of two bools.
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &7u32.to_le_bytes()].concat();
    writer.raw("lists", 9, &[&nested[..], &2u64.to_le_bytes(), &[0, 1]].concat());
    let metadata = read(&writer.finish()).metadata;
    assert_eq!(metadata.len(), 15);
    let uint = |key| metadata.uint(key).expect("a number").expect("is there");
    assert_eq!(
        [uint("u8"), uint("u16"), uint("u32"), uint("u64")],
        [255, 65_535, u64::from(u32::MAX), u64::MAX]
    );
    let value = |key: &str| metadata.get(key).expect("is there").clone();
    assert_eq!(value("i8"), Value::Int(-1));
    assert_eq!(value("i16"), Value::Int(i64::from(i16::MIN)));
    assert_eq!(value("i32"), Value::Int(i64::from(i32::MIN)));
    assert_eq!(value("i64"), Value::Int(i64::MIN));
    assert_eq!(metadata.float("f32").expect("a number"), Some(0.5));
    assert_eq!(metadata.float("f64").expect("a number"), Some(0.25));
    assert_eq!(metadata.bool("bool").expect("a bool"), Some(true));
    assert_eq!(metadata.text("text").expect("a text"), Some("naïve"));
    let texts = metadata.texts("texts").expect("texts").expect("is there");
    assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "ß"]);
    assert_eq!(metadata.numbers("ints").expect("numbers"), Some(vec![-1, 2]));
    assert_eq!(value("lists"), Value::List(List::Lists(vec![List::Bools(vec![false, true])])));
    assert!(metadata.text("none").expect("no error").is_none());
}

#[test]
fn a_value_of_another_type_is_an_error_that_names_the_key() {
    let mut writer = Writer::default();
    writer.text("n", "seven");
    writer.raw("negative", 5, &(-1i32).to_le_bytes());
    writer.ints("layers", &[4, 4, 4]);
    writer.ints("mixed", &[4, 2]);
    let metadata = read(&writer.finish()).metadata;
    for key in ["n", "negative", "mixed"] {
        let error = metadata.uint(key).expect_err("no number").to_string();
        assert!(error.contains(&format!("`{key}` is not a number")), "{error}");
    }
    assert_eq!(metadata.uint("layers").expect("one number"), Some(4));
    let error = metadata.required("x.y", Metadata::text).expect_err("missing").to_string();
    assert!(error.contains("`x.y` is missing") && error.contains(FILE), "{error}");
}

#[test]
fn names_of_tensors_are_translated() {
    for (name, expected) in [
        ("model.embed_tokens.weight", Some("token_embd.weight")),
        ("lm_head.weight", Some("output.weight")),
        ("model.norm.weight", Some("output_norm.weight")),
        ("model.layers.17.self_attn.q_proj.bias", Some("blk.17.attn_q.bias")),
        ("model.layers.0.mlp.down_proj.weight", Some("blk.0.ffn_down.weight")),
        ("model.layers.x.mlp.down_proj.weight", None),
        ("model.layers.0.mlp.down_proj.scale", None),
        ("token_embd.weight", None),
        ("", None),
    ] {
        assert_eq!(gguf_name(name).as_deref(), expected, "{name}");
    }
}
