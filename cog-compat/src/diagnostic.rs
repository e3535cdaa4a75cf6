//! What is wrong, or worth knowing, at one place of a `cog.yaml`.
use std::fmt;

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not mean what its author wanted.
    Warning,
    /// Worth knowing, nothing more.
    Note,
}

/// One finding about a `cog.yaml`, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field, for example `build.run[2]` or `pinion.dtype`; empty for the file itself.
    pub path: String,
    /// What is wrong: lower case, no final dot.
    pub message: String,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
}

/// A place in the source: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Mark {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl Diagnostic {
    pub(crate) fn new(
        severity: Severity,
        at: Mark,
        path: &str,
        message: impl Into<String>,
    ) -> Self {
        let (line, column) = (at.line, at.column);
        Self {
            severity,
            line,
            column,
            path: printable(path),
            message: printable(&message.into()),
            hint: None,
        }
    }

    pub(crate) fn error(at: Mark, path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, at, path, message)
    }

    pub(crate) fn warning(at: Mark, path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, at, path, message)
    }

    pub(crate) fn note(at: Mark, path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, at, path, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(printable(&hint.into()));
        self
    }

    /// Whether the file cannot be used because of this.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Text from a file of someone else, safe to print: without control characters, and not without end.
fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 400;
    let mut printable = String::with_capacity(text.len().min(MAX_CHARS));
    for (index, c) in text.chars().enumerate() {
        match c {
            _ if index == MAX_CHARS => {
                printable.push('…');
                break;
            }
            c if c.is_control() => printable.extend(c.escape_default()),
            c => printable.push(c),
        }
    }
    printable
}

/// The most findings that are reported.
const MAX_FINDINGS: usize = 200;

/// Sorts by place, so that a reader goes through the file once, and keeps what a person can read: faults before
/// remarks, and a last note about how many more there are.
pub(crate) fn arrange(found: &mut Vec<Diagnostic>) {
    found.sort_by_key(|d| (d.severity, d.line, d.column));
    found.dedup();
    let more = found.len().saturating_sub(MAX_FINDINGS);
    found.truncate(MAX_FINDINGS);
    found.sort_by_key(|d| (d.line, d.column, d.severity));
    if let Some(last) = found.last().filter(|_| more > 0) {
        let at = Mark { line: last.line, column: last.column };
        found.push(Diagnostic::note(at, "", format!("findings left out: {more}")));
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// `cog.yaml:3:11: error: pinion.dtype: …`, and a second line `  hint: …` when there is one.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, line, column, path, message, hint } = self;
        write!(f, "cog.yaml:{line}:{column}: {severity}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(message)?;
        match hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
