//! Which instructions this processor offers, and which path the kernels take.
#![expect(unsafe_code, reason = "calls code compiled for detected instructions")]

#[cfg(target_arch = "x86_64")]
mod amx;

use std::sync::{Arc, LazyLock};

use crate::math::PORTABLE_FUSES;
use crate::pool::{self, ThreadPool};

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::TileConfig;

/// Instruction sets of this processor that matter for model code, by their usual names.
///
/// More are listed than the kernels use, so that a report of a machine says what it could do.
pub fn features() -> Vec<&'static str> {
    FEATURES.iter().filter(|(_, detected)| detected()).map(|(name, _)| *name).collect()
}

/// The kernel path and the number of threads, for people: `avx512, 8 threads`.
pub fn describe() -> String {
    let threads = pool::num_threads();
    let plural = if threads == 1 { "" } else { "s" };
    format!("{}, {threads} thread{plural}", Isa::detected().name())
}

/// The name of the kernel path. Results differ between paths, in the last bits, and not within one.
pub fn kernel_set() -> &'static str {
    Isa::detected().name()
}

/// An instruction set with its own kernels. A value exists only for what was detected.
///
/// Each path is deterministic. Paths differ in the last bits: vector paths round once per
/// multiply-add, plain `x86_64` code rounds twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Isa(Path);

/// The paths of the processor family of this build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Path {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL: every processor since 2017 that has any.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with VNNI, and AMX tiles of `bf16` and `int8`.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// The best path of this processor.
    pub(crate) fn detected() -> Self {
        static BEST: LazyLock<Isa> = LazyLock::new(|| Isa::available()[0]);
        *BEST
    }

    /// All paths of this processor, best first.
    pub(crate) fn available() -> Vec<Self> {
        let mut paths = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                if is_x86_feature_detected!("avx512vnni") && amx::is_available() {
                    paths.push(Self(Path::Amx));
                }
                paths.push(Self(Path::Avx512));
            }
            paths.push(Self(Path::Avx2));
        }
        paths.push(Self(Path::Portable));
        paths
    }

    pub(crate) fn path(self) -> Path {
        self.0
    }

    fn name(self) -> &'static str {
        match self.0 {
            Path::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Path::Amx => "amx",
        }
    }

    /// Runs a kernel compiled for this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Path::Portable => kernel.run::<PORTABLE_FUSES>(),
            // SAFETY: an `Isa` exists only where its instructions were detected.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 | Path::Amx => unsafe { run_avx512(kernel) },
        }
    }
}

/// Plain code that the compiler vectorizes for each instruction set.
///
/// `run` and everything it calls must be `#[inline(always)]`: only then is it compiled anew inside
/// the function that enables the instructions.
pub(crate) trait Kernel {
    /// What the kernel returns.
    type Output;

    /// The code; `FMA` says whether [`f32::mul_add`] is one instruction.
    fn run<const FMA: bool>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

/// What CPU code runs with: a path and the threads to share work with.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    /// The instruction set.
    pub(crate) isa: Isa,
    /// The threads.
    pub(crate) pool: Arc<ThreadPool>,
}

impl Cpu {
    /// The best path and the pool of this process.
    pub(crate) fn current() -> Self {
        #[cfg(test)]
        if let Some(cpu) = FORCED.with_borrow(Clone::clone) {
            return cpu;
        }
        Self { isa: Isa::detected(), pool: pool::global() }
    }

    /// Every path with several pools: what tests compare.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let pools = [1, 3].map(|threads| Arc::new(ThreadPool::new(threads)));
        let isas = Isa::available().into_iter();
        isas.flat_map(|isa| pools.clone().map(|pool| Self { isa, pool })).collect()
    }

    /// Calls `run` with this as the current one on this thread.
    #[cfg(test)]
    pub(crate) fn scope<R>(&self, run: impl FnOnce() -> R) -> R {
        let old = FORCED.replace(Some(self.clone()));
        let result = run();
        FORCED.set(old);
        result
    }
}

#[cfg(test)]
std::thread_local! {
    static FORCED: std::cell::RefCell<Option<Cpu>> = const { std::cell::RefCell::new(None) };
}

type Feature = (&'static str, fn() -> bool);

#[cfg(target_arch = "x86_64")]
const FEATURES: &[Feature] = &[
    ("avx2", || is_x86_feature_detected!("avx2")),
    ("fma", || is_x86_feature_detected!("fma")),
    ("f16c", || is_x86_feature_detected!("f16c")),
    ("avxvnni", || is_x86_feature_detected!("avxvnni")),
    ("avx512f", || is_x86_feature_detected!("avx512f")),
    ("avx512bw", || is_x86_feature_detected!("avx512bw")),
    ("avx512dq", || is_x86_feature_detected!("avx512dq")),
    ("avx512vl", || is_x86_feature_detected!("avx512vl")),
    ("avx512vnni", || is_x86_feature_detected!("avx512vnni")),
    ("avx512bf16", || is_x86_feature_detected!("avx512bf16")),
    ("avx512fp16", || is_x86_feature_detected!("avx512fp16")),
    ("amx", amx::is_available),
];

#[cfg(not(target_arch = "x86_64"))]
const FEATURES: &[Feature] = &[("neon", || cfg!(target_feature = "neon"))];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_path_is_always_there_and_the_best_one_is_taken() {
        let available = Isa::available();
        assert_eq!(available.last().map(|isa| isa.path()), Some(Path::Portable));
        assert_eq!(available.first(), Some(&Isa::detected()));
    }

    #[test]
    fn the_description_names_the_path_and_the_threads() {
        let text = describe();
        assert!(text.starts_with(Isa::detected().name()), "{text}");
        assert!(text.contains("thread"), "{text}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn features_agree_with_the_path() {
        let has_avx512 = features().contains(&"avx512f") && features().contains(&"avx512vl");
        let path = Isa::detected().path();
        assert_eq!(matches!(path, Path::Avx512 | Path::Amx), has_avx512);
        assert_eq!(path == Path::Amx, has_avx512 && features().contains(&"amx"));
    }
}
