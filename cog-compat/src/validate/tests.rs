//! Tests of `validate`.

