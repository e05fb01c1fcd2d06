//! Made-up profiles for the tests of this folder.

use proptest::collection::vec;
use proptest::prelude::*;

use super::stacks::{Frame, Kind, Maker, Module, Profile, Sample, Space, Stack, Thread};

/// Names of thread and frames, outermost first, and weight in ns of each sample.
pub struct Plan<'a> {
    pub kind: Kind,
    pub samples: &'a [(&'a str, &'a [&'a str], u64)],
}

/// A profile of it: of `server`, pid 1, one second from 5 s on, 99 Hz; samples 10 ms apart.
pub fn profile(plan: &Plan<'_>) -> Profile {
    let mut profile = Profile {
        kind: plan.kind,
        maker: Maker::Watcher,
        pid: 1,
        comm: String::from("server"),
        begin_ns: 5_000_000_000,
        end_ns: 6_000_000_000,
        hz: 99,
        threads: Vec::new(),
        modules: vec![Module {
            path: String::from("/usr/bin/server"),
            build_id: Some(String::from("c0ffee")),
        }],
        frames: Vec::new(),
        stacks: Vec::new(),
        samples: Vec::new(),
        notes: vec![String::from("a note")],
    };
    for (number, (thread, names, weight_ns)) in plan.samples.iter().enumerate() {
        let thread = thread_of(&mut profile, thread);
        let mut stack = None;
        for name in *names {
            let frame = frame_of(&mut profile, name);
            stack = Some(stack_of(&mut profile, Stack { parent: stack, frame }));
        }
        let at_ns = profile.begin_ns + 10_000_000 * (number as u64 + 1);
        let on_cpu = plan.kind == Kind::Cpu;
        profile.samples.push(Sample { at_ns, thread, stack, weight_ns: *weight_ns, on_cpu });
    }
    profile
}

fn thread_of(profile: &mut Profile, name: &str) -> u32 {
    let known = profile.threads.iter().position(|thread| thread.name == name);
    known.unwrap_or_else(|| {
        let tid = profile.threads.len() as i32 + 1;
        profile.threads.push(Thread { tid, name: name.to_owned() });
        profile.threads.len() - 1
    }) as u32
}

fn frame_of(profile: &mut Profile, name: &str) -> u32 {
    let known = profile.frames.iter().position(|frame| frame.function == name);
    known.unwrap_or_else(|| {
        profile.frames.push(Frame {
            function: name.to_owned(),
            file: Some(format!("{name}.rs")),
            line: Some(7),
            module: Some(0),
            address: profile.frames.len() as u64,
            space: Space::User,
            inlined: false,
            guessed: false,
        });
        profile.frames.len() - 1
    }) as u32
}

fn stack_of(profile: &mut Profile, stack: Stack) -> u32 {
    let known = profile.stacks.iter().position(|other| *other == stack);
    known.unwrap_or_else(|| {
        profile.stacks.push(stack);
        profile.stacks.len() - 1
    }) as u32
}

/// Any profile, with indices that lead nowhere now and then.
pub fn any_profile() -> impl Strategy<Value = Profile> {
    let kind = prop_oneof![Just(Kind::Cpu), Just(Kind::OffCpu), Just(Kind::Wall)];
    let thread = (1..9_i32, ".{0,20}").prop_map(|(tid, name)| Thread { tid, name });
    let stack = (proptest::option::of(0..12_u32), 0..9_u32)
        .prop_map(|(parent, frame)| Stack { parent, frame });
    let parts = (
        kind,
        vec(thread, 0..4),
        vec(any_frame(), 0..9),
        vec(stack, 0..12),
        vec(any_sample(), 0..30),
        vec(".{0,30}", 0..3),
        prop_oneof![Just(0_u32), Just(99), 1..10_000_u32],
    );
    parts.prop_map(|(kind, threads, frames, mut stacks, mut samples, notes, hz)| {
        // Callers stand first; now and then one is a root.
        for (at, stack) in stacks.iter_mut().enumerate() {
            stack.parent = stack.parent.filter(|parent| (*parent as usize) < at);
        }
        samples.sort_by_key(|sample| sample.at_ns);
        let (modules, comm) = (
            ["/usr/bin/server", "[kernel]"]
                .map(|path| Module { path: path.into(), build_id: None }),
            String::from("server"),
        );
        Profile {
            kind,
            maker: Maker::Watcher,
            pid: 1,
            comm,
            begin_ns: 1_000_000_000,
            end_ns: 2_000_000_000,
            hz,
            threads,
            modules: modules.into(),
            frames,
            stacks,
            samples,
            notes,
        }
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let name = prop_oneof![2 => ".{0,20}", 2 => "[a-c](::[a-c]){0,2}", 1 => "[a-z<>;: ]{150,400}"];
    let module = proptest::option::of(0..3_u32);
    let more = (any::<u64>(), any::<bool>(), any::<bool>(), any::<bool>());
    let line = proptest::option::of(any::<u32>());
    (name, module, line, more).prop_map(|(function, module, line, more)| {
        let (address, kernel, inlined, guessed) = more;
        let space = if kernel { Space::Kernel } else { Space::User };
        let file = line.map(|line| format!("{line}.rs"));
        Frame { function, file, line, module, address, space, inlined, guessed }
    })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let stack = proptest::option::of(0..13_u32);
    let weight = prop_oneof![0..3_000_u64, 0..100_000_000_u64];
    (900_000_000..2_000_000_000_u64, 0..5_u32, stack, weight, any::<bool>()).prop_map(
        |(at_ns, thread, stack, weight_ns, on_cpu)| Sample {
            at_ns,
            thread,
            stack,
            weight_ns,
            on_cpu,
        },
    )
}
