//! What the models of a minute take: lists are shared between ticks, so that a target with many
//! threads and rings does not cost the watcher's memory. Counted by unique allocations, with the
//! sizes that were asked for.

use std::collections::HashSet;
use std::mem::size_of_val;

use stallscope_probes::Absence;

use super::build::tests::{nothing, probe, ring, thread};
use super::*;

/// Ticks that are kept (`watch::engine::HISTORY_MAX`).
const TICKS: u64 = 1_200;
const THREADS: i32 = 64;
const RINGS: i32 = 32;
const TICK_NS: u64 = 50_000_000;

fn reason<T>(reading: &Reading<T>) -> usize {
    reading.absence().map_or(0, |absence: &Absence| absence.detail.capacity())
}

fn thread_bytes(thread: &ThreadModel) -> usize {
    size_of_val(thread)
        + thread.comm.capacity()
        + reason(&thread.cpu_ratio)
        + reason(&thread.delay_ratio)
        + reason(&thread.switches_per_s)
        + reason(&thread.syscall)
        + reason(&thread.wchan)
        + thread.wchan.got().map_or(0, String::capacity)
        + reason(&thread.kernel_stack)
}

fn ring_bytes(ring: &RingModel) -> usize {
    let lists = ring.armed.got().map_or(0, |armed| size_of_val(armed.operations.as_slice()));
    size_of_val(ring) + lists + reason(&ring.armed) + reason(&ring.submissions_per_s)
}

/// Heap and own size of the models, each allocation once.
fn bytes(models: &[Model]) -> usize {
    let mut seen: HashSet<*const ()> = HashSet::new();
    let mut sum = 0;
    for model in models {
        sum += size_of_val(model);
        if let Reading::Got(threads) = &model.threads
            && seen.insert(Arc::as_ptr(threads).cast())
        {
            sum += size_of_val(&**threads);
            let fresh = threads.iter().filter(|thread| seen.insert(Arc::as_ptr(thread).cast()));
            sum += fresh.map(|thread| thread_bytes(thread)).sum::<usize>();
        }
        if let Reading::Got(rings) = &model.rings
            && seen.insert(Arc::as_ptr(rings).cast())
        {
            sum += rings.iter().map(ring_bytes).sum::<usize>();
        }
        if seen.insert(Arc::as_ptr(&model.tiers).cast()) {
            let reasons = model.tiers.iter().map(|model| model.status.why().map_or(0, str::len));
            sum += size_of_val(&*model.tiers) + reasons.sum::<usize>();
        }
    }
    sum
}

/// A minute in which this many threads and rings do something.
fn minute(busy_threads: i32, busy_rings: i32, rings_carried: bool) -> Vec<Model> {
    let mut builder = ModelBuilder::new(1, 100);
    let sample = |seq: u64| {
        let at_ns = (seq + 1) * TICK_NS;
        // No two ticks alike.
        let moved = |busy: bool| if busy { seq * 10_000_000 + seq * seq * 1_000 } else { 0 };
        let threads: Vec<_> = (1..=THREADS)
            .map(|tid| thread(tid, moved(tid <= busy_threads), 0, moved(tid <= busy_threads)))
            .collect();
        let rings: Vec<_> = (0..RINGS)
            .map(|fd| {
                let head = moved(fd < busy_rings) as u32;
                ring(fd, head, head)
            })
            .collect();
        let rings_ns = if rings_carried { at_ns - seq % 10 * TICK_NS } else { at_ns };
        stallscope_probes::sample::Sample {
            threads: probe(at_ns, threads),
            rings: probe(rings_ns, rings),
            ..nothing(seq)
        }
    };
    (0..TICKS).map(|seq| builder.push(&sample(seq))).collect()
}

#[test]
fn a_minute_of_many_threads_and_rings_takes_little() {
    const MIB: usize = 1 << 20;
    for (busy_threads, busy_rings, carried, max) in [
        // Rings read by fdinfo, seldom; nearly all threads asleep.
        (4, 32, true, 5 * MIB),
        // Rings read by their memory, at every tick.
        (4, 32, false, 18 * MIB),
        // As restless as it gets: every thread and every ring moves at every tick.
        (THREADS, RINGS, false, 48 * MIB),
    ] {
        let taken = bytes(&minute(busy_threads, busy_rings, carried));
        println!(
            "{busy_threads} busy threads of {THREADS}, carried {carried}: {} KiB",
            taken >> 10
        );
        assert!(taken < max, "{busy_threads} {busy_rings} {carried}: {taken} bytes");
    }
}

#[test]
fn what_sleeps_is_kept_once() {
    let models = minute(1, 0, false);
    let of = |seq: usize| models[seq].threads.got().unwrap();
    let (then, now) = (of(600), of(1_100));
    assert!(!Arc::ptr_eq(&then[0], &now[0]), "it runs");
    assert!(then.iter().zip(now.iter()).skip(1).all(|(then, now)| Arc::ptr_eq(then, now)));
    assert!(Arc::ptr_eq(&models[600].tiers, &models[1_100].tiers));
}
