//! Threads that share the work of one operation.
//!
//! A forward pass hands out hundreds of jobs of some microseconds. Idle workers therefore spin for
//! a moment before they sleep, the caller works along, and it waits only for workers that took
//! part: one that wakes up late finds the door closed. Chunks are fixed by the caller and claimed
//! in any order, so nothing but time depends on the number of threads.
#![expect(unsafe_code, reason = "lends borrowed closures and slices to worker threads")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

#[cfg(test)]
mod tests;

/// How long an idle worker keeps looking for work before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Work below this many multiply-adds is not worth handing out: some microseconds.
const MIN_SHARED_WORK: usize = 1 << 17;

/// Set in the gate while a job may be entered. Below it: workers inside. Above it: job number.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const NEXT_JOB: u64 = 1 << 32;

/// A fixed set of threads, the calling one included.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    // One job at a time; whoever finds it taken works alone.
    job: Mutex<()>,
}

impl ThreadPool {
    /// A pool of `num_threads` threads: the caller's and as many workers as the system allows.
    pub fn new(num_threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = (1..num_threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let parked = Arc::new(AtomicBool::new(false));
                let thread = thread::Builder::new().name(format!("kernel-{index}")).spawn({
                    let parked = Arc::clone(&parked);
                    move || shared.work(&parked)
                });
                Some(Worker { thread: thread.ok()?, parked })
            })
            .collect();
        Self { shared, workers, job: Mutex::new(()) }
    }

    /// Threads that work on a job, the caller's included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `run` once for each index below `num_chunks`, on any thread, and returns when all
    /// calls have returned. A panic in `run` is passed on to the caller.
    ///
    /// While another job runs, also from within `run`, the calls are made on this thread.
    pub fn for_each(&self, num_chunks: usize, run: impl Fn(usize) + Sync) {
        let alone = self.workers.is_empty() || num_chunks <= 1;
        let Some(_guard) = (!alone).then(|| self.job.try_lock()).flatten() else {
            return (0..num_chunks).for_each(run);
        };
        self.shared.publish(&run, num_chunks);
        let door = Door(&self.shared);
        let wanted = num_chunks - 1;
        for worker in self.workers.iter().take(wanted) {
            if worker.parked.swap(false, Ordering::SeqCst) {
                worker.thread.thread().unpark();
            }
        }
        self.shared.claim(&run, num_chunks);
        drop(door);
        let panic = self.shared.panic.lock().take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// As [`ThreadPool::for_each`], on this thread alone unless `work` multiply-adds are worth
    /// sharing.
    pub(crate) fn for_each_worth(
        &self,
        work: usize,
        num_chunks: usize,
        run: impl Fn(usize) + Sync,
    ) {
        if work < MIN_SHARED_WORK {
            (0..num_chunks).for_each(run);
        } else {
            self.for_each(num_chunks, run);
        }
    }

    /// Calls `run` with the index and the elements of each chunk of `chunk_len` elements of
    /// `data`; `work` as in [`ThreadPool::for_each_worth`].
    pub(crate) fn for_each_chunk<T: Send>(
        &self,
        work: usize,
        data: &mut [T],
        chunk_len: usize,
        run: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (len, chunk_len) = (data.len(), chunk_len.max(1));
        let parts = Parts::new(data);
        self.for_each_worth(work, len.div_ceil(chunk_len), |index| {
            let start = index * chunk_len;
            // SAFETY: chunks of different indexes are disjoint, and each index is called once.
            run(index, unsafe { parts.part(start..len.min(start + chunk_len)) });
        });
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool").field("num_threads", &self.num_threads()).finish()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread.thread().unpark();
            // Workers catch the panics of jobs, so joining cannot fail.
            let _ = worker.thread.join();
        }
    }
}

/// A slice whose disjoint parts are written by several threads.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it only gives out parts that the callers of `part` keep disjoint.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), borrow: PhantomData }
    }

    /// The elements in `range`.
    ///
    /// # Safety
    /// While the result is in use, no other part that overlaps it may be.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps parts disjoint")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "parts lie within the slice");
        // SAFETY: in bounds of the slice borrowed mutably for `'a`; disjoint by contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// The pool of this process.
static GLOBAL: RwLock<Option<Arc<ThreadPool>>> = RwLock::new(None);

/// The pool that operations use; made with one thread per available CPU at the first use.
pub(crate) fn global() -> Arc<ThreadPool> {
    if let Some(pool) = &*GLOBAL.read() {
        return Arc::clone(pool);
    }
    let mut global = GLOBAL.write();
    Arc::clone(global.get_or_insert_with(|| Arc::new(ThreadPool::new(available_cpus()))))
}

/// Calls `run` once for each index below `num_chunks`, on the threads that operations use, and
/// returns when all calls have returned; on this thread alone unless `work` multiply-adds are worth
/// sharing, or while another operation runs.
pub fn for_each(work: usize, num_chunks: usize, run: impl Fn(usize) + Sync) {
    global().for_each_worth(work, num_chunks, run);
}

/// Makes operations use `num_threads` threads from now on; 0 means one per available CPU.
///
/// Results do not change. Operations that are running keep the threads they have.
pub fn set_num_threads(num_threads: usize) {
    let num_threads = if num_threads == 0 { available_cpus() } else { num_threads };
    let pool = Arc::new(ThreadPool::new(num_threads));
    let old = GLOBAL.write().replace(pool);
    // Joins its threads after the lock is released.
    drop(old);
}

/// Threads that operations use.
pub fn num_threads() -> usize {
    global().num_threads()
}

/// CPUs this process may use: the affinity mask and the cgroup quota count.
fn available_cpus() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

struct Worker {
    thread: JoinHandle<()>,
    /// Set by the worker before it sleeps, cleared by whoever wakes it.
    parked: Arc<AtomicBool>,
}

type Run = dyn Fn(usize) + Sync;

#[derive(Clone, Copy)]
struct Job {
    run: *const Run,
    num_chunks: usize,
}

/// One value a cache line, so that counters do not slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

/// What caller and workers share.
///
/// The protocol: the caller writes `job` while the gate is closed and nobody is inside, then opens
/// it. A worker enters by counting itself in, which succeeds only while the gate is open; what it
/// then reads is the job of that gate. The caller closes the gate and waits until nobody is inside,
/// so no worker holds the closure when `for_each` returns.
#[derive(Default)]
struct Shared {
    gate: Line<AtomicU64>,
    next_chunk: Line<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `job` is the only part that is not `Sync` by itself; the protocol above orders access.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is followed only by that protocol.
unsafe impl Send for Shared {}

impl Shared {
    /// Opens the gate to a new job. The caller holds the pool's job lock, and drops a [`Door`]
    /// before `run` ends.
    fn publish<'a>(&self, run: &'a (dyn Fn(usize) + Sync + 'a), num_chunks: usize) {
        // SAFETY: only the lifetime changes; `Door` keeps workers from outliving the borrow.
        let run =
            unsafe { std::mem::transmute::<&'a (dyn Fn(usize) + Sync + 'a), &'static Run>(run) };
        // SAFETY: the gate is closed and nobody is inside, see `Door`; one caller at a time.
        unsafe { *self.job.get() = Some(Job { run: &raw const *run, num_chunks }) };
        self.next_chunk.0.store(0, Ordering::Relaxed);
        // Left over when the caller's own chunk panicked too.
        self.panic.lock().take();
        let job = self.gate.0.load(Ordering::Relaxed) & !(NEXT_JOB - 1);
        // Sequentially consistent against `parked`: either a worker that goes to sleep sees the
        // open gate, or the caller sees the worker's flag.
        self.gate.0.store(job.wrapping_add(NEXT_JOB) | OPEN, Ordering::SeqCst);
    }

    fn claim(&self, run: &(dyn Fn(usize) + Sync), num_chunks: usize) {
        loop {
            let index = self.next_chunk.0.fetch_add(1, Ordering::Relaxed);
            if index >= num_chunks {
                return;
            }
            run(index);
        }
    }

    fn work(&self, parked: &AtomicBool) {
        let mut done = 0;
        let mut idle_since = None;
        while !self.stop.load(Ordering::SeqCst) {
            if let Some(job) = self.enter(&mut done) {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    // SAFETY: this worker is inside, so the closure is alive.
                    self.claim(unsafe { &*job.run }, job.num_chunks);
                }));
                if let Err(panic) = result {
                    self.next_chunk.0.store(job.num_chunks, Ordering::Relaxed);
                    self.panic.lock().get_or_insert(panic);
                }
                self.gate.0.fetch_sub(1, Ordering::Release);
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() < SPIN {
                for _ in 0..16 {
                    std::hint::spin_loop();
                }
            } else {
                parked.store(true, Ordering::SeqCst);
                if !self.has_job(done) && !self.stop.load(Ordering::SeqCst) {
                    thread::park();
                }
                parked.store(false, Ordering::SeqCst);
                idle_since = None;
            }
        }
    }

    /// Whether the gate is open to a job other than `done`.
    fn has_job(&self, done: u64) -> bool {
        let gate = self.gate.0.load(Ordering::SeqCst);
        gate & OPEN != 0 && gate / NEXT_JOB != done
    }

    /// Counts the calling worker in, if there is a job it has not seen.
    fn enter(&self, done: &mut u64) -> Option<Job> {
        let gate = &self.gate.0;
        let mut seen = gate.load(Ordering::Acquire);
        while seen & OPEN != 0 && seen / NEXT_JOB != *done {
            match gate.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    *done = seen / NEXT_JOB;
                    // SAFETY: inside an open gate the job is not written.
                    return unsafe { *self.job.get() };
                }
                Err(found) => seen = found,
            }
        }
        None
    }
}

/// Closes the gate and waits for the workers inside, also when the caller's own chunk panics.
struct Door<'a>(&'a Shared);

impl Drop for Door<'_> {
    fn drop(&mut self) {
        let gate = &self.0.gate.0;
        gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while gate.load(Ordering::Acquire) & INSIDE != 0 {
            // A worker may have lost its CPU in the middle of a chunk.
            if spins < 4096 {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
            spins = spins.saturating_add(1);
        }
    }
}
