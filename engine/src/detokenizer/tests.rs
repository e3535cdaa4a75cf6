//! Tests of `detokenizer`.

