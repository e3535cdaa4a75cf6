//! Shared libraries that are looked for when the program runs, so that it starts where they are not.
#![expect(unsafe_code, reason = "libraries are opened when the program runs")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;

const RTLD_NOW: c_int = 2;

// The C library has them, and std links it.
unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// A library that stays open until the process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library(NonNull<c_void>);

// SAFETY: the handle is only given to `dlsym`, which any thread may call.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens a library by its name or path.
    pub(crate) fn open(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the name is a C string. Initializers of the library run, as of any linked one.
        NonNull::new(unsafe { dlopen(name.as_ptr(), RTLD_NOW) }).map(Self)
    }

    /// The address of a symbol.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the library is open and the name is a C string.
        NonNull::new(unsafe { dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}
