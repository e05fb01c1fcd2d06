//! What a report of an hour costs: 72,000 ticks at 50 ms, as restless as they get, with an onset in the
//! middle and profiles of every kind. Judging them, and reading them from a recording, is not in it.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

#[path = "../tests/report_fixture/mod.rs"]
mod report_fixture;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use report_fixture as fixture;
use stallscope::report::html;

/// Ticks of an hour.
const TICKS: u64 = 3_600 * 1_000 / fixture::INTERVAL_MS;

fn hour(c: &mut Criterion) {
    let incident = fixture::restless_hour(TICKS);
    println!("an hour: {} ticks, {} bytes of HTML", incident.models.len(), html(&incident).len());
    let mut group = c.benchmark_group("report");
    group.sample_size(10).measurement_time(Duration::from_secs(15));
    group.bench_function("html of an hour", |bencher| bencher.iter(|| html(&incident)));
    group.finish();
}

criterion_group!(benches, hour);
criterion_main!(benches);
