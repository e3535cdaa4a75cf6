//! Every chunk runs once, panics travel, and threads end.

use std::sync::atomic::AtomicU32;

use super::*;

fn counters(len: usize) -> Vec<AtomicU32> {
    std::iter::repeat_with(AtomicU32::default).take(len).collect()
}

#[test]
fn every_chunk_runs_once_whatever_the_number_of_threads() {
    for threads in [1, 2, 5] {
        let pool = ThreadPool::new(threads);
        assert_eq!(pool.num_threads(), threads);
        for round in 0..2000 {
            let counts = counters(round % 37);
            pool.for_each(counts.len(), |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn workers_that_went_to_sleep_take_part_again() {
    let pool = ThreadPool::new(3);
    let all_parked = || pool.workers.iter().all(|w| w.parked.load(Ordering::SeqCst));
    for _ in 0..50 {
        while !all_parked() {
            thread::yield_now();
        }
        // Ends only when three threads are inside at once.
        let inside = AtomicU32::new(0);
        pool.for_each(3, |_| {
            inside.fetch_add(1, Ordering::SeqCst);
            while inside.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn results_of_a_job_are_visible_to_the_caller() {
    let pool = ThreadPool::new(4);
    let mut data = vec![0usize; 10_007];
    for round in 1..200 {
        pool.for_each_chunk(usize::MAX, &mut data, 64, |index, chunk| {
            for (i, value) in chunk.iter_mut().enumerate() {
                *value += (index * 64 + i) * round;
            }
        });
    }
    let rounds: usize = (1..200).sum();
    assert!(data.iter().enumerate().all(|(i, &value)| value == i * rounds));
}

#[test]
fn a_job_within_a_job_and_jobs_from_many_threads_complete() {
    let pool = ThreadPool::new(3);
    let count = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    pool.for_each(5, |_| {
                        pool.for_each(3, |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 4 * 100 * 5 * 3);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    let pool = ThreadPool::new(3);
    for bad in [0, 3, 7] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(8, |i| assert!(i != bad, "chunk {bad} fails"));
        }));
        let panic = result.unwrap_err();
        let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(message.contains(&format!("chunk {bad} fails")), "{message}");

        let counts = counters(100);
        pool.for_each(100, |i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn a_panic_of_a_worker_reaches_the_caller() {
    let pool = ThreadPool::new(2);
    let caller = thread::current().id();
    let inside = AtomicU32::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        // Two chunks that wait for each other, so one is the worker's.
        pool.for_each(2, |_| {
            inside.fetch_add(1, Ordering::SeqCst);
            while inside.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            assert_eq!(thread::current().id(), caller, "the worker fails");
        });
    }));
    let message = result.unwrap_err().downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains("the worker fails"), "{message}");
}

#[test]
fn no_worker_can_enter_a_job_that_has_returned() {
    let pool = ThreadPool::new(3);
    for _ in 0..100 {
        pool.for_each(4, |_| {});
        let gate = pool.shared.gate.0.load(Ordering::SeqCst);
        assert_eq!(gate & (OPEN | INSIDE), 0);
        assert!(!pool.shared.has_job(u64::MAX));
    }
}

#[test]
fn small_work_stays_on_the_calling_thread() {
    let pool = ThreadPool::new(4);
    let caller = thread::current().id();
    pool.for_each_worth(MIN_SHARED_WORK - 1, 1000, |_| {
        assert_eq!(thread::current().id(), caller);
    });
}

#[test]
fn the_number_of_threads_of_the_process_can_be_set() {
    set_num_threads(3);
    assert_eq!(num_threads(), 3);
    set_num_threads(0);
    assert_eq!(num_threads(), available_cpus());
}
