//! Tests of `inputs`.

