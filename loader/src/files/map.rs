//! Maps a file into memory: the one place of the loader with unsafe code.
#![expect(unsafe_code, reason = "mapping a file is unsafe because others may change it")]

use std::fs::File;
use std::ops::Range;

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

use super::{Bytes, FileError};

/// The bytes of an open regular file.
pub(super) fn map(file: &File, path: &str) -> Result<Bytes, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    if file.metadata().map_err(io)?.len() == 0 {
        return Ok(Bytes::Static(&[]));
    }
    // SAFETY: the mapping is private and read-only, and nothing in this process writes to package files. Another
    // process can still change or truncate the file under us: changed bytes are ordinary bytes to every reader here
    // (headers are copied out and checked before use, tensors are plain numbers), and touching pages that a
    // truncation removed ends the process with SIGBUS, which ends one worker and not the node.
    let map = unsafe { MmapOptions::new().map_copy_read_only(file) }.map_err(io)?;
    Ok(Bytes::Mapped(map))
}

/// Gives back the memory of a part that is not needed soon. Whoever looks at it reads the file again.
pub(super) fn release(map: &Mmap, part: Range<usize>) {
    // SAFETY: the mapping is never written to, so nothing is lost but time. Without it pages stay, which is no error.
    let _ =
        unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, part.start, part.len()) };
}
