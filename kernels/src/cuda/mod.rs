//! The device side of the operations: launches of the kernels in `kernels/cuda`.
//!
//! **The seam.** [`Activations`](crate::Activations), [`PackedTensor`](crate::PackedTensor) and
//! [`PagedKvCache`](crate::PagedKvCache) are storage on the host or on a device. An operation looks
//! at what it is given and goes on here when that is on a device; models and engine see no
//! difference. A [`Gpu`] is one device with one queue and the memory that is used again.
//!
//! Packed weights go to the device as the bytes that they are on the host: groups of 16 rows by
//! pairs of columns, or tiles of 16 rows, are what a warp reads for one tensor-core product. So a
//! mapped snapshot can be copied without a look at it.
//!
//! Everything is launched through [`driver::Driver`], which has two implementations: the NVIDIA driver,
//! opened when it is first asked for (feature `cuda`), and an emulation (feature `emulation`) that
//! runs the same kernel sources, compiled by the host's C++ compiler, thread by thread. All code
//! but the driver's own calls is therefore compiled and tested where there is no GPU.
//!
//! **Order of sums.** Every kernel sums an element in an order that depends on the shapes of the
//! weights or on positions only, so a row never depends on the rest of the batch. The order is not
//! that of the CPU, and differs from it by rounding.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

mod attention;
mod driver;
mod elementwise;
mod embedding;
#[cfg(feature = "emulation")]
mod emulation;
mod kv_cache;
#[cfg(any(feature = "cuda", feature = "emulation"))]
mod library;
mod linear;
mod memory;
#[cfg(feature = "cuda")]
mod nvidia;
mod sample;

use std::fmt;
use std::sync::Arc;

use candle_core::Result as Outcome;
use parking_lot::Mutex;

pub(crate) use attention::DeviceAttention;
pub use driver::DeviceError;
use driver::{Driver, Launch};
pub(crate) use elementwise::{copy_rows, rms_norm, rms_norm_columns, rope, silu_mul};
pub(crate) use embedding::embedding;
pub(crate) use kv_cache::DeviceKv;
pub(crate) use linear::{DeviceMatrix, linear};
pub(crate) use memory::Buffer;
use memory::{Copies, Pool};
pub use sample::{SampleRow, TokenEdit, sample};

/// A device, its queue and its memory. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    driver: Box<dyn Driver>,
    pool: Mutex<Pool>,
    copies: Mutex<Copies>,
}

impl Gpu {
    /// Opens device `index` of this machine.
    ///
    /// # Errors
    /// When this build has no CUDA, or there is no driver or no such device.
    pub fn open(index: usize) -> Result<Self, DeviceError> {
        #[cfg(feature = "cuda")]
        return Ok(Self::new(Box::new(nvidia::Nvidia::open(index)?)));
        #[cfg(not(feature = "cuda"))]
        Err(DeviceError::Missing {
            message: format!("this build of pinion has no CUDA: cuda:{index}"),
        })
    }

    /// A device that runs the kernels on the host, for tests.
    ///
    /// # Errors
    /// When there is no C++ compiler, or it refuses the kernels.
    #[cfg(feature = "emulation")]
    pub fn emulated() -> Result<Self, DeviceError> {
        Ok(Self::new(Box::new(emulation::Emulation::open()?)))
    }

    /// What tests of kernels run on: the first GPU where there is one, else the emulation. None on a
    /// machine that has neither, which is said.
    ///
    /// # Panics
    /// When there is a device that cannot be used, or kernels that do not compile.
    #[cfg(feature = "emulation")]
    #[expect(clippy::print_stderr, reason = "a test that proves nothing says so")]
    pub fn for_tests() -> Option<Self> {
        static GPU: std::sync::OnceLock<Option<Gpu>> = std::sync::OnceLock::new();
        let open = || match Self::open(0) {
            Ok(gpu) => Some(gpu),
            Err(DeviceError::Missing { .. }) if emulation::has_compiler() => {
                Some(Self::emulated().expect("the kernels compile"))
            }
            Err(DeviceError::Missing { .. }) => {
                eprintln!(
                    "SKIPPED: neither a gpu nor a C++ compiler, so no kernel was tested: c++"
                );
                None
            }
            Err(error) => panic!("{error}"),
        };
        GPU.get_or_init(open).clone()
    }

    /// Bytes a second that the device reads and writes when it copies `bytes` to and fro: what
    /// no kernel is faster than.
    ///
    /// # Errors
    /// When memory is missing.
    pub fn copy_rate(&self, bytes: usize, times: u32) -> Outcome<f64> {
        let buffer = self.zeros(2 * bytes)?;
        buffer.copy_within(0, bytes, bytes)?;
        self.synchronize()?;
        let started = std::time::Instant::now();
        for _ in 0..times {
            buffer.copy_within(0, bytes, bytes)?;
        }
        self.synchronize()?;
        Ok(2.0 * bytes as f64 * f64::from(times) / started.elapsed().as_secs_f64())
    }

    #[cfg(any(feature = "cuda", feature = "emulation"))]
    fn new(driver: Box<dyn Driver>) -> Self {
        Self(Arc::new(Inner { driver, pool: Mutex::default(), copies: Mutex::default() }))
    }

    /// Name of the device.
    pub fn name(&self) -> &str {
        self.0.driver.name()
    }

    /// Bytes of memory that are free, and that there are.
    pub fn memory(&self) -> Result<(usize, usize), DeviceError> {
        self.0.driver.memory()
    }

    /// Waits until everything that was launched is done.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.0.driver.synchronize()
    }

    fn num_processors(&self) -> u32 {
        self.0.driver.num_processors()
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// `args` is what the kernel takes, and its addresses are of what the kernel reads and writes.
    unsafe fn launch<A: Copy>(&self, launch: Launch, args: &A) -> Outcome<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: as promised by the caller.
        unsafe { self.0.driver.launch(&launch, std::ptr::from_ref(args).cast())? };
        Ok(())
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpu").field(&self.name()).finish()
    }
}
