//! Folded stacks: `thread;outer;inner count` lines (the format of `stackcollapse-*.pl`).

use std::collections::BTreeMap;

use super::printable::printable;

/// Longest line read; longer ones count as bad.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Lines read in all.
pub const LINES_MAX: usize = 1_000_000;
/// Distinct stacks kept; samples of further ones are summed under [`OTHER_STACKS`].
pub const STACKS_MAX: usize = 20_000;
/// Frames kept per stack, the outermost first.
pub const FRAMES_MAX: usize = 128;
/// Characters kept per frame.
pub const FRAME_CHARS_MAX: usize = 160;
/// Samples on one line: more is damage, not a profile (a year at 100 Hz is 3e9).
pub const COUNT_MAX: u64 = 4_000_000_000;
/// Name under which what exceeds a bound is summed.
pub const OTHER_STACKS: &str = "(other stacks)";

/// Stacks of one or several windows, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// Cleaned frames joined by `;`, and their samples.
    pub stacks: BTreeMap<String, u64>,
    /// Samples in all.
    pub samples: u64,
    /// Lines that were not `stack count`.
    pub bad_lines: u64,
    /// Samples whose stack was not kept, because there were more than [`STACKS_MAX`] or
    /// [`LINES_MAX`].
    pub cut_samples: u64,
}

/// Merges the folded text of several windows.
pub fn merge<'a>(texts: impl IntoIterator<Item = &'a str>) -> Folded {
    let mut folded = Folded::default();
    let lines = texts.into_iter().flat_map(str::lines).filter(|line| !line.trim().is_empty());
    for (number, line) in lines.enumerate() {
        let Some((stack, count)) = parse_line(line) else {
            folded.bad_lines += 1;
            continue;
        };
        folded.add(stack, count, number < LINES_MAX);
    }
    folded
}

/// One line: the stack, cleaned, and its count.
fn parse_line(line: &str) -> Option<(String, u64)> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let (stack, count) = line.trim_end().rsplit_once([' ', '\t'])?;
    let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?;
    let stack = stack.trim();
    if stack.is_empty() {
        return None;
    }
    let mut frames: Vec<String> =
        split_frames(stack).take(FRAMES_MAX + 1).map(clean_frame).collect();
    if frames.len() > FRAMES_MAX {
        frames.truncate(FRAMES_MAX - 1);
        frames.push(String::from("(deeper frames cut)"));
    }
    Some((frames.join(";"), count))
}

/// Splits at `;`, but not within a Rust type such as `[u8; 8]`, where a blank follows.
fn split_frames(stack: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(stack);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text
            .match_indices(';')
            .map(|(at, _)| at)
            .find(|at| !text.get(at + 1..).is_some_and(|after| after.starts_with(' ')));
        if let Some(at) = end {
            rest = text.get(at + 1..);
            text.get(..at)
        } else {
            rest = None;
            Some(text)
        }
    })
}

/// What a frame may end in, and what that means.
const MARKS: [(&str, &str); 3] =
    [("_[k]", " [kernel]"), ("_[i]", " [inlined]"), ("_[?]", " [guessed]")];

/// Frames with their marks in words: the form that is shown, not the one that is kept.
pub fn in_words(frames: &str) -> String {
    MARKS.iter().fold(frames.to_owned(), |text, (mark, word)| text.replace(mark, word))
}

/// A frame as it can be shown and as the drawing cannot misread it: without the hash that rustc
/// appends to symbols, without separators, without an ending that looks like a count.
fn clean_frame(frame: &str) -> String {
    let (name, marks) = split_marks(frame.trim());
    let mut shown = printable(trim_hash(name), FRAME_CHARS_MAX).replace(';', ",");
    if shown.is_empty() {
        shown.push_str("(unnamed)");
    }
    shown.push_str(marks);
    // inferno reads `name 3 5` as a difference of two counts, and `# …` as a comment.
    match shown.rsplit_once(' ') {
        Some((head, tail)) if tail.chars().all(|c| c.is_ascii_digit() || c == '.') => {
            format!("{head}\u{a0}{tail}")
        }
        _ => shown.strip_prefix("# ").map(|rest| format!("#\u{a0}{rest}")).unwrap_or(shown),
    }
}

/// The name and the marks it ends in, each at most once.
fn split_marks(frame: &str) -> (&str, &str) {
    let mut name = frame;
    for _ in MARKS {
        name = MARKS.iter().find_map(|(mark, _)| name.strip_suffix(mark)).unwrap_or(name);
    }
    (name, frame.get(name.len()..).unwrap_or_default())
}

/// Without `::h0123456789abcdef`.
fn trim_hash(symbol: &str) -> &str {
    match symbol.rsplit_once("::h") {
        Some((head, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            head
        }
        _ => symbol,
    }
}

impl Folded {
    fn add(&mut self, stack: String, count: u64, keep: bool) {
        self.samples = self.samples.saturating_add(count);
        if let Some(sum) = self.stacks.get_mut(&stack) {
            *sum = sum.saturating_add(count);
        } else if keep && self.stacks.len() < STACKS_MAX {
            self.stacks.insert(stack, count);
        } else {
            self.cut_samples = self.cut_samples.saturating_add(count);
        }
    }

    /// The heaviest stacks, at most `stacks_max`, as lines; the others are summed up in one.
    pub fn lines(&self, stacks_max: usize) -> Vec<String> {
        let mut stacks: Vec<(&String, &u64)> = self.stacks.iter().collect();
        stacks.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let rest = stacks.split_off(stacks.len().min(stacks_max));
        let other = rest.iter().fold(self.cut_samples, |sum, (_, n)| sum.saturating_add(**n));
        let mut lines: Vec<String> =
            stacks.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
        if other > 0 {
            lines.push(format!("{OTHER_STACKS} {other}"));
        }
        lines
    }

    /// Samples by thread (the outermost frame), most first.
    pub fn by_thread(&self) -> Vec<(String, u64)> {
        self.summed(|stack| stack.split(';').next())
    }

    /// Samples by innermost frame, most first: where the CPU was at that instant.
    pub fn by_leaf(&self) -> Vec<(String, u64)> {
        self.summed(|stack| stack.rsplit(';').next())
    }

    /// Samples by the innermost frame of the program, most first: what a thread waits in, the kernel's
    /// way of waiting left aside.
    pub fn by_call(&self) -> Vec<(String, u64)> {
        self.summed(|stack| {
            let in_program = |frame: &&str| !frame.contains("_[k]");
            stack.rsplit(';').find(in_program).or_else(|| stack.rsplit(';').next())
        })
    }

    fn summed(&self, key: impl Fn(&str) -> Option<&str>) -> Vec<(String, u64)> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (stack, count) in &self.stacks {
            if let Some(key) = key(stack) {
                let sum = sums.entry(key).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        let mut sums: Vec<(String, u64)> =
            sums.into_iter().map(|(key, sum)| (key.to_owned(), sum)).collect();
        sums.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        sums
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(line: &str) -> Option<(String, u64)> {
        let folded = merge([line]);
        folded.stacks.into_iter().next()
    }

    #[test]
    fn lines_are_cleaned_or_counted_as_bad() {
        let cases = [
            ("main;run;poll 7", Some(("main;run;poll", 7))),
            ("main;run::h0123456789abcdef 1", Some(("main;run", 1))),
            (
                "main;run::h0123456789abcdef_[i];futex_wait_[k] 1",
                Some(("main;run_[i];futex_wait_[k]", 1)),
            ),
            ("main;_[k] 1", Some(("main;(unnamed)_[k]", 1))),
            ("main;run::hello 1", Some(("main;run::hello", 1))),
            ("main;<[u8; 8] as Read>::read;x 2", Some(("main;<[u8, 8] as Read>::read;x", 2))),
            ("main;;x 2", Some(("main;(unnamed);x", 2))),
            ("# main;x 2", Some(("#\u{a0}main;x", 2))),
            ("main;worker 3 5", Some(("main;worker\u{a0}3", 5))),
            ("a\x1b[2J;b 1", Some(("a\\x1b[2J;b", 1))),
            ("main;x", None),
            ("main;x -1", None),
            ("main;x 0", None),
            ("main;x 99999999999999999999999", None),
            (" 5", None),
            ("5", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(stack, count): (&str, u64)| (stack.to_owned(), count));
            assert_eq!(only(line), expected, "{line:?}");
            assert_eq!(merge([line]).bad_lines, u64::from(expected.is_none()), "{line:?}");
        }
    }

    #[test]
    fn marks_are_told_in_words() {
        assert_eq!(in_words("main;a_[i];b_[k] 1"), "main;a [inlined];b [kernel] 1");
        assert_eq!(in_words("c_[i]_[?]"), "c [inlined] [guessed]");
    }

    #[test]
    fn windows_are_summed_and_empty_text_is_no_bad_line() {
        let folded = merge(["a;b 1\n\na;c 2\n", "", "a;b 3\nnonsense\n"]);
        assert_eq!(folded.samples, 6);
        assert_eq!(folded.bad_lines, 1);
        assert_eq!(folded.stacks.get("a;b"), Some(&4));
        assert_eq!(folded.by_thread(), [(String::from("a"), 6)]);
        assert_eq!(folded.by_leaf(), [(String::from("b"), 4), (String::from("c"), 2)]);
        assert_eq!(folded.lines(1), ["a;b 4", "(other stacks) 2"]);
    }

    #[test]
    fn what_is_waited_in_is_the_programs_call() {
        let folded = merge(["t;read;vfs_read_[k];schedule_[k] 5\nt;poll_[i] 2\nx_[k] 1\n"]);
        let calls = [("read", 5), ("poll_[i]", 2), ("x_[k]", 1)];
        assert_eq!(folded.by_call(), calls.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn depth_and_width_are_bounded_and_no_sample_is_lost() {
        let deep = format!("{} 1", vec!["f"; FRAMES_MAX + 1].join(";"));
        let (stack, _) = only(&deep).expect("one stack");
        assert_eq!(stack.split(';').count(), FRAMES_MAX);
        assert!(stack.ends_with("(deeper frames cut)"));

        let line = |n: usize| format!("t;f{n}x 1");
        let many = (0..STACKS_MAX + 2).map(line).collect::<Vec<_>>().join("\n");
        let folded = merge([many.as_str()]);
        assert_eq!(folded.stacks.len(), STACKS_MAX);
        assert_eq!(folded.cut_samples, 2);
        assert_eq!(folded.samples, STACKS_MAX as u64 + 2);

        let long = format!("{} 1", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(merge([long.as_str()]).bad_lines, 1);
    }

    proptest! {
        #[test]
        fn any_text_is_accounted_for(text in ".{0,40}( [0-9]{1,3})?(\n.{0,40} [1-9])?") {
            let folded = merge([text.as_str()]);
            let kept: u64 = folded.stacks.values().sum();
            prop_assert_eq!(kept + folded.cut_samples, folded.samples);
        }
    }
}
