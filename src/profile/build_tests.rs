//! What was caught, by hand, and what comes of it.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_probes::stacks::symbols::Named;

use super::*;

const MS: u64 = 1_000_000;

fn raw(kernel: &[u64], user: &[u64], end: End) -> RawStack {
    RawStack {
        kernel: kernel.to_vec(),
        kernel_names: Vec::new(),
        user: user.to_vec(),
        guessed_from: None,
        end,
    }
}

fn wait(tid: i32, begin_ns: u64, end_ns: u64, stack: Option<StackId>) -> Caught {
    Caught::Waited(Wait { tid, begin_ns, end_ns, stack, preempted: false })
}

fn ran(at_ns: u64, stack: StackId) -> Caught {
    Caught::Ran { at_ns, tid: 1, stack, period_ns: 10 }
}

/// The profile of one kind, of these stacks by number; no address has a name.
fn built(kind: Kind, window_ns: (u64, u64), caught: &[Caught], raws: &[RawStack]) -> Profile {
    let mut stacks = Stacks::default();
    for raw in raws {
        stacks.id_of(raw.clone());
    }
    let symbols = Symbols::new(Path::new("/nowhere"), 1);
    let threads = BTreeMap::from([(1, String::from("worker")), (2, String::new())]);
    let material = Material {
        stacks: &stacks,
        symbols: &symbols,
        threads: &threads,
        pid: 1,
        comm: "server",
        hz: 99,
    };
    build(kind, window_ns.0, window_ns.1, caught, &material)
}

/// Functions of a sample, outermost first.
fn functions(profile: &Profile, sample: &Sample) -> Vec<String> {
    profile.frames_of(sample.stack).iter().map(|frame| frame.function.clone()).collect()
}

/// End, weight and functions of every sample.
fn told(profile: &Profile) -> Vec<(u64, u64, String)> {
    let tell =
        |sample: &Sample| (sample.at_ns, sample.weight_ns, functions(profile, sample).join(";"));
    profile.samples.iter().map(tell).collect()
}

fn sample(at_ns: u64, weight_ns: u64, functions: &str) -> (u64, u64, String) {
    (at_ns, weight_ns, functions.to_owned())
}

#[test]
fn each_kind_takes_what_it_counts_and_only_within_its_window() {
    let raws = [raw(&[], &[0x10], End::Root)];
    let caught = [
        ran(49, 0),
        ran(50, 0),
        ran(99, 0),
        ran(100, 0),
        wait(1, 10, 50, Some(0)),
        wait(1, 40, 60, Some(0)),
        wait(1, 70, 75, Some(0)),
        wait(1, 95, 200, Some(0)),
        wait(1, 100, 200, Some(0)),
    ];
    let of = |kind| told(&built(kind, (50, 100), &caught, &raws));
    let on_cpu = [sample(50, 10, "0x10"), sample(99, 10, "0x10")];
    let waits = [sample(60, 10, "0x10"), sample(75, 5, "0x10"), sample(100, 5, "0x10")];
    assert_eq!(of(Kind::Cpu), on_cpu);
    assert_eq!(of(Kind::OffCpu), waits);
    let mut all = [&on_cpu[..], &waits].concat();
    all.sort();
    assert_eq!(of(Kind::Wall), all);
    let wall = built(Kind::Wall, (50, 100), &caught, &raws);
    assert_eq!(wall.samples.iter().filter(|sample| sample.on_cpu).count(), 2);
    // What goes over both ends is the whole window long.
    let over = built(Kind::OffCpu, (50, 100), &[wait(1, 0, u64::MAX, Some(0))], &raws);
    assert_eq!(told(&over), [sample(100, 50, "0x10")]);
}

#[test]
fn unknown_waits_are_spread_over_known_ones_of_their_thread_and_length() {
    let raws = [raw(&[], &[0x10], End::Root), raw(&[], &[0x20], End::Root)];
    let long = LONG_NS;
    let caught = [
        // Short ones of thread 1: 1 and 3 ms known, 4 ms not.
        wait(1, 0, MS, Some(0)),
        wait(1, 10 * MS, 13 * MS, Some(1)),
        wait(1, 20 * MS, 24 * MS, None),
        // A long one, of which nothing is known: not short ones' business.
        wait(1, 30 * MS, 30 * MS + long, None),
        // Another thread knows none of its short ones.
        wait(2, 0, 2 * MS, None),
        wait(2, 10 * MS, 10 * MS + long, Some(0)),
        wait(2, 100 * MS, 100 * MS + 2 * long, None),
    ];
    let profile = built(Kind::OffCpu, (0, 1_000 * MS), &caught, &raws);
    let mut expected = [
        sample(MS, 2 * MS, "0x10"),
        sample(13 * MS, 6 * MS, "0x20"),
        sample(30 * MS + long, long, ""),
        sample(2 * MS, 2 * MS, ""),
        sample(10 * MS + long, 3 * long, "0x10"),
    ];
    expected.sort();
    assert_eq!(told(&profile), expected);
    let names: Vec<&str> = profile.threads.iter().map(|thread| thread.name.as_str()).collect();
    assert_eq!(names, ["worker", "2"], "one without a name is told by its number");
}

#[test]
fn only_the_part_within_the_window_decides_what_is_long_and_what_is_spread() {
    let raws = [raw(&[], &[0x10], End::Root)];
    // Outside the window it would be a known wait of the same class.
    let caught = [wait(1, 0, 20, Some(0)), wait(1, 90, 300, None)];
    let profile = built(Kind::OffCpu, (50, 200), &caught, &raws);
    assert_eq!(told(&profile), [sample(200, 110, "")]);
}

#[test]
fn who_would_have_run_on_waits_for_a_cpu_within_its_function() {
    let raws = [raw(&[0x90], &[0x10], End::Root)];
    let preempted = Wait { tid: 1, begin_ns: 0, end_ns: 10, stack: Some(0), preempted: true };
    let caught = [Caught::Waited(preempted), wait(1, 20, 30, Some(0))];
    let profile = built(Kind::OffCpu, (0, 100), &caught, &raws);
    let innermost = format!("0x10;0x90;{PREEMPTED}");
    assert_eq!(told(&profile), [sample(10, 10, &innermost), sample(30, 10, "0x10;0x90")]);
    let frames = profile.frames_of(profile.samples[0].stack);
    assert_eq!(frames.last().map(|frame| frame.space), Some(Space::Kernel));
}

#[test]
fn frames_stand_outermost_first_and_say_what_is_not_known_of_them() {
    let guessed = RawStack { guessed_from: Some(1), ..raw(&[], &[0x10, 0x21, 0x31], End::Cut) };
    let by_name = RawStack {
        kernel_names: vec![String::from("pipe_read"), String::from("vfs_read")],
        ..raw(&[], &[0x10], End::Root)
    };
    let raws = [
        guessed,
        by_name,
        raw(&[0x90, 0x81], &[0x10, 0x21], End::Root),
        raw(&[], &[0x10], End::Lost),
        raw(&[], &[0x10], End::Deep),
        raw(&[0x90], &[], End::Lost),
        raw(&[], &[], End::Lost),
    ];
    let caught: Vec<Caught> = (0..raws.len() as u32).map(|id| ran(u64::from(id), id)).collect();
    let profile = built(Kind::Cpu, (0, 100), &caught, &raws);
    let told: Vec<String> = told(&profile).into_iter().map(|(.., stack)| stack).collect();
    let expected = [
        // A return address lies behind its call.
        format!("{LOST};0x30;0x20;0x10"),
        String::from("0x10;vfs_read;pipe_read"),
        String::from("0x20;0x10;0x80;0x90"),
        format!("{LOST};0x10"),
        String::from("(outer frames cut);0x10"),
        String::from("0x90"),
        String::new(),
    ];
    assert_eq!(told, expected);
    let guessed: Vec<bool> =
        profile.frames_of(profile.samples[0].stack).iter().map(|frame| frame.guessed).collect();
    assert_eq!(guessed, [false, true, true, false], "the innermost was not searched for");
    let spaces: Vec<Space> =
        profile.frames_of(profile.samples[2].stack).iter().map(|frame| frame.space).collect();
    assert_eq!(spaces, [Space::User, Space::User, Space::Kernel, Space::Kernel]);
    assert_eq!(profile.samples[6].stack, None, "nothing at all is no frame");
}

#[test]
fn inlined_functions_stand_within_the_one_that_they_were_merged_into() {
    let stacks = Stacks::default();
    let symbols = Symbols::new(Path::new("/nowhere"), 1);
    let threads = BTreeMap::new();
    let material =
        Material { stacks: &stacks, symbols: &symbols, threads: &threads, pid: 1, comm: "", hz: 1 };
    let mut builder = Builder::new(&material);
    let named = |function: &str, line, inlined| Named {
        function: function.to_owned(),
        file: Some(String::from("/home/me/server/src/ring.rs")),
        line,
        inlined,
    };
    let module = Some(String::from("/usr/bin/server"));
    let place = Place {
        module: module.clone(),
        address: 0x1f,
        functions: vec![named("server::run", Some(7), false), named("poll<T>", Some(9), true)],
    };
    let unknown = Place { module, address: 0x2f, functions: Vec::new() };
    let stack = builder.push_place(None, &place, Space::User, true);
    let stack = builder.push_place(stack, &unknown, Space::User, false);
    let again = builder.push_place(None, &place, Space::User, true);
    let profile = builder.finish(Kind::Cpu, 0, 1);
    let frames = profile.frames_of(stack);
    let told: Vec<_> = frames
        .iter()
        .map(|frame| (frame.function.as_str(), frame.line, frame.inlined, frame.guessed))
        .collect();
    let expected = [
        ("server::run", Some(7), false, true),
        ("ring::poll", Some(9), true, true),
        ("server+0x2f", None, false, false),
    ];
    assert_eq!(told, expected);
    assert_eq!(profile.frames_of(again).len(), 2);
    let stored = (profile.modules.len(), profile.frames.len(), profile.stacks.len());
    assert_eq!(stored, (1, 3, 3), "each once");
}

#[test]
fn addresses_are_looked_up_where_the_call_is() {
    let stack = raw(&[0x90, 0x81], &[0x10, 0x21, 0], End::Root);
    assert_eq!(addresses(&stack), (vec![0x10, 0x20, u64::MAX], vec![0x90, 0x80]));
}

#[test]
fn samples_beyond_the_bound_are_counted_and_told() {
    let caught: Vec<Caught> = (0..SAMPLES_MAX as u64 + 3).map(|at_ns| ran(at_ns, 0)).collect();
    let raws = [raw(&[], &[0x10], End::Root)];
    let profile = built(Kind::Cpu, (0, u64::MAX), &caught, &raws);
    assert_eq!(profile.samples.len(), SAMPLES_MAX);
    assert_eq!(profile.notes, ["3 samples beyond 1000000 were left out"]);
}

fn any_wait() -> impl Strategy<Value = Wait> {
    let length_ns = prop_oneof![0..LONG_NS, LONG_NS - 2..LONG_NS + 2, LONG_NS..30 * LONG_NS];
    let stack = proptest::option::of(0..3_u32);
    (1..4_i32, 0..40 * LONG_NS, length_ns, stack, any::<bool>()).prop_map(
        |(tid, begin_ns, length_ns, stack, preempted)| Wait {
            tid,
            begin_ns,
            end_ns: begin_ns + length_ns,
            stack,
            preempted,
        },
    )
}

proptest! {
    #[test]
    fn no_time_is_lost_by_spreading_it_but_what_rounding_takes(
        waits in vec(any_wait(), 0..60),
        begin_ns in 0..30 * LONG_NS,
        length_ns in 0..40 * LONG_NS,
    ) {
        let raws = [0x10, 0x20, 0x30].map(|address| raw(&[], &[address], End::Root));
        let caught: Vec<Caught> = waits.iter().copied().map(Caught::Waited).collect();
        let window_ns = (begin_ns, begin_ns + length_ns);
        let profile = built(Kind::OffCpu, window_ns, &caught, &raws);
        for tid in 1..4 {
            let of_thread = waits.iter().filter(|wait| wait.tid == tid);
            let lengths = of_thread.map(|wait| {
                wait.end_ns.min(window_ns.1).saturating_sub(wait.begin_ns.max(window_ns.0))
            });
            let waited_ns: u64 = lengths.sum();
            let samples: Vec<&Sample> = profile
                .samples
                .iter()
                .filter(|sample| profile.threads[sample.thread as usize].tid == tid)
                .collect();
            let weight_ns: u64 = samples.iter().map(|sample| sample.weight_ns).sum();
            prop_assert!(weight_ns <= waited_ns);
            prop_assert!(waited_ns - weight_ns <= samples.len() as u64, "{weight_ns} of {waited_ns}");
        }
        for sample in &profile.samples {
            prop_assert!((window_ns.0..=window_ns.1).contains(&sample.at_ns) && !sample.on_cpu);
        }
        prop_assert!(profile.samples.is_sorted_by_key(|sample| sample.at_ns));
    }
}
