//! NVIDIA's driver, opened when it is first asked for.
#![expect(unsafe_code, reason = "a foreign library")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use parking_lot::Mutex;

use super::driver::{DeviceError, Driver, Launch};
use super::library::Library;

/// Fat binaries of all kernels.
const MODULES: &[&[u8]] = include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// Dynamic shared memory that needs no permission.
const PLAIN_SHARED: u32 = 48 << 10;

const MULTIPROCESSOR_COUNT: c_int = 16;
const MAJOR_VERSION: c_int = 75;
const MAX_DYNAMIC_SHARED: c_int = 8;
const NON_BLOCKING: c_uint = 1;

type Code = c_int;
type Handle = *mut c_void;

/// Declares the functions of the driver that are used, and finds them all.
macro_rules! driver_functions {
    ($($field:ident = $symbol:literal($($arg:ty),*);)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($arg),*) -> Code,)*
        }

        impl Functions {
            fn find(library: Library) -> Result<Self, DeviceError> {
                Ok(Self {
                    $($field: {
                        let found = library.symbol($symbol).ok_or_else(|| lacks($symbol))?;
                        // SAFETY: the driver has the function with this signature.
                        unsafe {
                            std::mem::transmute::<
                                Handle,
                                unsafe extern "C" fn($($arg),*) -> Code,
                            >(found.as_ptr())
                        }
                    },)*
                })
            }
        }
    };
}

driver_functions! {
    init = c"cuInit"(c_uint);
    device_get = c"cuDeviceGet"(*mut c_int, c_int);
    device_name = c"cuDeviceGetName"(*mut c_char, c_int, c_int);
    device_attribute = c"cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
    retain_context = c"cuDevicePrimaryCtxRetain"(*mut Handle, c_int);
    set_context = c"cuCtxSetCurrent"(Handle);
    create_stream = c"cuStreamCreate"(*mut Handle, c_uint);
    wait_stream = c"cuStreamSynchronize"(Handle);
    allocate = c"cuMemAlloc_v2"(*mut u64, usize);
    free = c"cuMemFree_v2"(u64);
    memory_info = c"cuMemGetInfo_v2"(*mut usize, *mut usize);
    upload = c"cuMemcpyHtoDAsync_v2"(u64, *const c_void, usize, Handle);
    download = c"cuMemcpyDtoHAsync_v2"(*mut c_void, u64, usize, Handle);
    copy = c"cuMemcpyDtoDAsync_v2"(u64, u64, usize, Handle);
    fill = c"cuMemsetD8Async"(u64, u8, usize, Handle);
    load_module = c"cuModuleLoadData"(*mut Handle, *const c_void);
    get_function = c"cuModuleGetFunction"(*mut Handle, Handle, *const c_char);
    set_function_attribute = c"cuFuncSetAttribute"(Handle, c_int, c_int);
    launch = c"cuLaunchKernel"(
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut Handle, *mut Handle
    );
    error_name = c"cuGetErrorName"(Code, *mut *const c_char);
}

fn lacks(symbol: &CStr) -> DeviceError {
    let message = format!("the NVIDIA driver is too old, it lacks {}", symbol.to_string_lossy());
    DeviceError::Missing { message }
}

/// A device, its stream and its kernels.
pub(super) struct Nvidia {
    functions: Functions,
    context: Handle,
    stream: Handle,
    modules: Vec<Handle>,
    kernels: Mutex<HashMap<&'static str, usize>>,
    name: String,
    num_processors: u32,
}

// SAFETY: the driver's functions may be called from any thread; the context is set before each.
unsafe impl Send for Nvidia {}
// SAFETY: as above.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// Opens a device and loads all kernels.
    pub(super) fn open(index: usize) -> Result<Self, DeviceError> {
        let library = Library::open("libcuda.so.1").ok_or_else(|| DeviceError::Missing {
            message: "no NVIDIA driver on this machine: libcuda.so.1".to_owned(),
        })?;
        let functions = Functions::find(library)?;
        let mut nvidia = Self {
            functions,
            context: null_mut(),
            stream: null_mut(),
            modules: Vec::new(),
            kernels: Mutex::default(),
            name: String::new(),
            num_processors: 0,
        };
        // SAFETY: results are written to variables of the right types.
        unsafe { nvidia.start(c_int::try_from(index).unwrap_or(c_int::MAX))? };
        Ok(nvidia)
    }

    unsafe fn start(&mut self, index: c_int) -> Result<(), DeviceError> {
        let (mut device, mut count, mut major, mut name) = (0, 0, 0, [0 as c_char; 128]);
        let f = &self.functions;
        // SAFETY: as the caller says.
        unsafe {
            self.check("cuInit", (f.init)(0))?;
            self.check("cuDeviceGet", (f.device_get)(&raw mut device, index))?;
            let length = c_int::try_from(name.len() - 1).unwrap_or(0);
            self.check("cuDeviceGetName", (f.device_name)(name.as_mut_ptr(), length, device))?;
            for (value, attribute) in
                [(&raw mut count, MULTIPROCESSOR_COUNT), (&raw mut major, MAJOR_VERSION)]
            {
                let code = (f.device_attribute)(value, attribute, device);
                self.check("cuDeviceGetAttribute", code)?;
            }
            let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
            if major < 8 {
                let message = format!("compute capability 8.0 is needed, {name} has {major}.x");
                return Err(DeviceError::Missing { message });
            }
            let (mut context, mut stream) = (null_mut(), null_mut());
            let code = (f.retain_context)(&raw mut context, device);
            self.check("cuDevicePrimaryCtxRetain", code)?;
            self.check("cuCtxSetCurrent", (f.set_context)(context))?;
            self.check("cuStreamCreate", (f.create_stream)(&raw mut stream, NON_BLOCKING))?;
            let mut modules = Vec::with_capacity(MODULES.len());
            for image in MODULES {
                let mut module = null_mut();
                let code = (f.load_module)(&raw mut module, image.as_ptr().cast());
                self.check("cuModuleLoadData", code)?;
                modules.push(module);
            }
            (self.context, self.stream, self.modules) = (context, stream, modules);
            (self.name, self.num_processors) = (name, count.cast_unsigned());
        }
        Ok(())
    }

    fn check(&self, call: &str, code: Code) -> Result<(), DeviceError> {
        if code == 0 {
            return Ok(());
        }
        let mut name = null();
        // SAFETY: the name is a constant of the driver; unknown codes leave it null.
        let name = unsafe {
            (self.functions.error_name)(code, &raw mut name);
            if name.is_null() { "unknown".into() } else { CStr::from_ptr(name).to_string_lossy() }
        };
        let message = format!("{call}: {name} ({code})");
        Err(match code {
            2 => DeviceError::OutOfMemory { bytes: 0 },
            // No device, a driver that does not fit, or one that is not set up.
            3 | 34 | 35 | 100 | 101 | 209 | 803 | 804 => DeviceError::Missing { message },
            // ECC, addresses, launches and hardware: the context is of no use after them.
            46 | 214 | 700..=720 | 999 => DeviceError::Lost { message },
            _ => DeviceError::Failed { message },
        })
    }

    /// Makes the context that of this thread.
    fn enter(&self) -> Result<&Functions, DeviceError> {
        // SAFETY: the context is open.
        self.check("cuCtxSetCurrent", unsafe { (self.functions.set_context)(self.context) })?;
        Ok(&self.functions)
    }

    fn kernel(&self, launch: &Launch) -> Result<Handle, DeviceError> {
        let mut kernels = self.kernels.lock();
        if let Some(&kernel) = kernels.get(launch.kernel) {
            return Ok(kernel as Handle);
        }
        let missing = || DeviceError::Failed { message: format!("no kernel: {}", launch.kernel) };
        let name = CString::new(launch.kernel).map_err(|_| missing())?;
        for &module in &self.modules {
            let mut kernel = null_mut();
            // SAFETY: the module is loaded, the name a C string.
            if unsafe { (self.functions.get_function)(&raw mut kernel, module, name.as_ptr()) } != 0
            {
                continue;
            }
            if PLAIN_SHARED < launch.shared {
                let bytes = launch.shared.cast_signed();
                // SAFETY: the kernel was found.
                let code = unsafe {
                    (self.functions.set_function_attribute)(kernel, MAX_DYNAMIC_SHARED, bytes)
                };
                self.check("cuFuncSetAttribute", code)?;
            }
            kernels.insert(launch.kernel, kernel as usize);
            return Ok(kernel);
        }
        Err(missing())
    }
}

impl Driver for Nvidia {
    fn name(&self) -> &str {
        &self.name
    }

    fn num_processors(&self) -> u32 {
        self.num_processors
    }

    fn memory(&self) -> Result<(usize, usize), DeviceError> {
        let (mut free, mut total) = (0, 0);
        let f = self.enter()?;
        // SAFETY: both are variables.
        let code = unsafe { (f.memory_info)(&raw mut free, &raw mut total) };
        self.check("cuMemGetInfo", code)?;
        Ok((free, total))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        let mut place = 0;
        let f = self.enter()?;
        // SAFETY: the place is a variable.
        match unsafe { (f.allocate)(&raw mut place, bytes) } {
            2 => Err(DeviceError::OutOfMemory { bytes }),
            code => self.check("cuMemAlloc", code).map(|()| place),
        }
    }

    unsafe fn release(&self, place: u64) {
        // A device that is lost has nothing to give back.
        if let Ok(f) = self.enter() {
            // SAFETY: as the caller says; the driver waits for what still uses it.
            unsafe { (f.free)(place) };
        }
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError> {
        if from.is_empty() {
            return Ok(());
        }
        let f = self.enter()?;
        // SAFETY: as the caller says; of pageable memory the driver makes a copy first.
        let code = unsafe { (f.upload)(to, from.as_ptr().cast(), from.len(), self.stream) };
        self.check("cuMemcpyHtoDAsync", code)
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        if to.is_empty() {
            return Ok(());
        }
        let f = self.enter()?;
        // SAFETY: as the caller says; the copy is waited for.
        let code = unsafe { (f.download)(to.as_mut_ptr().cast(), from, to.len(), self.stream) };
        self.check("cuMemcpyDtoHAsync", code)?;
        self.synchronize()
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        let f = self.enter()?;
        // SAFETY: as the caller says.
        self.check("cuMemcpyDtoDAsync", unsafe { (f.copy)(to, from, bytes, self.stream) })
    }

    unsafe fn zero(&self, place: u64, bytes: usize) -> Result<(), DeviceError> {
        let f = self.enter()?;
        // SAFETY: as the caller says.
        self.check("cuMemsetD8Async", unsafe { (f.fill)(place, 0, bytes, self.stream) })
    }

    unsafe fn launch(&self, launch: &Launch, args: *const c_void) -> Result<(), DeviceError> {
        let f = self.enter()?;
        let (kernel, [x, y, z]) = (self.kernel(launch)?, launch.grid);
        let mut params = [args.cast_mut()];
        // SAFETY: the kernel takes one structure, which the driver copies.
        let code = unsafe {
            let (params, extra) = (params.as_mut_ptr(), null_mut());
            let (threads, shared) = (launch.threads, launch.shared);
            (f.launch)(kernel, x, y, z, threads, 1, 1, shared, self.stream, params, extra)
        };
        self.check("cuLaunchKernel", code)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        let f = self.enter()?;
        // SAFETY: the stream is open.
        self.check("cuStreamSynchronize", unsafe { (f.wait_stream)(self.stream) })
    }
}
