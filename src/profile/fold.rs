//! A [`Profile`] to folded text, the heaviest stacks first, in a bounded number of bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::folded::{COUNT_MAX, FRAME_CHARS_MAX, FRAMES_MAX, LINE_BYTES_MAX, OTHER_STACKS};
use super::stacks::{Frame, Kind, Profile, Sample, Space};

/// Largest folded text of one window, bytes: as much as a target may hand over itself.
pub const FOLDED_BYTES_MAX: usize = 256 * 1024;
/// What stands where no frame could be had.
pub const NO_FRAMES: &str = "(no frames)";
/// Room for the line of what did not fit: its name and the longest number.
const OTHER_BYTES: usize = OTHER_STACKS.len() + 24;
/// Suffixes of frames that are not plain functions of the program.
const KERNEL: &str = "_[k]";
const INLINED: &str = "_[i]";
const GUESSED: &str = "_[?]";

/// Folded text: `thread;outer;…;inner count` lines.
///
/// The count of [`Kind::Cpu`] is in samples, of the others in microseconds, and never 0. Threads of
/// the same name are one. What does not fit into [`FOLDED_BYTES_MAX`] is summed in a last line.
pub fn fold(profile: &Profile) -> String {
    let lines: BTreeMap<String, u64> = counts(profile);
    let mut lines: Vec<(String, u64)> = lines.into_iter().collect();
    lines.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut text = String::new();
    let mut others = 0_u64;
    for (stack, count) in lines {
        let kept = text.len();
        if others == 0 {
            // Writing to a String cannot fail.
            writeln!(text, "{stack} {count}").ok();
        }
        // After the first that does not fit none is kept: a lighter one must not stand for it.
        if others > 0 || text.len() > FOLDED_BYTES_MAX - OTHER_BYTES {
            text.truncate(kept);
            others = others.saturating_add(count);
        }
    }
    if others > 0 {
        writeln!(text, "{OTHER_STACKS} {others}").ok();
    }
    text
}

/// Stacks as lines without their counts, and the counts.
fn counts(profile: &Profile) -> BTreeMap<String, u64> {
    let mut weights: BTreeMap<(u32, Option<u32>), u64> = BTreeMap::new();
    for sample in &profile.samples {
        let weight = weights.entry((sample.thread, sample.stack)).or_default();
        *weight = weight.saturating_add(match profile.kind {
            Kind::Cpu => samples_of(sample, profile.hz),
            Kind::OffCpu | Kind::Wall => sample.weight_ns,
        });
    }
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for ((thread, stack), weight) in weights {
        let sum = lines.entry(line(profile, thread, stack)).or_default();
        *sum = sum.saturating_add(weight);
    }
    for count in lines.values_mut() {
        if profile.kind != Kind::Cpu {
            // Rounded once they are summed: many short waits are not nothing, and not one each.
            *count = (count.saturating_add(500) / 1_000).max(1);
        }
        // More on one line would be read as damage.
        *count = (*count).min(COUNT_MAX);
    }
    lines
}

/// How many samples one stands for: one, unless it stands for more time than lies between two.
pub(super) fn samples_of(sample: &Sample, hz: u32) -> u64 {
    let samples = (u128::from(sample.weight_ns) * u128::from(hz) + 500_000_000) / 1_000_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX).max(1)
}

fn line(profile: &Profile, thread: u32, stack: Option<u32>) -> String {
    let thread = profile.threads.get(thread as usize);
    let mut line = thread.map_or_else(
        || String::from("(unknown thread)"),
        |thread| match plain(&thread.name, FRAME_CHARS_MAX) {
            name if name.is_empty() => format!("thread {}", thread.tid),
            name => name,
        },
    );
    let frames = profile.frames_of(stack);
    if frames.is_empty() {
        line.push(';');
        line.push_str(NO_FRAMES);
    }
    // One frame of a line is the thread, one says how many are missing. The innermost say what it
    // does, the outermost what for: what is too deep is cut in the middle.
    let cut = (frames.len() > FRAMES_MAX - 1).then(|| frames.len() - (FRAMES_MAX - 2));
    let outer = cut.map_or(frames.len(), |_| (FRAMES_MAX - 2) / 2);
    for (at, frame) in frames.iter().enumerate() {
        match cut {
            Some(cut) if at == outer => {
                write!(line, ";({cut} frames cut)").ok();
            }
            Some(cut) if (outer..outer + cut).contains(&at) => {}
            _ => {
                line.push(';');
                line.push_str(&shown(frame));
            }
        }
    }
    if line.len() > LINE_BYTES_MAX / 2 {
        // No name of a function is that long: noise, which a reader of the text would refuse.
        return String::from("(unreadable names);(unreadable names)");
    }
    line
}

/// A frame as it stands in a line. What it is stands at its end, so the name is cut first.
fn shown(frame: &Frame) -> String {
    let suffix = suffix(frame);
    let mut name = plain(&frame.function, FRAME_CHARS_MAX - KERNEL.len());
    if name.is_empty() {
        name = format!("{:#x}", frame.address);
    }
    name.push_str(suffix);
    name
}

/// How a frame differs from a plain one of the program, as a suffix.
pub(super) const fn suffix(frame: &Frame) -> &'static str {
    match (frame.space, frame.guessed, frame.inlined) {
        (Space::Kernel, ..) => KERNEL,
        (Space::User, true, _) => GUESSED,
        (Space::User, false, true) => INLINED,
        (Space::User, false, false) => "",
    }
}

/// A name without what has a meaning in the format: `;` between frames, line ends between stacks,
/// a blank at its begin (a `;` before it would be part of a type). Cut with a visible mark.
fn plain(name: &str, chars_max: usize) -> String {
    let harmless = |char: char| match char {
        ';' => ',',
        char if char.is_control() => ' ',
        char => char,
    };
    let name = name.trim_matches(|char: char| char.is_whitespace() || char.is_control());
    let mut plain: String = name.chars().take(chars_max).map(harmless).collect();
    if name.chars().nth(chars_max).is_some() {
        plain.pop();
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::folded::merge;
    use super::super::made::{Plan, any_profile, profile};
    use super::*;

    #[test]
    fn stacks_are_counted_in_the_unit_of_their_kind() {
        let cases = [
            (Kind::Cpu, "main;run;poll 2\nmain;run 1\nworker;(no frames) 1\n"),
            (Kind::OffCpu, "main;run;poll 20000\nmain;run 10000\nworker;(no frames) 1\n"),
            (Kind::Wall, "main;run;poll 20000\nmain;run 10000\nworker;(no frames) 1\n"),
        ];
        for (kind, expected) in cases {
            let folded = fold(&profile(&Plan {
                kind,
                samples: &[
                    ("main", &["run", "poll"], 10_000_000),
                    ("main", &["run"], 10_000_000),
                    ("main", &["run", "poll"], 10_000_000),
                    ("worker", &[], 1),
                ],
            }));
            assert_eq!(folded, expected, "{kind:?}");
        }
    }

    #[test]
    fn threads_of_one_name_are_one_and_names_are_made_harmless() {
        let folded = fold(&profile(&Plan {
            kind: Kind::Cpu,
            samples: &[
                ("w;1\n", &[" <[u8; 8]>::read", "a\x1b[2J"], 1),
                ("w;1\n", &[" <[u8; 8]>::read", "a\x1b[2J"], 1),
                ("", &[""], 1),
            ],
        }));
        assert_eq!(folded, "w,1;<[u8, 8]>::read;a [2J 2\nthread 2;0x2 1\n");
    }

    #[test]
    fn what_a_frame_is_stands_behind_its_name() {
        let cases = [
            (Space::User, false, false, "f"),
            (Space::User, true, false, "f_[i]"),
            (Space::User, false, true, "f_[?]"),
            (Space::User, true, true, "f_[?]"),
            (Space::Kernel, false, false, "f_[k]"),
            (Space::Kernel, true, false, "f_[k]"),
        ];
        for (space, inlined, guessed, expected) in cases {
            let mut profile =
                profile(&Plan { kind: Kind::Cpu, samples: &[("main", &["f"], 10_101_010)] });
            profile.frames[0] = Frame { space, inlined, guessed, ..profile.frames[0].clone() };
            assert_eq!(fold(&profile), format!("main;{expected} 1\n"));
            // The suffix survives a name that is too long, and its reading.
            profile.frames[0].function = "f".repeat(2 * FRAME_CHARS_MAX);
            let text = fold(&profile);
            let read = merge([text.as_str()]);
            let stack = read.stacks.keys().next().expect("one stack");
            let end = format!("f…{}", expected.trim_start_matches('f'));
            assert!(stack.ends_with(&end), "{stack}");
        }
    }

    #[test]
    fn a_deep_stack_keeps_both_its_ends() {
        let names: Vec<String> = (0..300).map(|n| format!("f{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = fold(&profile(&Plan { kind: Kind::Cpu, samples: &[("main", &names, 1)] }));
        let stack = text.trim_end();
        assert_eq!(stack.split(';').count(), FRAMES_MAX);
        assert!(stack.starts_with("main;f0;f1;") && stack.ends_with(";f299 1"), "{stack}");
        assert!(stack.contains(";f62;(174 frames cut);f237;"), "{stack}");
    }

    #[test]
    fn what_does_not_fit_is_summed_and_is_the_lightest() {
        let names: Vec<String> = (0..5_000).map(|n| format!("{n:05}{}", "x".repeat(150))).collect();
        let stacks: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
        let samples: Vec<(&str, &[&str], u64)> = stacks
            .iter()
            .enumerate()
            .map(|(at, stack)| ("main", &stack[..], 1_000 * (at as u64 + 1)))
            .collect();
        let text = fold(&profile(&Plan { kind: Kind::Wall, samples: &samples }));
        assert!(text.len() <= FOLDED_BYTES_MAX, "{}", text.len());
        assert!(text.len() > FOLDED_BYTES_MAX - 1_000, "{}", text.len());
        assert!(text.starts_with(&format!("main;{} 5000\n", names[4_999])));
        let read = merge([text.as_str()]);
        assert_eq!((read.samples, read.bad_lines), (5_000 * 5_001 / 2, 0));
        let kept = text.lines().count() as u64 - 1;
        let others = (1..=5_000 - kept).sum::<u64>();
        assert!(text.ends_with(&format!("(other stacks) {others}\n")));
    }

    proptest! {
        #[test]
        fn whatever_was_caught_is_folded_and_read_again(profile in any_profile()) {
            let text = fold(&profile);
            let read = merge([text.as_str()]);
            prop_assert_eq!(read.bad_lines, 0);
            prop_assert!(text.len() <= FOLDED_BYTES_MAX);
            let sum = counts(&profile).values().fold(0_u64, |sum, n| sum.saturating_add(*n));
            prop_assert_eq!(read.samples, sum);
            if profile.kind == Kind::Cpu {
                let samples = profile.samples.iter().map(|sample| samples_of(sample, profile.hz));
                prop_assert_eq!(sum, samples.sum::<u64>());
            }
            prop_assert_eq!(fold(&profile), text);
        }

        #[test]
        fn the_order_of_samples_is_nothing_to_it(profile in any_profile(), keys in vec(any::<u32>(), 12)) {
            let mut mixed = profile.clone();
            let mut keyed: Vec<(u32, Sample)> =
                mixed.samples.iter().zip(keys.iter().cycle()).map(|(sample, key)| (*key, *sample)).collect();
            keyed.sort_by_key(|(key, _)| *key);
            mixed.samples = keyed.into_iter().map(|(_, sample)| sample).collect();
            prop_assert_eq!(fold(&mixed), fold(&profile));
        }
    }
}
