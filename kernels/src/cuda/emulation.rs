//! A device for tests: the kernels as host code, thread by thread.
#![expect(unsafe_code, reason = "compiled kernels are called through a library")]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_uint, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use super::driver::{DeviceError, Driver, Launch};
use super::library::Library;

/// Where the sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda");

/// Bytes around each allocation that nobody may write.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;
/// Memory that was never written is NaN.
const FRESH_BYTE: u8 = 0xff;
/// What the device says it has.
const MEMORY: usize = 1 << 30;

type Run = unsafe extern "C" fn(
    *const c_char,
    unsafe extern "C" fn(*const c_void),
    *const c_uint,
    c_uint,
    c_uint,
    *const c_void,
    c_uint,
);

/// The library, and what is allocated.
pub(super) struct Emulation {
    library: Library,
    run: Run,
    allocated: Mutex<HashMap<u64, usize>>,
}

/// The fibers of the library are one machine: launches of all devices take turns.
static MACHINE: Mutex<u32> = Mutex::new(0);
static LIBRARY: OnceLock<Result<Library, DeviceError>> = OnceLock::new();

impl Emulation {
    pub(super) fn open() -> Result<Self, DeviceError> {
        let library = LIBRARY.get_or_init(library).clone()?;
        let missing = || missing("the emulation lacks its entry");
        let run = library.symbol(c"pinion_emulate").ok_or_else(missing)?;
        // SAFETY: the library defines it with this signature.
        let run = unsafe { std::mem::transmute::<*mut c_void, Run>(run.as_ptr()) };
        Ok(Self { library, run, allocated: Mutex::default() })
    }
}

/// Whether the emulation can be built on this machine.
pub(super) fn has_compiler() -> bool {
    Command::new("c++").arg("--version").output().is_ok()
}

fn missing(message: impl Into<String>) -> DeviceError {
    DeviceError::Missing { message: message.into() }
}

fn library() -> Result<Library, DeviceError> {
    let path =
        compile().map_err(|error| missing(format!("cannot build the emulation: {error}")))?;
    let path = path.to_string_lossy();
    Library::open(&path).ok_or_else(|| missing(format!("cannot open the emulation: {path}")))
}

/// Compiles the kernels once for each state of their sources.
fn compile() -> std::io::Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    let mut files: Vec<_> = fs::read_dir(SOURCES)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        (file.file_name(), fs::read(file.path())?).hash(&mut hash);
    }
    let directory = Path::new(env!("OUT_DIR"));
    let path = directory.join(format!("emulation-{:016x}.so", hash.finish()));
    let lock = fs::File::create(directory.join("emulation.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if path.exists() {
        return Ok(path);
    }
    let new = path.with_extension("new");
    let arguments =
        ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing"];
    let output = Command::new("c++")
        .args(arguments)
        .args(["-w", "-DPINION_EMULATION", "-shared", "-fPIC", "-o"])
        .arg(&new)
        .arg(Path::new(SOURCES).join("emulation.cpp"))
        .output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    fs::rename(&new, &path)?;
    Ok(path)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 2 * GUARD, GUARD).expect("sizes were allocated before")
}

impl Driver for Emulation {
    fn name(&self) -> &'static str {
        "emulation"
    }

    fn num_processors(&self) -> u32 {
        4
    }

    fn memory(&self) -> Result<(usize, usize), DeviceError> {
        let used: usize = self.allocated.lock().values().sum();
        Ok((MEMORY.saturating_sub(used), MEMORY))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        if self.memory()?.0 < bytes {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        // SAFETY: the layout is not empty; the memory is initialized at once.
        let place = unsafe {
            let start = alloc(layout(bytes));
            assert!(!start.is_null(), "the host has memory for a test");
            start.write_bytes(GUARD_BYTE, bytes + 2 * GUARD);
            start.add(GUARD).write_bytes(FRESH_BYTE, bytes);
            start.add(GUARD) as u64
        };
        self.allocated.lock().insert(place, bytes);
        Ok(place)
    }

    unsafe fn release(&self, place: u64) {
        let bytes = self.allocated.lock().remove(&place).expect("it was allocated here");
        // SAFETY: `allocate` made it with guards around.
        unsafe {
            let start = (place as *mut u8).sub(GUARD);
            let guards = [start, start.add(GUARD + bytes)];
            for guard in guards {
                let guard = std::slice::from_raw_parts(guard, GUARD);
                assert!(guard.iter().all(|&byte| byte == GUARD_BYTE), "a kernel wrote outside");
            }
            dealloc(start, layout(bytes));
        }
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller vouches for the range.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn zero(&self, place: u64, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: as above.
        unsafe { (place as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch, args: *const c_void) -> Result<(), DeviceError> {
        let name = CString::new(launch.kernel).expect("kernels have names without zeros");
        let Some(kernel) = self.library.symbol(&name) else {
            return Err(DeviceError::Failed { message: format!("no kernel: {}", launch.kernel) });
        };
        let mut order = MACHINE.lock();
        *order = order.wrapping_add(1);
        // SAFETY: kernels take a pointer to their arguments, which the caller vouches for.
        unsafe {
            let kernel = std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_void)>(
                kernel.as_ptr(),
            );
            let grid = launch.grid.as_ptr();
            (self.run)(name.as_ptr(), kernel, grid, launch.threads, launch.shared, args, *order);
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
