//! Which part of a recording is kept when it is to stay short: what is young, and what lies around
//! an onset. Knows times and places in the file, but no file.

use std::collections::VecDeque;
use std::time::Duration;

use super::recording::FILE_BYTES_MAX;

/// Shortest `--keep`.
pub const KEEP_MIN: Duration = Duration::from_secs(10);
/// Longest `--keep`.
pub const KEEP_MAX: Duration = Duration::from_hours(24);
/// What is kept before and after an onset, however old it is, ns: before it as far as it was there
/// still when the stall began.
pub const AROUND_ONSET_NS: u64 = 60_000_000_000;
/// Onsets around which more is kept: of more, the latest.
pub const ONSETS_MAX: usize = 16;
/// A recording is shortened when it reaches this, whatever its age, bytes.
pub const SHORTEN_BYTES_MAX: u64 = FILE_BYTES_MAX / 4 * 3;
/// And is this long then at most, bytes.
pub const KEPT_BYTES_MAX: u64 = FILE_BYTES_MAX / 2;
/// Length of a piece, ns: what is kept is kept in such pieces.
const PIECE_NS: u64 = 1_000_000_000;

/// Frames that stand one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Instant of the first sample, `CLOCK_MONOTONIC` ns.
    pub begin_ns: u64,
    /// Instant of the last one, ns.
    pub end_ns: u64,
    /// Place in the file.
    pub from: u64,
    /// Length, bytes.
    pub bytes: u64,
}

impl Piece {
    /// Where the next byte stands.
    pub const fn to(&self) -> u64 {
        self.from + self.bytes
    }
}

/// What stands where in a recording, and what of it is kept.
#[derive(Debug, Clone)]
pub struct Keep {
    span_ns: u64,
    /// Oldest first. At most one and a half times the span, in seconds, and what lies around onsets.
    pieces: VecDeque<Piece>,
    onsets_ns: VecDeque<u64>,
    /// When the recording began, ns.
    begun_ns: Option<u64>,
    /// The next frame begins a new piece.
    closed: bool,
}

impl Keep {
    /// Keeps at least the last `span`.
    pub fn new(span: Duration) -> Self {
        Self {
            span_ns: u64::try_from(span.as_nanos()).unwrap_or(u64::MAX),
            pieces: VecDeque::new(),
            onsets_ns: VecDeque::new(),
            begun_ns: None,
            closed: false,
        }
    }

    /// When the recording began, ns.
    pub const fn begun_ns(&self) -> Option<u64> {
        self.begun_ns
    }

    /// A tick of `at_ns` stands at the bytes `from` to `to`. Says whether a new piece began with it.
    pub fn wrote(&mut self, at_ns: u64, from: u64, to: u64) -> bool {
        self.begun_ns = self.begun_ns.or(Some(at_ns));
        match self.pieces.back_mut() {
            Some(last) if !self.closed && at_ns < last.begin_ns.saturating_add(PIECE_NS) => {
                last.end_ns = last.end_ns.max(at_ns);
                last.bytes = to.saturating_sub(last.from);
                false
            }
            _ => {
                self.closed = false;
                let bytes = to.saturating_sub(from);
                self.pieces.push_back(Piece { begin_ns: at_ns, end_ns: at_ns, from, bytes });
                true
            }
        }
    }

    /// A stall began. Of stalls that come and go the first of each minute counts.
    pub fn onset(&mut self, at_ns: u64) {
        let near = |last: &u64| at_ns.saturating_sub(*last) < AROUND_ONSET_NS;
        if self.onsets_ns.back().is_some_and(near) {
            return;
        }
        if self.onsets_ns.len() == ONSETS_MAX {
            self.onsets_ns.pop_front();
        }
        self.onsets_ns.push_back(at_ns);
    }

    fn is_around_onset(&self, piece: &Piece) -> bool {
        self.onsets_ns.iter().any(|onset_ns| {
            piece.end_ns.saturating_add(AROUND_ONSET_NS) >= *onset_ns
                && piece.begin_ns <= onset_ns.saturating_add(AROUND_ONSET_NS)
        })
    }

    /// What is to be kept, oldest first, if it is time to shorten a file of `file_bytes`: once it holds
    /// half as much again as it need.
    pub fn plan(&mut self, now_ns: u64, file_bytes: u64) -> Option<Vec<Piece>> {
        let age_ns = |piece: &Piece| now_ns.saturating_sub(piece.end_ns);
        let may_go = |piece: &&Piece| age_ns(piece) > self.span_ns && !self.is_around_onset(piece);
        let late_ns = self.span_ns.saturating_add(self.span_ns / 2);
        let oldest = self.pieces.iter().find(may_go);
        if oldest.is_none_or(|oldest| age_ns(oldest) <= late_ns) && file_bytes <= SHORTEN_BYTES_MAX
        {
            return None;
        }
        let mut kept: VecDeque<Piece> =
            self.pieces.iter().filter(|piece| !may_go(piece)).copied().collect();
        // The file's own bound goes before all else.
        let mut bytes: u64 = kept.iter().map(|piece| piece.bytes).sum();
        while bytes > KEPT_BYTES_MAX && kept.len() > 1 {
            bytes -= kept.pop_front().map_or(0, |piece| piece.bytes);
        }
        self.closed = true;
        Some(kept.into())
    }

    /// The file was shortened: `kept` stand in it, and after them, from `new_tail` on, what stood from
    /// `old_tail` on.
    pub fn shortened(&mut self, kept: Vec<Piece>, old_tail: u64, new_tail: u64) {
        self.pieces.retain(|piece| piece.from >= old_tail);
        for piece in &mut self.pieces {
            piece.from = piece.from - old_tail + new_tail;
        }
        for piece in kept.into_iter().rev() {
            self.pieces.push_front(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// A recording of one tick a second, of 10 bytes each, behind a header of 100.
    fn written(span_s: u64, ticks: u64) -> Keep {
        let mut keep = Keep::new(Duration::from_secs(span_s));
        for tick in 0..ticks {
            assert!(keep.wrote(tick * S, 100 + tick * 10, 110 + tick * 10));
        }
        keep
    }

    fn seconds(kept: &[Piece]) -> Vec<u64> {
        kept.iter().map(|piece| piece.begin_ns / S).collect()
    }

    #[test]
    fn what_is_too_old_goes_once_there_is_half_as_much_again() {
        for (now_s, expected) in [(15, None), (16, Some(6)), (18, Some(8))] {
            let kept = written(10, now_s + 1).plan(now_s * S, 500);
            assert_eq!(kept.map(|kept| seconds(&kept)[0]), expected, "{now_s}");
        }
    }

    #[test]
    fn what_lies_around_an_onset_stays() {
        let mut keep = written(10, 301);
        keep.onset(100 * S);
        let kept = seconds(&keep.plan(300 * S, 500).unwrap());
        assert_eq!(kept, (40..=160).chain(290..=300).collect::<Vec<_>>());
        // Nothing more may go: it is not done again.
        keep.shortened(Vec::new(), 3_110, 100);
        assert_eq!(keep.plan(300 * S, 500), None);
    }

    #[test]
    fn of_many_onsets_the_latest_count_and_of_a_series_the_first() {
        let mut keep = written(10, 1);
        for onset in 0..=ONSETS_MAX as u64 {
            keep.onset((1_000 + onset * 100) * S);
            keep.onset((1_059 + onset * 100) * S);
        }
        assert_eq!(keep.onsets_ns.len(), ONSETS_MAX);
        assert_eq!(keep.onsets_ns[0], 1_100 * S);
    }

    #[test]
    fn a_large_file_is_shortened_whatever_its_age_and_the_oldest_goes_first() {
        let mut keep = Keep::new(Duration::from_hours(1));
        let large = FILE_BYTES_MAX / 8;
        for tick in 0..6 {
            keep.wrote(tick * S, tick * large, (tick + 1) * large);
        }
        keep.onset(0);
        assert_eq!(keep.plan(6 * S, SHORTEN_BYTES_MAX), None);
        assert_eq!(seconds(&keep.plan(6 * S, SHORTEN_BYTES_MAX + 1).unwrap()), [2, 3, 4, 5]);
    }

    #[test]
    fn pieces_are_seconds_and_move_with_the_file() {
        let mut keep = Keep::new(KEEP_MIN);
        let begun: Vec<bool> = (0..6).map(|n| keep.wrote(n * S / 2, n * 10, n * 10 + 10)).collect();
        assert_eq!(begun, [true, false, true, false, true, false]);
        assert_eq!(keep.plan(100 * S, 60), Some(Vec::new()), "all of it is too old");
        // What is written while a plan is carried out is a piece of its own.
        assert!(keep.wrote(5 * S / 2 + 1, 60, 70));
        let kept = Piece { begin_ns: 2 * S, end_ns: 5 * S / 2, from: 5, bytes: 20 };
        keep.shortened(vec![kept], 60, 25);
        let tail = Piece { begin_ns: 5 * S / 2 + 1, end_ns: 5 * S / 2 + 1, from: 25, bytes: 10 };
        assert_eq!(keep.pieces, [kept, tail]);
        assert_eq!((tail.to(), keep.begun_ns()), (35, Some(0)));
    }
}
