//! `stallscope stacks`: where every thread is, now.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::target::TargetArgs;
use super::{EXIT_OK, stop};
use crate::profile::shorten::{Part, parts, whereabouts};
use crate::profile::stacks::{Space, StackFrame, ThreadStack, ThreadStacks};
use crate::tui::text::clean;
use crate::watch::stacks::run;
use crate::watch::target;

/// Where every thread of a process is, now.
///
/// System call, kernel frames and the program's own frames with names, also of threads that sleep
/// for ever. Nothing is stopped: sleeping threads are read from outside (no ptrace), running ones
/// caught by the kernel's CPU clock within 0.3 s. Under each stack stands how it was had. Marks: k a
/// frame of the kernel, i inlined into the one below, ? found by searching the stack: a guess.
///
/// Exit status: 0 done, 1 an error, 2 usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Fold the runtime's own frames in a row into one line
    #[arg(long, conflicts_with = "json")]
    short: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stop = stop::on_signal().context("cannot install a signal handler")?;
    let target = target::resolve(args.target.selection())?;
    let stacks = run::stacks_now(&target, &stop)?;
    let text = if args.json {
        let fields = json!({ "pid": target.pid, "comm": target.comm, "stacks": stacks });
        format!("{fields}\n")
    } else {
        text(&stacks, args.short)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")?;
    Ok(ExitCode::from(EXIT_OK))
}

fn text(stacks: &ThreadStacks, short: bool) -> String {
    let mut text = String::new();
    for thread in &stacks.threads {
        // Writing to a String does not fail.
        let _ = of_thread(&mut text, thread, short);
    }
    for note in &stacks.notes {
        let _ = writeln!(text, "note: {}", clean(note));
    }
    text
}

fn of_thread(text: &mut String, thread: &ThreadStack, short: bool) -> std::fmt::Result {
    write!(text, "{} {} ({})", thread.tid, clean(&thread.name), thread.state)?;
    if let Some(syscall) = &thread.syscall {
        write!(text, " in {}", clean(syscall))?;
    }
    if let Some(waited_ms) = thread.waited_ms {
        write!(text, " for {:.1} s", waited_ms as f64 / 1e3)?;
    }
    writeln!(text)?;
    let whole = || thread.frames.iter().map(Part::Frame).collect();
    for part in if short { parts(&thread.frames) } else { whole() } {
        match part {
            Part::Frame(frame) => of_frame(text, frame)?,
            Part::Run { title, .. } => writeln!(text, "    {title}")?,
        }
    }
    writeln!(text, "    [{}]\n", clean(&thread.how))
}

fn of_frame(text: &mut String, frame: &StackFrame) -> std::fmt::Result {
    let mark = match (frame.space, frame.guessed, frame.inlined) {
        (Space::Kernel, ..) => 'k',
        (Space::User, true, _) => '?',
        (Space::User, false, true) => 'i',
        (Space::User, false, false) => ' ',
    };
    write!(text, "  {mark} {}", clean(&frame.function))?;
    if let Some(place) = whereabouts(frame) {
        write!(text, "  {}", clean(&place))?;
    }
    writeln!(text)
}
