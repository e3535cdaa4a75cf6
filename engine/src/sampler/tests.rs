//! Tests of `sampler`.

