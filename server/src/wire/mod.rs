//! Wire formats: what clients send and read, and nothing of how it is answered.

pub(crate) mod fields;
pub(crate) mod openai;
pub(crate) mod urgency;
