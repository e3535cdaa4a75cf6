//! Memory behind packed weights.
#![expect(unsafe_code, reason = "aligned allocation, and its bytes seen as words")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::cuda::Buffer;

const _: () = assert!(cfg!(target_endian = "little"), "packed weights are little-endian");

/// From this size on, memory is aligned to huge pages and the kernel is asked for them.
const HUGE_PAGE: usize = 2 << 20;

/// Where packed bytes live. Clones share them.
#[derive(Clone)]
#[non_exhaustive]
pub enum Storage {
    /// Memory of this process.
    Owned(Arc<AlignedBytes>),
    /// Bytes that something else holds, such as a part of a mapped file; never copied.
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
    /// Memory of a device; the host has no bytes of it.
    Device(Arc<Buffer>),
}

impl Storage {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes.as_slice(),
            Self::Shared(bytes) => (**bytes).as_ref(),
            Self::Device(_) => &[],
        }
    }

    /// The bytes as words; `PackedTensor` holds aligned storage of whole words only.
    pub(crate) fn words(&self) -> &[u32] {
        // SAFETY: every bit pattern is a `u32`; `align_to` keeps the middle part aligned.
        let (head, words, tail) = unsafe { self.bytes().align_to::<u32>() };
        debug_assert!(head.is_empty() && tail.is_empty(), "packed storage is whole words");
        words
    }

    /// The bytes as `f32`, likewise.
    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: every bit pattern is an `f32`.
        let (head, floats, tail) = unsafe { self.bytes().align_to::<f32>() };
        debug_assert!(head.is_empty() && tail.is_empty(), "packed storage is whole words");
        floats
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Owned(_) => "Owned",
            Self::Shared(_) => "Shared",
            Self::Device(_) => "Device",
        };
        f.debug_struct(name).field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}

impl From<AlignedBytes> for Storage {
    fn from(bytes: AlignedBytes) -> Self {
        Self::Owned(Arc::new(bytes))
    }
}

impl From<&[u8]> for Storage {
    fn from(bytes: &[u8]) -> Self {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy.into()
    }
}

/// A fixed-size buffer aligned for vector loads, on huge pages where it is large.
pub struct AlignedBytes {
    data: NonNull<u8>,
    layout: Layout,
    len: usize,
}

// SAFETY: the buffer is owned and has no interior mutability.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// Alignment of the first byte.
    pub const ALIGNMENT: usize = 64;

    /// `len` zero bytes.
    ///
    /// # Panics
    /// When `len` exceeds `isize::MAX`; aborts when memory is exhausted, as every allocation.
    pub fn zeroed(len: usize) -> Self {
        let align = if len < HUGE_PAGE { Self::ALIGNMENT } else { HUGE_PAGE };
        // At least one byte: an empty layout must not reach the allocator.
        let layout = Layout::from_size_align(len.max(1), align).expect("buffers fit the memory");
        // SAFETY: the layout is not empty.
        let Some(data) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        if align == HUGE_PAGE {
            advise_huge_pages(data, len);
        }
        // SAFETY: the allocation has `layout.size()` bytes. Advice came first: pages touched
        // before it stay small.
        unsafe { data.write_bytes(0, layout.size()) };
        Self { data, layout, len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and were initialized in `zeroed`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    /// The bytes, to fill them.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }

    /// The whole words of the buffer, to fill them.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: every bit pattern is a `u32` and any `u32` is valid bytes.
        unsafe { self.as_mut_slice().align_to_mut::<u32>() }.1
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.data.as_ptr(), self.layout) };
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBytes").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(data: NonNull<u8>, len: usize) {
    // Without huge pages the same memory works, only slower, so a refusal is no error.
    // SAFETY: the range is a fresh allocation of this process; the advice keeps its contents.
    let _ = unsafe {
        rustix::mm::madvise(data.as_ptr().cast(), len, rustix::mm::Advice::LinuxHugepage)
    };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_data: NonNull<u8>, _len: usize) {}
