//! From the text of a ring's fdinfo to its counters. Pure.

use super::layout::{CQE_TAKES_TWO, EntrySizes};
use crate::reading::{Reading, Why};
use crate::sample::{ArmedRaw, PENDING_OPS_MAX, RingState};

/// Different errnos kept of failed completions.
pub(super) const ERRNOS_MAX: usize = 64;

/// Parses the fdinfo of a ring, of any kernel from 5.10 to 6.18.
///
/// Absent as [`Why::Locked`] when there is only what every fdinfo has, as [`Why::Unsupported`]
/// when the kernel prints no heads and tails (before 5.16).
pub fn parse(bytes: &[u8]) -> Reading<Parsed> {
    let mut scan = Scan::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        scan.line(line);
    }
    scan.finish()
}

/// What the text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The counters.
    pub state: RingState,
    /// The operations in flight; its time is for the caller to fill in.
    pub armed: ArmedRaw,
    /// How long the entries are, where one was listed: longer ones have more fields.
    pub sizes: EntrySizes,
}

/// Which list the indented lines belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    None,
    Submissions,
    Completions,
    Polls,
    Overflow,
    /// Registered files, buffers and personalities: not used.
    Registered,
}

/// What was seen so far. The first value of a key counts: file names further down are the
/// process's own text, and before 6.8 they were printed unescaped.
#[derive(Debug, Default)]
struct Scan {
    section: Section,
    has_common: bool,
    has_section: bool,
    sq_mask: Option<u32>,
    sq_head: Option<u32>,
    sq_tail: Option<u32>,
    cq_mask: Option<u32>,
    cq_head: Option<u32>,
    cq_tail: Option<u32>,
    sq_thread: Option<i32>,
    armed: ArmedRaw,
    pending: Vec<(String, i32)>,
    failed: Vec<(i32, u32)>,
    sizes: EntrySizes,
    /// Keys no version up to 6.18 prints: tests fail on them, so that new kernels announce
    /// themselves.
    #[cfg(test)]
    unknown: Vec<String>,
}

impl Scan {
    fn line(&mut self, line: &str) {
        let is_item =
            line.starts_with(|first: char| first == ' ' || first == '\t' || first.is_ascii_digit());
        if is_item {
            self.item(line.trim());
        } else if let Some((key, value)) = line.split_once(':') {
            self.key(key.trim(), value.trim());
        }
    }

    fn key(&mut self, key: &str, value: &str) {
        self.section = Section::None;
        match key {
            "pos" | "flags" | "mnt_id" | "ino" => {
                self.has_common = true;
                return;
            }
            "SqMask" => keep(&mut self.sq_mask, number(value)),
            "SqHead" => keep(&mut self.sq_head, number(value)),
            "SqTail" => keep(&mut self.sq_tail, number(value)),
            "CqMask" => keep(&mut self.cq_mask, number(value)),
            "CqHead" => keep(&mut self.cq_head, number(value)),
            "CqTail" => keep(&mut self.cq_tail, number(value)),
            "SqThread" => keep(&mut self.sq_thread, value.parse().ok()),
            "SQEs" => self.section = Section::Submissions,
            "CQEs" => self.section = Section::Completions,
            "PollList" => self.section = Section::Polls,
            "CqOverflowList" => self.section = Section::Overflow,
            "UserFiles" | "UserBufs" | "Personalities" => self.section = Section::Registered,
            "CachedSqHead"
            | "CachedCqTail"
            | "SqThreadCpu"
            | "SqTotalTime"
            | "SqWorkTime"
            | "NAPI"
            | "napi tracking"
            | "napi_busy_poll_dt"
            | "napi_prefer_busy_poll" => {}
            other => {
                self.note_unknown(other);
                return;
            }
        }
        self.has_section = true;
    }

    #[cfg(test)]
    fn note_unknown(&mut self, key: &str) {
        self.unknown.push(key.to_owned());
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "under test it takes a note")]
    const fn note_unknown(&self, _key: &str) {}

    fn item(&mut self, line: &str) {
        match self.section {
            Section::Submissions => self.submission(line),
            Section::Completions => self.completion(line),
            Section::Polls => {
                if let Some(op) = field(line, "op=").and_then(|op| op.parse().ok()) {
                    count(&mut self.armed.operations, op, usize::from(u8::MAX) + 1);
                }
            }
            Section::Overflow => {
                if field(line, "user_data=").is_some() {
                    self.armed.overflow = self.armed.overflow.saturating_add(1);
                }
            }
            Section::Registered | Section::None => {}
        }
    }

    /// `   23: opcode:ACCEPT, fd:3, flags:0, …`
    fn submission(&mut self, line: &str) {
        keep(&mut self.sizes.sqe_bytes, Some(if line.contains(", e0:") { 128 } else { 64 }));
        if self.pending.len() < PENDING_OPS_MAX
            && let Some(opcode) = field(line, "opcode:")
            && let Some(fd) = field(line, " fd:").and_then(|fd| fd.parse().ok())
        {
            self.pending.push((opcode.to_owned(), fd));
        }
    }

    /// `    0: user_data:7, res:-24, flag:0`
    ///
    /// A large one has `extra1`; in a ring of mixed entries (6.18) it also has the flag that it
    /// takes two slots, and then the slots are of the plain size.
    fn completion(&mut self, line: &str) {
        let flags = field(line, " flag:").and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let is_large = line.contains(", extra1:");
        let is_mixed = flags.is_some_and(|flags| flags & CQE_TAKES_TWO != 0);
        keep(&mut self.sizes.cqe_bytes, Some(if is_large && !is_mixed { 32 } else { 16 }));
        let result = field(line, " res:").and_then(|res| res.parse::<i32>().ok());
        if let Some(errno) = result.filter(|res| *res < 0).and_then(i32::checked_neg) {
            count(&mut self.failed, errno, ERRNOS_MAX);
        }
    }

    fn finish(mut self) -> Reading<Parsed> {
        let (
            Some(sq_mask),
            Some(sq_head),
            Some(sq_tail),
            Some(cq_mask),
            Some(cq_head),
            Some(cq_tail),
        ) = (self.sq_mask, self.sq_head, self.sq_tail, self.cq_mask, self.cq_head, self.cq_tail)
        else {
            return self.explain();
        };
        self.armed.operations.sort_unstable();
        self.failed.sort_unstable();
        let state = RingState {
            sq_entries: sq_mask.saturating_add(1),
            sq_head,
            sq_tail,
            cq_entries: cq_mask.saturating_add(1),
            cq_head,
            cq_tail,
            // The thread's pid; -1 without one.
            sqpoll: Some(self.sq_thread.is_some_and(|pid| pid > 0)),
            overflowing: self.armed.overflow > 0,
            sq_dropped: None,
            cq_lost: None,
            pending: Reading::Got(self.pending),
            failed: Reading::Got(self.failed),
            recent: Reading::absent(Why::Unsupported, "fdinfo shows no completions once reaped"),
        };
        Reading::Got(Parsed { state, armed: self.armed, sizes: self.sizes })
    }

    fn explain(&self) -> Reading<Parsed> {
        let has_some_counter = self.sq_mask.or(self.sq_head).or(self.cq_head).is_some();
        if has_some_counter {
            Reading::absent(Why::Malformed, "the ring's fdinfo lacks one of its heads and tails")
        } else if self.has_section {
            Reading::absent(
                Why::Unsupported,
                "this kernel does not print the heads and tails of a ring (5.16 and later do)",
            )
        } else if self.has_common {
            Reading::absent(
                Why::Locked,
                "the kernel left the ring out because its lock was held; read again",
            )
        } else {
            Reading::absent(Why::Malformed, "the text is no fdinfo of a ring")
        }
    }
}

fn keep<T>(first: &mut Option<T>, value: Option<T>) {
    if first.is_none() {
        *first = value;
    }
}

/// A number, hexadecimal with `0x`.
fn number(text: &str) -> Option<u32> {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}

/// What follows `name` up to the next comma or blank.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = &line[line.find(name)? + name.len()..];
    rest.split([',', ' ']).next()
}

/// Counts `key`; at most `max` different keys.
pub(super) fn count<K: PartialEq>(counts: &mut Vec<(K, u32)>, key: K, max: usize) {
    if let Some((_, seen)) = counts.iter_mut().find(|(known, _)| *known == key) {
        *seen = seen.saturating_add(1);
    } else if counts.len() < max {
        counts.push((key, 1));
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../fixtures/", $name, "/fdinfo"))
        };
    }

    /// Parses a fixture and fails on keys the parser does not know.
    fn known(bytes: &[u8]) -> Reading<Parsed> {
        let mut scan = Scan::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            scan.line(line);
        }
        assert_eq!(scan.unknown, [""; 0], "a key this version does not know");
        scan.finish()
    }

    fn parsed(bytes: &[u8]) -> Parsed {
        known(bytes).got().expect("has a ring section").clone()
    }

    fn state(bytes: &[u8]) -> RingState {
        parsed(bytes).state
    }

    #[test]
    fn idle_with_an_armed_accept() {
        let idle = RingState {
            sq_entries: 256,
            sq_head: 1,
            sq_tail: 1,
            cq_entries: 512,
            sqpoll: Some(false),
            recent: state(fixture!("ring-6.18-armed")).recent,
            ..RingState::default()
        };
        assert_eq!(state(fixture!("ring-6.18-idle")), idle);
        assert_eq!(parsed(fixture!("ring-6.18-idle")).armed.operations, [(13, 1)]);
        assert_eq!(parsed(fixture!("ring-6.18-armed")).armed.operations, [(22, 22)]);
    }

    #[test]
    fn entries_that_were_never_submitted() {
        let stuck = state(fixture!("ring-6.18-unsubmitted"));
        assert_eq!((stuck.sq_head, stuck.sq_tail, stuck.sq_pending()), (23, 45, 22));
        let pending = stuck.pending.got().unwrap();
        assert_eq!(pending.len(), 22);
        assert_eq!(pending[0], ("ACCEPT".to_owned(), 3));
        assert_eq!(pending[21], ("READ".to_owned(), 5));
        let writes = pending.iter().filter(|(op, _)| op == "WRITE").count();
        assert_eq!(writes, 20);
    }

    #[test]
    fn completions_beyond_the_queue() {
        let Parsed { state: full, armed, .. } = parsed(fixture!("ring-6.18-overflow"));
        assert_eq!((full.cq_entries, full.cq_pending(), armed.overflow), (16, 16, 24));
        assert!(full.overflowing);
        assert_eq!(full.failed, Reading::Got(Vec::new()));
    }

    #[test]
    fn accepts_that_found_no_fd() {
        let Parsed { state: starved, armed, sizes } = parsed(fixture!("ring-6.18-emfile"));
        assert_eq!(starved.failed, Reading::Got(vec![(9, 1), (24, 5)]));
        assert_eq!((starved.cq_pending(), armed.of(13)), (7, 0));
        assert_eq!(sizes, EntrySizes { cqe_bytes: Some(16), sqe_bytes: None });
    }

    #[test]
    fn a_polling_thread_and_registered_files() {
        let Parsed { state: polled, armed, .. } = parsed(fixture!("ring-6.18-sqpoll"));
        assert_eq!(polled.sqpoll, Some(true));
        assert_eq!(armed.operations, []);
    }

    #[test]
    fn other_kernels() {
        let Parsed { state: v61, armed, .. } = parsed(fixture!("ring-6.1-constructed"));
        assert_eq!((v61.sq_pending(), v61.cq_pending(), armed.overflow), (2, 3, 1));
        let pending = vec![("ACCEPT".to_owned(), 5), ("SENDMSG".to_owned(), 9)];
        assert_eq!(v61.pending, Reading::Got(pending));
        assert_eq!(armed.operations, [(13, 1), (22, 2)]);
        assert_eq!(v61.failed, Reading::Got(vec![(104, 1)]));
        let v612 = state(fixture!("ring-6.12-constructed"));
        assert_eq!((v612.sq_pending(), v612.cq_pending()), (0, 1));
        assert_eq!(v612.cq_head, u32::MAX, "heads wrap");
        let v614 = parsed(fixture!("ring-6.14-constructed"));
        assert_eq!(v614.armed.of(13), 1);
        let v515 = known(fixture!("ring-5.15-constructed"));
        assert_eq!(v515.absence().unwrap().why, Why::Unsupported);
    }

    #[test]
    fn longer_entries_have_more_fields() {
        let cases = [
            ("user_data:2, res:-104, flag:0", Some(16), ""),
            ("user_data:2, res:-104, flag:0, extra1:0, extra2:0", Some(32), ""),
            ("user_data:2, res:1, flag:8000, extra1:0, extra2:0", Some(16), ""),
            ("", None, "opcode:READ, fd:5, flags:0, user_data:3"),
            ("", None, "opcode:URING_CMD, fd:5, flags:0, user_data:3, e0:0x0, e1:0x0"),
        ];
        for (completion, cqe_bytes, submission) in cases {
            let mut text = String::from_utf8(fixture!("ring-6.18-idle").to_vec()).unwrap();
            let list = |name: &str, entry: &str| {
                if entry.is_empty() {
                    String::new()
                } else {
                    format!("{name}:\t1\n    0: {entry}\n")
                }
            };
            text.push_str(&(list("SQEs", submission) + &list("CQEs", completion)));
            let sqe_bytes = match submission {
                "" => None,
                long if long.contains("e0") => Some(128),
                _ => Some(64),
            };
            let sizes = parsed(text.as_bytes()).sizes;
            assert_eq!(sizes, EntrySizes { cqe_bytes, sqe_bytes }, "{completion}{submission}");
        }
    }

    #[test]
    fn a_section_left_out_and_text_of_something_else() {
        assert_eq!(known(fixture!("ring-6.18-locked")).absence().unwrap().why, Why::Locked);
        let cases: [(&[u8], Why); 4] = [
            (b"", Why::Malformed),
            (b"hello\nworld", Why::Malformed),
            (b"pos:\t0\nSqMask:\t0x7\nSqHead:\t1\n", Why::Malformed),
            (
                b"SqMask:\t0x7\nSqHead:\tx\nSqTail:\t0\nCqMask:\t0x1\nCqHead:\t0\nCqTail:\t0",
                Why::Malformed,
            ),
        ];
        for (bytes, why) in cases {
            assert_eq!(parse(bytes).absence().map(|absence| absence.why), Some(why), "{bytes:?}");
        }
    }

    #[test]
    fn a_file_name_cannot_pass_for_a_counter() {
        let mut text = fixture!("ring-6.18-idle").to_vec();
        text.extend_from_slice(b"UserFiles:\t1\n    0: evil\nSqTail:\t900\n");
        assert_eq!(state(&text).sq_tail, 1);
    }

    #[test]
    fn an_unknown_key_is_noticed_by_tests_and_harmless_to_users() {
        let mut text = fixture!("ring-6.18-idle").to_vec();
        text.extend_from_slice(b"NewIn7:\t1\n");
        assert!(std::panic::catch_unwind(|| known(&text)).is_err());
        assert!(parse(&text).got().is_some());
    }

    #[test]
    fn lists_are_bounded() {
        let mut text = String::from_utf8(fixture!("ring-6.18-idle").to_vec()).unwrap();
        text.push_str("SQEs:\t1000\n");
        for at in 0..1000 {
            writeln!(text, "{at:5}: opcode:NOP, fd:{at}, flags:0").unwrap();
        }
        text.push_str("CQEs:\t1000\n");
        for at in 0..1000 {
            writeln!(text, "{at:5}: user_data:0, res:-{at}, flag:0").unwrap();
        }
        let full = parse(text.as_bytes());
        let full = &full.got().unwrap().state;
        let (pending, failed) = (full.pending.got().unwrap(), full.failed.got().unwrap());
        assert_eq!((pending.len(), failed.len()), (PENDING_OPS_MAX, ERRNOS_MAX));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }

        #[test]
        fn parsing_a_cut_text_never_panics(cut in 0_usize..3000, flip in any::<(usize, u8)>()) {
            let mut text = fixture!("ring-6.18-unsubmitted").to_vec();
            let at = flip.0 % text.len();
            text[at] = flip.1;
            text.truncate(cut);
            parse(&text);
        }
    }
}
