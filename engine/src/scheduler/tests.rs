//! Tests of `scheduler`.

