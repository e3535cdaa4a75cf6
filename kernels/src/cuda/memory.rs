//! Device memory that is used again, and host values that are there already.
#![expect(unsafe_code, reason = "bytes of values, and addresses on a device")]

use std::collections::{HashMap, VecDeque};
use std::mem::size_of_val;

use candle_core::{Result, Tensor};

use super::driver::DeviceError;
use super::{Gpu, Inner};

/// Step inputs that are kept, at most: ids, positions, angles, rows of some steps.
const MAX_STEP_INPUTS: usize = 16;

/// Device memory of its own; goes back to the pool of its device when dropped.
pub struct Buffer {
    gpu: Gpu,
    block: Block,
    len: usize,
}

/// A place in device memory and the size that was allocated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    place: u64,
    size: usize,
}

/// Blocks by size. The device works in order, so a block may be used again while its last use is
/// still queued.
#[derive(Default)]
pub(super) struct Pool {
    free: HashMap<usize, Vec<u64>>,
}

/// Host values with a copy on the device. The tensor is kept, so its address means it alone.
pub(super) struct Copied {
    key: Key,
    _host: Tensor,
    block: Block,
}

/// Address and length of host values, and what was made of them.
type Key = (usize, usize, u64);

#[derive(Default)]
pub(super) struct Copies {
    vectors: HashMap<Key, Copied>,
    steps: VecDeque<Copied>,
}

/// Sizes are powers of two in quarters, so that similar ones share blocks.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 8).max(256);
    bytes.next_multiple_of(step)
}

impl Inner {
    fn take(&self, bytes: usize) -> std::result::Result<Block, DeviceError> {
        let size = size_class(bytes);
        if let Some(place) = self.pool.lock().free.get_mut(&size).and_then(Vec::pop) {
            return Ok(Block { place, size });
        }
        let place = match self.driver.allocate(size) {
            Err(DeviceError::OutOfMemory { .. }) => {
                self.release_pool();
                self.driver.allocate(size)?
            }
            other => other?,
        };
        Ok(Block { place, size })
    }

    fn give_back(&self, block: Block) {
        self.pool.lock().free.entry(block.size).or_default().push(block.place);
    }

    fn release_pool(&self) {
        for place in std::mem::take(&mut self.pool.lock().free).into_values().flatten() {
            // SAFETY: nobody holds a block of the pool.
            unsafe { self.driver.release(place) };
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let copies = self.copies.get_mut();
        let copies = copies.vectors.drain().map(|(_, copy)| copy).chain(copies.steps.drain(..));
        let blocks: Vec<Block> = copies.map(|copy| copy.block).collect();
        blocks.into_iter().for_each(|block| self.give_back(block));
        self.release_pool();
    }
}

impl Gpu {
    /// Memory of `len` bytes, the contents of no meaning.
    pub(crate) fn allocate(&self, len: usize) -> Result<Buffer> {
        let block = self.0.take(len)?;
        Ok(Buffer { gpu: self.clone(), block, len })
    }

    /// Memory of zeros.
    pub(crate) fn zeros(&self, len: usize) -> Result<Buffer> {
        let buffer = self.allocate(len)?;
        // SAFETY: the buffer has `len` bytes.
        unsafe { self.0.driver.zero(buffer.place(), len)? };
        Ok(buffer)
    }

    /// A copy of host values.
    pub(crate) fn upload<T: Plain>(&self, values: &[T]) -> Result<Buffer> {
        let buffer = self.allocate(size_of_val(values))?;
        // SAFETY: the buffer is as long as the values.
        unsafe { self.0.driver.upload(buffer.place(), T::bytes(values))? };
        Ok(buffer)
    }

    /// Where the copy of a weight vector is; it stays as long as the device is used.
    pub(crate) fn vector(&self, host: &Tensor, values: &[f32]) -> Result<u64> {
        let key = (values.as_ptr().addr(), values.len(), 0);
        if let Some(copy) = self.0.copies.lock().vectors.get(&key) {
            return Ok(copy.block.place);
        }
        let copied = self.copied(key, host, f32::bytes(values))?;
        let place = copied.block.place;
        self.0.copies.lock().vectors.insert(key, copied);
        Ok(place)
    }

    /// Where the copy of an input of a step is, or of what `make` makes of it under a name.
    pub(crate) fn step_input<T: Plain>(
        &self,
        host: &Tensor,
        (address, len, name): Key,
        make: impl FnOnce() -> Result<Vec<T>>,
    ) -> Result<u64> {
        let key = (address, len, name);
        let mut copies = self.0.copies.lock();
        if let Some(copy) = copies.steps.iter().find(|copy| copy.key == key) {
            return Ok(copy.block.place);
        }
        let copied = self.copied(key, host, T::bytes(&make()?))?;
        let place = copied.block.place;
        copies.steps.push_back(copied);
        if MAX_STEP_INPUTS < copies.steps.len()
            && let Some(old) = copies.steps.pop_front()
        {
            self.0.give_back(old.block);
        }
        Ok(place)
    }

    fn copied(&self, key: Key, host: &Tensor, bytes: &[u8]) -> Result<Copied> {
        let block = self.0.take(bytes.len())?;
        // SAFETY: the block is as long as the bytes.
        unsafe { self.0.driver.upload(block.place, bytes)? };
        Ok(Copied { key, _host: host.clone(), block })
    }
}

impl Buffer {
    /// Address on the device.
    pub(crate) fn place(&self) -> u64 {
        self.block.place
    }

    /// Bytes in use.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The device.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Copies the first values to the host, after everything that was queued before.
    pub(crate) fn download<T: Plain>(&self, values: &mut [T]) -> Result<()> {
        assert!(size_of_val(values) <= self.len, "the buffer has that many values");
        // SAFETY: the buffer is at least as long as the values.
        unsafe { self.gpu.0.driver.download(self.place(), T::bytes_mut(values))? };
        Ok(())
    }

    /// Copies a part of the buffer to another, disjoint part.
    pub(crate) fn copy_within(&self, from: usize, to: usize, len: usize) -> Result<()> {
        assert!(from.max(to) + len <= self.len, "both parts are inside");
        let (from, to) = (self.place() + from as u64, self.place() + to as u64);
        if from != to {
            // SAFETY: both parts are inside the buffer.
            unsafe { self.gpu.0.driver.copy(from, to, len)? };
        }
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gpu.0.give_back(self.block);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Types without padding whose every bit pattern is a value.
///
/// # Safety
/// As it says.
pub(crate) unsafe trait Plain: Copy {
    /// The values as bytes.
    fn bytes(values: &[Self]) -> &[u8] {
        // SAFETY: no padding, so every byte is initialized.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }

    /// The values as bytes to be written.
    fn bytes_mut(values: &mut [Self]) -> &mut [u8] {
        // SAFETY: as above, and every bit pattern is a value.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
    }
}

// SAFETY: integers and floats.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
