//! Tells the tool calls in generated text from the text around them.
//!
//! Model families write calls differently: each form is one file and one line of `FORMATS`.

mod hermes;
#[cfg(test)]
mod tests;

/// A form in which models write tool calls.
#[derive(Debug)]
pub(crate) struct Format {
    /// What people call it.
    #[expect(dead_code, reason = "read once packages name their format")]
    pub(crate) name: &'static str,
    /// What ends a call.
    pub(crate) close: &'static str,
    /// A parser for one sequence.
    pub(crate) parser: fn() -> Box<dyn ToolCallParser>,
}

/// Every known form; the first one is used for packages that name none.
pub(crate) const FORMATS: &[Format] = &[hermes::FORMAT];

/// A part of what a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text for the reader.
    Text(String),
    /// A call.
    Call {
        /// The tool.
        name: String,
        /// A JSON object.
        arguments: String,
    },
}

/// Splits the text of one sequence, given in pieces of any size.
pub(crate) trait ToolCallParser: Send {
    /// Takes more text, and appends what can no longer change.
    fn push(&mut self, text: &str, out: &mut Vec<Piece>);

    /// Appends what was held back; no more text comes.
    fn finish(&mut self, out: &mut Vec<Piece>);
}
