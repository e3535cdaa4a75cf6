//! Tests of `detokenizer`.
