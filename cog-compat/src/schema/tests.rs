//! Tests of `schema`.

