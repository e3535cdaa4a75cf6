//! What kernels need of a device, and how it fails.
#![expect(unsafe_code, reason = "what a device is told is checked by nobody")]

use std::ffi::c_void;

/// Why a device did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// Its memory is used up.
    OutOfMemory {
        /// What was asked for, in bytes.
        bytes: usize,
    },
    /// It does not answer any more, or its memory cannot be trusted; the process must start anew.
    Lost {
        /// What the driver said.
        message: String,
    },
    /// There is none, or no driver for it.
    Missing {
        /// What was looked for.
        message: String,
    },
    /// A call that should not fail.
    Failed {
        /// The call, and what the driver said.
        message: String,
    },
}

impl DeviceError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutOfMemory { .. } => "gpu_oom",
            Self::Lost { .. } => "gpu_lost",
            Self::Missing { .. } => "no_gpu",
            Self::Failed { .. } => "gpu_failed",
        }
    }
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code();
        match self {
            Self::OutOfMemory { bytes } => write!(f, "{code}: the gpu has no {bytes} bytes left"),
            Self::Lost { message } | Self::Missing { message } | Self::Failed { message } => {
                write!(f, "{code}: {message}")
            }
        }
    }
}

impl std::error::Error for DeviceError {}

impl From<DeviceError> for candle_core::Error {
    fn from(error: DeviceError) -> Self {
        Self::wrap(error)
    }
}

/// How a kernel is started.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(feature = "cuda", feature = "emulation")),
    expect(dead_code, reason = "no driver is built in that reads it")
)]
pub(crate) struct Launch {
    /// Its name in the source.
    pub(crate) kernel: &'static str,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of a block, whole warps.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
}

/// One device and its one queue: everything happens in the order of the calls.
pub(crate) trait Driver: Send + Sync {
    /// Name of the device.
    fn name(&self) -> &str;

    /// Blocks run on this many processors at once.
    fn num_processors(&self) -> u32;

    /// Bytes free and in all.
    fn memory(&self) -> Result<(usize, usize), DeviceError>;

    /// Memory of the device, aligned to 256 bytes.
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `place` is from `allocate` and not used again.
    unsafe fn release(&self, place: u64);

    /// Copies to the device; returns when `from` was read.
    ///
    /// # Safety
    /// The range is allocated.
    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the device, after everything before.
    ///
    /// # Safety
    /// The range is allocated.
    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies on the device.
    ///
    /// # Safety
    /// Both ranges are allocated and disjoint.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError>;

    /// Writes zeros.
    ///
    /// # Safety
    /// The range is allocated.
    unsafe fn zero(&self, place: u64, bytes: usize) -> Result<(), DeviceError>;

    /// Queues a kernel.
    ///
    /// # Safety
    /// `args` is what the kernel takes, and its pointers are to what the kernel reads and writes.
    unsafe fn launch(&self, launch: &Launch, args: *const c_void) -> Result<(), DeviceError>;

    /// Waits until all is done.
    fn synchronize(&self) -> Result<(), DeviceError>;
}
