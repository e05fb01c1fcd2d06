//! What the pipe behind the probes costs: a sample judged, recorded, replayed, drawn, reported.
//! The samples are those of the made-up server of the unit tests, with more threads.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no result")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
// The names by which the made-up server knows its crate.
use stallscope::watch::{engine, event};
use stallscope::{detect, diagnose, report, tui};
use stallscope_probes::sample::{FdLimitRaw, Sample};

use engine::Engine;
use event::{Anchor, EndReason, Environment, Target};
use stallscope::watch::config::Config;
use stallscope::watch::recording::{Frame, Header, Reader, Writer};
use stallscope::watch::replay;
use tui::app::{App, Message};
use world::{Kind, Phase, World};

#[path = "../src/watch/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benchmark uses a part of it")]
mod world;

const KIND: Kind = Kind { ring: true, page: true, rights: true };
const PID: i32 = 100;
const THREADS: i32 = 8;
/// At 50 ms.
const TICKS_A_MINUTE: usize = 1_200;

fn samples(phases: &[(Phase, usize)]) -> Vec<Sample> {
    let mut world = World::new(KIND);
    let ticks = phases.iter().flat_map(|(phase, ticks)| std::iter::repeat_n(*phase, *ticks));
    ticks.map(|phase| with_threads(world.tick(phase))).collect()
}

/// The made-up server has one thread; a real one has librdkafka's beside it.
fn with_threads(mut sample: Sample) -> Sample {
    if let stallscope_probes::Reading::Got(threads) = &mut sample.threads.reading {
        let first = threads[0].clone();
        threads.extend((1..THREADS).map(|n| {
            let mut thread = first.clone();
            thread.tid += n;
            thread.comm = format!("rdk:broker{n}");
            thread
        }));
    }
    sample
}

fn header() -> Header {
    Header {
        target: Target {
            pid: PID,
            comm: String::from("server"),
            cmdline: String::from("server"),
            exe: None,
            start_time_ticks: 7,
            foreign_netns: false,
            siblings: Vec::new(),
        },
        environment: Environment {
            kernel: String::from("Linux"),
            cpus: 2,
            version: String::from("0.1.0"),
            interval_ms: 50,
            ticks_per_s: 100,
            fd_limits: stallscope_probes::Reading::Got(FdLimitRaw {
                soft: Some(64),
                hard: Some(64),
            }),
            limits: Vec::new(),
        },
        anchor: Anchor { mono_ns: 0, real_ns: 0 },
        config: Config::default(),
    }
}

fn record(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, header()).unwrap();
    for frame in frames {
        writer.frame(frame).unwrap();
    }
    bytes
}

fn frames(samples: &[Sample]) -> Vec<Frame> {
    let frame = |sample: &Sample| Frame::Sample(Box::new(sample.clone()));
    samples.iter().map(frame).chain([Frame::End(EndReason::TimeUp)]).collect()
}

/// An engine that has seen these samples.
fn engine_after(samples: &[Sample]) -> Engine {
    let mut engine = Engine::new(PID, 100);
    for sample in samples {
        engine.push(sample);
    }
    engine
}

/// One sample through model, detection and diagnosis.
fn engine_push(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(100));
    let healthy = samples(&[(Phase::Busy, 1_400)]);
    // The stall is a minute old and its verdict given.
    let stalled = samples(&[(Phase::Busy, 100), (Phase::Yield, 1_300)]);
    // The dearest case: nothing explains it, so every tick is examined again.
    let unknown = samples(&[(Phase::Busy, 100), (Phase::LeftBehind, 1_300)]);
    for (name, samples) in [("healthy", healthy), ("stalled", stalled), ("unknown", unknown)] {
        let (before, next) = samples.split_at(1_300);
        assert_eq!(engine_after(before).onset().is_some(), name != "healthy");
        group.bench_function(format!("100 samples, {name}"), |bench| {
            bench.iter_batched_ref(
                || engine_after(before),
                |engine| {
                    for sample in next {
                        black_box(engine.push(sample));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn recording(criterion: &mut Criterion) {
    let minute = samples(&[(Phase::Busy, TICKS_A_MINUTE / 2), (Phase::Yield, TICKS_A_MINUTE / 2)]);
    let frames = frames(&minute);
    let bytes = record(&frames);
    println!(
        "a minute of recording: {} bytes, {} a sample",
        bytes.len(),
        bytes.len() / minute.len()
    );
    let mut group = criterion.benchmark_group("recording");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("write a minute", |bench| bench.iter(|| record(&frames)));
    group.bench_function("read a minute", |bench| {
        bench.iter(|| Reader::open(&bytes[..]).unwrap().count());
    });
    group.bench_function("replay a minute", |bench| {
        bench.iter(|| replay::read(&bytes[..]).unwrap());
    });
    group.finish();
}

fn report_of_ten_minutes(criterion: &mut Criterion) {
    let ten_minutes = samples(&[(Phase::Busy, 9 * TICKS_A_MINUTE), (Phase::Yield, TICKS_A_MINUTE)]);
    let incident = replay::read(&record(&frames(&ten_minutes))[..]).unwrap();
    println!("its report: {} bytes", report::html(&incident).len());
    let mut group = criterion.benchmark_group("report");
    group.bench_function("ten minutes", |bench| bench.iter(|| report::html(&incident)));
    group.finish();
}

/// What `stallscope report` does with an hour's recording, but for the reading of the disk.
fn report_of_an_hour(criterion: &mut Criterion) {
    let hour = samples(&[(Phase::Busy, 59 * TICKS_A_MINUTE), (Phase::Yield, TICKS_A_MINUTE)]);
    let bytes = record(&frames(&hour));
    drop(hour);
    let page = report::html(&replay::read(&bytes[..]).unwrap());
    println!("an hour of recording: {} bytes; its report: {} bytes", bytes.len(), page.len());
    let mut group = criterion.benchmark_group("report");
    group.sample_size(10).measurement_time(Duration::from_secs(15));
    group.bench_function("from an hour of recording", |bench| {
        bench.iter(|| report::html(&replay::read(&bytes[..]).unwrap()));
    });
    group.finish();
}

fn draw(criterion: &mut Criterion) {
    let mut engine = Engine::new(PID, 100);
    let header = header();
    let mut app = App::live(tui::SessionInfo {
        target: header.target,
        environment: header.environment,
        anchor: header.anchor,
        close_after_end: None,
    });
    for sample in samples(&[(Phase::Busy, TICKS_A_MINUTE), (Phase::Yield, 100)]) {
        app.update(Message::Step(engine.push(&sample)));
    }
    let theme = tui::theme::Theme::new(true);
    let mut group = criterion.benchmark_group("tui");
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        group.bench_function(format!("a frame of {width}x{height}"), |bench| {
            bench.iter(|| {
                buffer.reset();
                tui::draw(&mut buffer, &app, theme)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = engine_push, recording, report_of_ten_minutes, report_of_an_hour, draw
}
criterion_main!(benches);
