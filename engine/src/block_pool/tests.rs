//! Tests of `block_pool`.

