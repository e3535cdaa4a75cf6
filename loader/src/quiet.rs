//! Turns panics of libraries that parse foreign files into values, without their noise on standard error.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// `Some` while this thread is inside [`catch`]: where the hook leaves the message.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `work`. A panic in it, on this thread, becomes its message; panics elsewhere are reported as ever.
///
/// What `work` captures must be dropped or left alone after a panic: it may be half-changed.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !keep(info) {
                previous(info);
            }
        }));
    });
    let outer = CAUGHT.with(|slot| slot.replace(Some(String::new())));
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    let message = CAUGHT.with(|slot| slot.replace(outer)).unwrap_or_default();
    result.map_err(|_| message)
}

/// Keeps the message of a panic inside [`catch`]; says whether it did.
fn keep(info: &PanicHookInfo<'_>) -> bool {
    CAUGHT.with(|slot| match slot.try_borrow_mut() {
        Ok(mut slot) => slot.as_mut().map(|slot| *slot = describe(info)).is_some(),
        Err(_) => false,
    })
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("panic without a message");
    match info.location() {
        Some(at) => {
            let file = at.file().rsplit('/').next().unwrap_or_default();
            format!("{text} ({file}:{})", at.line())
        }
        None => text.to_owned(),
    }
}
