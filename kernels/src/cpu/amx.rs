//! AMX tiles: whether this process may use them, and how they are set up.
#![expect(unsafe_code, reason = "asks the processor and the kernel")]

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ops::Range;
use std::sync::LazyLock;

/// What `LDTILECFG` reads: the shape of each tile.
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Ranges of tiles with the rows of each, and the bytes of a row. The other tiles are empty.
    pub(crate) fn new<const N: usize>(shapes: [(Range<usize>, u8, u16); N]) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tiles, rows, row_bytes) in shapes {
            config.rows[tiles.clone()].fill(rows);
            config.row_bytes[tiles].fill(row_bytes);
        }
        config
    }
}

/// Tiles with both products that kernels use, of `bf16` and of `int8`: what the processor offers
/// and the kernel lets this process have.
///
/// The kernel gives the state of tiles to processes that ask for it. It is asked once, at the first
/// call.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| is_offered() && is_granted());
    *AVAILABLE
}

/// CPUID names the instructions, and the kernel saves the registers.
fn is_offered() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const TILE_STATES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: `OSXSAVE` says that there is `XGETBV`.
    let saved = unsafe { saved_states() };
    __cpuid_count(7, 0).edx & AMX_BF16_TILE_INT8 == AMX_BF16_TILE_INT8
        && saved & TILE_STATES == TILE_STATES
}

#[target_feature(enable = "xsave")]
fn saved_states() -> u64 {
    // SAFETY: register 0 always exists.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn is_granted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that reads and writes no memory of this process; the kernel clobbers
    // `rcx` and `r11`.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_granted() -> bool {
    false
}
