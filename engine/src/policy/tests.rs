//! Tests of `policy`.

