//! From a package on disk to weights, tokenizer and template.
