//! Which instructions this processor offers, and which path the kernels take.

/// An instruction set with its own kernels.
///
/// Each path is deterministic. Paths differ in the last bits: all but `Portable` on `x86_64`
/// round once per multiply-add, that one rounds twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Isa {
    Portable,
}

impl Isa {
    /// The best path of this processor.
    pub(crate) fn detected() -> Self {
        Self::Portable
    }
}
