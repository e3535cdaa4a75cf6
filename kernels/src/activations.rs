//! What flows between operations: rows of `f32` in memory that is used again.

use std::cell::RefCell;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::cuda::{Buffer, copy_rows};
use crate::view::{Rows, with_f32};
use crate::{Device as Place, Gpu};

/// What an operation says that was written for the host only.
const NO_KERNEL: &str = "an operation of this model has no kernel for gpus";

/// Buffers that a thread keeps for its next operations, at most.
const MAX_KEPT: usize = 16;

std::thread_local! {
    /// Buffers that activations of this thread no longer need, the contents of no meaning.
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Activations `[rows, width]`, `f32`, contiguous.
///
/// Their memory returns to the thread that drops them and serves its next operation, so a decoding
/// step allocates none.
#[derive(Debug)]
pub struct Activations {
    memory: Memory,
    rows: usize,
    width: usize,
}

/// Where the rows are.
#[derive(Debug)]
enum Memory {
    /// At least as long as the rows.
    Host(Vec<f32>),
    Device(Buffer),
}

impl Activations {
    /// Rows whose contents are of no meaning yet.
    pub(crate) fn uninit(rows: usize, width: usize) -> Self {
        let len = rows * width;
        let kept = KEPT.with_borrow_mut(|kept| {
            let fitting = kept.iter().enumerate().filter(|(_, memory)| len <= memory.len());
            let (index, _) = fitting.min_by_key(|(_, memory)| memory.len())?;
            Some(kept.swap_remove(index))
        });
        Self { memory: Memory::Host(kept.unwrap_or_else(|| vec![0.0; len])), rows, width }
    }

    /// Rows of zeros.
    pub fn zeros(rows: usize, width: usize) -> Self {
        let mut zeros = Self::uninit(rows, width);
        zeros.values_mut().fill(0.0);
        zeros
    }

    /// Copies a tensor `[.., width]` f32 of any layout; leading dimensions become rows.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        if tensor.dtype() != DType::F32 {
            bail!("activations must be F32: {:?}", tensor.dtype())
        }
        let Some(&width) = tensor.dims().last() else { bail!("a scalar has no rows") };
        let rows = tensor.elem_count().checked_div(width).unwrap_or(0);
        let mut copy = Self::uninit(rows, width);
        with_f32(&tensor.contiguous()?, |values| copy.values_mut().copy_from_slice(values))?;
        Ok(copy)
    }

    /// Rows made of the rows of all `parts`, beside one another.
    ///
    /// # Errors
    /// When they have different numbers of rows.
    pub fn beside(parts: &[Self]) -> Result<Self> {
        let rows = parts.first().map_or(0, Self::rows);
        if let Some(other) = parts.iter().find(|part| part.rows != rows) {
            bail!("{} rows do not go beside {rows}", other.rows)
        }
        let total = parts.iter().map(Self::width).sum();
        if let Some(first) = parts.first().and_then(Self::device) {
            return Self::beside_on_device(first.gpu(), parts, (rows, total));
        }
        let mut all = Self::uninit(rows, total);
        let width = all.width.max(1);
        for (row, values) in all.values_mut().chunks_exact_mut(width).enumerate() {
            let mut rest = values;
            for part in parts {
                let (values, after) = rest.split_at_mut(part.width);
                values.copy_from_slice(&part.values()[row * part.width..][..part.width]);
                rest = after;
            }
        }
        Ok(all)
    }

    /// Rows of heads: each head has its share of a row of every part, beside one another.
    ///
    /// # Errors
    /// When parts have different numbers of rows, or a width that is no multiple of `heads`.
    pub fn beside_by_head(parts: &[&Self], heads: usize) -> Result<Self> {
        let rows = parts.first().map_or(0, |part| part.rows);
        let fits = |part: &&Self| part.rows == rows && part.width.checked_rem(heads) == Some(0);
        if let Some(part) = parts.iter().find(|part| !fits(part)) {
            bail!("{} rows of {} are not {rows} rows of {heads} heads", part.rows, part.width)
        }
        let mut all = Self::uninit(rows, parts.iter().map(|part| part.width).sum());
        let mut rest = all.values_mut();
        for row in 0..rows {
            for head in 0..heads {
                for part in parts {
                    let len = part.width / heads;
                    let (values, after) = rest.split_at_mut(len);
                    let start = row * part.width + head * len;
                    values.copy_from_slice(&part.values()[start..start + len]);
                    rest = after;
                }
            }
        }
        Ok(all)
    }

    /// Some columns of each row.
    ///
    /// # Errors
    /// When rows do not have them.
    pub fn columns(&self, columns: std::ops::Range<usize>) -> Result<Self> {
        if self.width < columns.end || columns.end < columns.start {
            bail!("rows of {} have no columns {columns:?}", self.width)
        }
        let mut part = Self::uninit(self.rows, columns.len());
        let rows = part.values_mut().chunks_exact_mut(columns.len().max(1));
        for (to, from) in rows.zip(self.values().chunks_exact(self.width.max(1))) {
            to.copy_from_slice(&from[columns.clone()]);
        }
        Ok(part)
    }

    fn beside_on_device(gpu: &Gpu, parts: &[Self], (rows, width): (usize, usize)) -> Result<Self> {
        let all = gpu.allocate(rows * width * size_of::<f32>())?;
        let mut col = 0;
        for part in parts {
            let Some(buffer) = part.device() else { bail!("parts are on several devices") };
            copy_rows(buffer, (rows, part.width), None, &all, (col, width))?;
            col += part.width;
        }
        Ok(Self::on_device(all, rows, width))
    }

    /// A copy of the rows on another device, or on the same one.
    pub fn copy_to(&self, device: &Place) -> Result<Self> {
        let host = self.to_host()?;
        match device {
            Place::Cpu => Ok(host),
            Place::Gpu(gpu) => {
                Ok(Self::on_device(gpu.upload(host.values())?, self.rows, self.width))
            }
        }
    }

    fn to_host(&self) -> Result<Self> {
        let mut copy = Self::uninit(self.rows, self.width);
        match &self.memory {
            Memory::Host(_) => copy.values_mut().copy_from_slice(self.values()),
            Memory::Device(buffer) => buffer.download(copy.values_mut())?,
        }
        Ok(copy)
    }

    /// Rows in the memory of a device.
    pub(crate) fn on_device(buffer: Buffer, rows: usize, width: usize) -> Self {
        debug_assert!(rows * width * size_of::<f32>() <= buffer.len(), "the rows fit");
        Self { memory: Memory::Device(buffer), rows, width }
    }

    /// The memory of rows that are on a device.
    pub(crate) fn device(&self) -> Option<&Buffer> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Device(buffer) => Some(buffer),
        }
    }

    /// Whether the rows are in the host's memory.
    pub fn is_on_host(&self) -> bool {
        self.device().is_none()
    }

    /// A tensor `[rows, width]` on the CPU; takes the memory along.
    pub fn into_tensor(mut self) -> Result<Tensor> {
        if !self.is_on_host() {
            self = self.to_host()?;
        }
        let Memory::Host(memory) = &mut self.memory else { bail!("rows were copied to the host") };
        let mut memory = std::mem::take(memory);
        memory.truncate(self.rows * self.width);
        Tensor::from_vec(memory, (self.rows, self.width), &Device::Cpu)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, row after row.
    ///
    /// # Panics
    /// When the rows are on a device: an operation that reads them has no kernel there. A model
    /// with such an operation fails in the step that warms it up.
    pub fn values(&self) -> &[f32] {
        match &self.memory {
            Memory::Host(memory) => &memory[..self.rows * self.width],
            Memory::Device(_) => panic!("{NO_KERNEL}"),
        }
    }

    /// All values, to change them.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Host(memory) => &mut memory[..self.rows * self.width],
            Memory::Device(_) => panic!("{NO_KERNEL}"),
        }
    }

    /// The rows.
    pub(crate) fn view(&self) -> Rows<'_> {
        Rows::dense(self.values(), self.width)
    }

    /// Some heads of each row, as rows of `head_dim`.
    pub(crate) fn heads(&self, heads: std::ops::Range<usize>, head_dim: usize) -> Rows<'_> {
        Rows::heads(self.values(), self.width, heads, head_dim)
    }
}

impl Drop for Activations {
    fn drop(&mut self) {
        let Memory::Host(memory) = &mut self.memory else { return };
        let memory = std::mem::take(memory);
        if memory.is_empty() {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() == MAX_KEPT {
                let smallest = (0..MAX_KEPT).min_by_key(|&index| kept[index].len());
                kept.swap_remove(smallest.unwrap_or(0));
            }
            kept.push(memory);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_the_next_activations() {
        let first = Activations::uninit(3, 5);
        let place = first.values().as_ptr();
        drop(first);
        drop(Activations::uninit(40, 50));
        let second = Activations::uninit(2, 7);
        assert_eq!(second.values().as_ptr(), place, "the smallest that fits is taken");
        assert_eq!(second.values().len(), 14);
    }

    #[test]
    fn rows_go_beside_one_another() {
        let part = |first: f32, shape: (usize, usize)| {
            let values = (0..6u8).map(|value| first + f32::from(value)).take(shape.0 * shape.1);
            let tensor = Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap();
            Activations::from_tensor(&tensor).unwrap()
        };
        let all = Activations::beside(&[part(0.0, (2, 3)), part(10.0, (2, 1))]).unwrap();
        assert_eq!((all.rows(), all.width()), (2, 4));
        assert_eq!(all.values(), [0.0, 1.0, 2.0, 10.0, 3.0, 4.0, 5.0, 11.0]);
        assert!(Activations::beside(&[part(0.0, (2, 3)), part(0.0, (1, 3))]).is_err());
    }

    #[test]
    fn tensors_are_copied_whatever_their_layout() {
        let values: Vec<f32> = (0..24u8).map(f32::from).collect();
        let tensor = Tensor::from_vec(values, (4, 6), &Device::Cpu).unwrap();
        for tensor in [tensor.narrow(1, 2, 3).unwrap(), tensor.t().unwrap(), tensor] {
            let copy = Activations::from_tensor(&tensor).unwrap();
            assert_eq!((copy.rows(), copy.width()), tensor.dims2().unwrap());
            let back = copy.into_tensor().unwrap();
            assert_eq!(back.to_vec2::<f32>().unwrap(), tensor.to_vec2::<f32>().unwrap());
        }
        let integers = Tensor::zeros((2, 2), DType::U32, &Device::Cpu).unwrap();
        assert!(Activations::from_tensor(&integers).is_err());
    }
}
