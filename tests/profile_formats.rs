//! Files of profiles, opened by the programs they are made for.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test writes a file and starts a program"
)]

use std::path::Path;
use std::process::Command;

use stallscope::profile::stacks::{
    Frame, Kind, Maker, Module, Profile, Sample, Space, Stack, Thread,
};
use stallscope::profile::{firefox, pprof};

/// Ten seconds of a thread that computes, three of them in a function that was inlined.
fn profile(kind: Kind) -> Profile {
    let frame = |function: &str, inlined| Frame {
        function: function.to_owned(),
        file: Some(String::from("src/main.rs")),
        line: Some(7),
        module: Some(0),
        address: 0x1_2340,
        space: Space::User,
        inlined,
        guessed: false,
    };
    let kernel = Frame {
        function: String::from("do_syscall_64"),
        file: None,
        line: None,
        module: Some(1),
        address: 0xffff_ffff_8100_0000,
        space: Space::Kernel,
        inlined: false,
        guessed: false,
    };
    let module = |path: &str, build_id: Option<&str>| Module {
        path: path.to_owned(),
        build_id: build_id.map(str::to_owned),
    };
    let sample = |number: u64, stack| Sample {
        at_ns: 5_000_000_000 + number * 1_000_000_000,
        thread: 0,
        stack: Some(stack),
        weight_ns: 1_000_000_000,
        on_cpu: kind == Kind::Cpu,
    };
    Profile {
        kind,
        maker: Maker::Watcher,
        pid: 100,
        comm: String::from("server"),
        begin_ns: 5_000_000_000,
        end_ns: 15_000_000_000,
        hz: 1,
        threads: vec![Thread { tid: 100, name: String::from("server") }],
        modules: vec![
            module("/usr/bin/server", Some("0123456789abcdef")),
            module("[kernel]", None),
        ],
        frames: vec![
            frame("server::main", false),
            frame("server::checksum", false),
            frame("server::rotate", true),
            kernel,
        ],
        stacks: vec![
            Stack { parent: None, frame: 0 },
            Stack { parent: Some(0), frame: 1 },
            Stack { parent: Some(1), frame: 2 },
            Stack { parent: Some(0), frame: 3 },
        ],
        samples: (0..10).map(|n| sample(n, [1, 1, 1, 1, 1, 2, 2, 2, 3, 3][n as usize])).collect(),
        notes: vec![String::from("threads that ended before they were looked at are not in it")],
    }
}

/// `go`, as found in PATH or where its own installer puts it.
fn go() -> Option<Command> {
    let found = ["go", "/usr/local/go/bin/go"].into_iter().find(|go| {
        Command::new(go).arg("version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no go in PATH: pprof files are unchecked"
        );
        println!("there is no go in PATH: not checked");
    }
    found.map(Command::new)
}

#[test]
fn go_tool_pprof_reads_what_was_written() {
    let Some(_) = go() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (Kind::Cpu, "Type: cpu", "Duration: 10s, Total samples = 10s"),
        (Kind::OffCpu, "Type: offcpu", "Total samples = 10s"),
        (Kind::Wall, "Type: wall", "Total samples = 10s"),
    ];
    for (kind, kind_line, total) in cases {
        let file = folder.path().join(format!("{kind:?}.pb.gz"));
        let bytes = pprof::encode(&profile(kind), |mono_ns| mono_ns).unwrap();
        std::fs::write(&file, bytes).unwrap();
        let top = top(&file, folder.path());
        assert!(top.contains("File: server") && top.contains(kind_line), "{top}");
        assert!(top.contains(total), "{top}");
        // flat flat% sum% cum cum% name: half of it in the function, three parts in what it inlined.
        let row = |name: &str| -> Vec<String> {
            let found = top.lines().find(|line| line.contains(name));
            let line = found.unwrap_or_else(|| panic!("no {name} in {top}"));
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(row("server::checksum")[..5], ["5s", "50.00%", "50.00%", "8s", "80.00%"]);
        assert_eq!(row("server::rotate")[..2], ["3s", "30.00%"]);
        assert!(row("server::rotate").contains(&String::from("(inline)")), "{top}");
        assert_eq!(row("do_syscall_64")[..2], ["2s", "20.00%"]);
        assert_eq!(row("server::main")[3..5], ["10s", "100%"]);
    }
}

fn top(file: &Path, folder: &Path) -> String {
    let output = go()
        .unwrap()
        .args(["tool", "pprof", "-top", "-nodecount=10"])
        .arg(file)
        // It keeps what it fetched in a folder of its own.
        .env("PPROF_TMPDIR", folder)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_same_profile_gives_the_same_bytes() {
    for kind in [Kind::Cpu, Kind::OffCpu, Kind::Wall] {
        let profile = profile(kind);
        let real = |mono_ns: u64| mono_ns + 1_700_000_000_000_000_000;
        assert_eq!(pprof::encode(&profile, real).unwrap(), pprof::encode(&profile, real).unwrap());
        assert_eq!(
            firefox::encode(&profile, real).unwrap(),
            firefox::encode(&profile, real).unwrap()
        );
    }
}
