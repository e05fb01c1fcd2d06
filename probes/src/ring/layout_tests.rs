use std::cell::Cell;

use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

/// A ring's memory as the kernel would lay it out.
struct Image {
    layout: Layout,
    sizes: EntrySizes,
    ring: Vec<u8>,
    sqes: Vec<u8>,
}

impl Image {
    /// With an index array that is numbered, as libraries do, if it has one.
    fn new(
        offsets: &'static Offsets,
        entries: (u32, u32),
        cqe_bytes: usize,
        sqe_bytes: usize,
        has_array: bool,
    ) -> Self {
        let layout = Layout { offsets, sq_entries: entries.0, cq_entries: entries.1 };
        let array_bytes = if has_array { 4 * entries.0 as usize } else { 0 };
        let ring_bytes = layout.array_at(cqe_bytes) + array_bytes;
        let mut image = Self {
            layout,
            sizes: EntrySizes { cqe_bytes: Some(cqe_bytes), sqe_bytes: Some(sqe_bytes) },
            ring: vec![0; Rounding::Pages.up(ring_bytes, PAGE)],
            sqes: vec![0; Rounding::Pages.up(entries.0 as usize * sqe_bytes, PAGE)],
        };
        for (index, word) in [entries.0 - 1, entries.1 - 1, entries.0, entries.1].iter().enumerate()
        {
            image.set(offsets.sq_mask + 4 * index, *word);
        }
        for index in (0..entries.0).filter(|_| has_array) {
            image.set(layout.array_at(cqe_bytes) + 4 * index as usize, index);
        }
        image
    }

    fn plain() -> Self {
        Self::new(&PACKED, (256, 512), 16, 64, true)
    }

    fn set(&mut self, at: usize, word: u32) {
        self.ring[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }

    fn move_to(&mut self, sq: (u32, u32), cq: (u32, u32)) {
        let offsets = self.layout.offsets;
        let places = [offsets.sq_head, offsets.sq_tail, offsets.cq_head, offsets.cq_tail];
        for (at, word) in places.into_iter().zip([sq.0, sq.1, cq.0, cq.1]) {
            self.set(at, word);
        }
    }

    fn complete(&mut self, position: u32, result: i32, flags: u32) {
        let slot = (position & (self.layout.cq_entries - 1)) as usize;
        let at = self.layout.offsets.cqes + slot * self.sizes.cqe_bytes.unwrap();
        self.set(at, 7);
        self.set(at + 8, result.cast_unsigned());
        self.set(at + 12, flags);
    }

    fn prepare(&mut self, index: usize, opcode: u8, fd: i32) {
        let at = index * self.sizes.sqe_bytes.unwrap();
        self.sqes[at] = opcode;
        self.sqes[at + 4..at + 8].copy_from_slice(&fd.to_ne_bytes());
    }

    fn sizes(&self) -> EntrySizes {
        let ring = (self.ring.as_slice(), Rounding::Pages);
        self.layout.sizes(ring, Some((self.sqes.len(), Rounding::Pages)), PAGE)
    }

    fn state(&self) -> RingState {
        let sqes = Reading::Got(self.sqes.as_slice());
        self.layout.state(self.ring.as_slice(), sqes, self.sizes).got().unwrap().clone()
    }
}

fn why<T>(reading: &Reading<T>) -> Option<Why> {
    reading.absence().map(|absence| absence.why)
}

#[test]
fn both_layouts_are_found_and_nothing_else_is() {
    for offsets in [&PACKED, &SPREAD] {
        let mut image = Image::new(offsets, (256, 512), 16, 64, true);
        image.move_to((u32::MAX, 3), (9, 300));
        assert_eq!(Layout::find(image.ring.as_slice()), Reading::Got(image.layout));
        let state = image.state();
        assert_eq!((state.sq_head, state.sq_tail, state.sq_pending()), (u32::MAX, 3, 4));
        assert_eq!((state.cq_head, state.cq_tail, state.cq_pending()), (9, 300, 291));
    }
    // Offset of a word of `PACKED`, and a value that does not go with the others.
    let broken = [
        (16, 254),
        (20, 510),
        (24, 0),
        (24, 255),
        (24, 512),
        (28, 128),
        (28, 0x8000_0000),
        (4, 257),
        (4, u32::MAX),
        (12, 513),
        (8, 1),
    ];
    for (at, word) in broken {
        let mut image = Image::plain();
        image.set(at, word);
        assert_eq!(why(&Layout::find(image.ring.as_slice())), Some(Why::Malformed), "{at} {word}");
    }
    let too_large = Image::new(&PACKED, (SQ_ENTRIES_MAX, CQ_ENTRIES_MAX), 16, 64, true);
    assert!(Layout::find(too_large.ring.as_slice()).got().is_some());
    let too_large = Image::new(&PACKED, (2 * SQ_ENTRIES_MAX, 2 * CQ_ENTRIES_MAX), 16, 64, true);
    assert_eq!(why(&Layout::find(too_large.ring.as_slice())), Some(Why::Malformed));
    assert_eq!(why(&Layout::find([0; 47].as_slice())), Some(Why::Malformed));
}

#[test]
fn flags_and_losses() {
    let mut image = Image::plain();
    let state = image.state();
    assert_eq!((state.overflowing, state.sq_dropped, state.cq_lost), (false, Some(0), Some(0)));
    for (at, word) in [(32, 5), (36, SQ_CQ_OVERFLOW | 1), (40, 99), (44, 6)] {
        image.set(at, word);
    }
    let state = image.state();
    assert_eq!((state.overflowing, state.sq_dropped, state.cq_lost), (true, Some(5), Some(6)));
    image.set(36, 1);
    assert!(!image.state().overflowing, "another flag");
}

/// A ring whose heads and tails move on by `step` at every load, with nothing pending.
struct Moving {
    loads: Cell<u32>,
    step: u32,
}

impl Words for Moving {
    fn word(&self, at_bytes: usize) -> Option<u32> {
        let loads = self.loads.get();
        self.loads.set(loads.wrapping_add(1));
        Some(match at_bytes {
            0..16 => (loads / 4 * 4).wrapping_add(loads % 4).wrapping_mul(self.step),
            16 => 255,
            20 => 511,
            24 => 256,
            28 => 512,
            _ => 0,
        })
    }

    fn len_bytes(&self) -> usize {
        PAGE
    }
}

#[test]
fn a_head_never_seems_to_pass_its_tail_while_both_move() {
    let layout = Image::plain().layout;
    // From a little before the wrap.
    let ring = Moving { loads: Cell::new(u32::MAX - 40), step: 3 };
    for _ in 0..20 {
        let counters = layout.counters(&ring);
        let counters = counters.got().expect("tails are read after heads");
        assert!(counters.sq_pending() <= 9 && counters.cq_pending() <= 9, "{counters:?}");
    }
    let too_fast = Moving { loads: Cell::new(0), step: 300 };
    assert_eq!(why(&layout.counters(&too_fast)), Some(Why::Malformed));
}

#[test]
fn the_length_of_the_memory_tells_the_size_of_entries() {
    // Entries of both queues, and whether each size can be told from the length alone.
    let cases = [
        ((1, 2), false, true),
        ((2, 4), false, false),
        ((8, 16), false, false),
        ((32, 64), false, false),
        ((64, 128), true, true),
        ((256, 512), true, true),
        ((256, 4096), true, true),
        ((4096, 8192), true, true),
        ((SQ_ENTRIES_MAX, CQ_ENTRIES_MAX), true, true),
    ];
    for (entries, cqe_is_told, sqe_is_told) in cases {
        for cqe_bytes in CQE_BYTES {
            for sqe_bytes in SQE_BYTES {
                let image = Image::new(&PACKED, entries, cqe_bytes, sqe_bytes, false);
                // One entry lies at the same place, whatever its size.
                let sqe_bytes = if entries.0 == 1 { 64 } else { sqe_bytes };
                let expected = EntrySizes {
                    cqe_bytes: cqe_is_told.then_some(cqe_bytes),
                    sqe_bytes: sqe_is_told.then_some(sqe_bytes),
                };
                assert_eq!(image.sizes(), expected, "{entries:?} {cqe_bytes} {sqe_bytes}");
            }
        }
    }
}

#[test]
fn a_numbered_index_array_tells_it_in_small_rings() {
    for cqe_bytes in CQE_BYTES {
        for sq_entries in [4, 8, 32] {
            let mut image = Image::new(&PACKED, (sq_entries, 2 * sq_entries), cqe_bytes, 64, true);
            assert_eq!(image.sizes().cqe_bytes, Some(cqe_bytes), "{sq_entries}");
            let last = image.layout.array_at(cqe_bytes) + 4 * (sq_entries as usize - 1);
            image.set(last, 0);
            assert_eq!(image.sizes().cqe_bytes, None, "not numbered to its end");
        }
        let two = Image::new(&PACKED, (2, 4), cqe_bytes, 64, true);
        assert_eq!(two.sizes().cqe_bytes, None, "0, 1 may be anything");
    }
}

#[test]
fn older_kernels_round_up_to_powers_of_two_of_pages() {
    let image = Image::new(&SPREAD, (256, 512), 16, 64, true);
    let wants = image.layout.ring_wants(PAGE);
    // 320 + 512 * 16 + 1024 bytes are three pages, with 32 bytes a completion five.
    let lengths = [(9, Rounding::Pages), (8, Rounding::PowerOfTwo), (4, Rounding::PowerOfTwo)];
    assert_eq!(wants, lengths.map(|(pages, rounding)| (pages * PAGE, rounding)));
    for (pages, cqe_bytes) in [(4, Some(16)), (8, Some(32)), (3, None), (5, None)] {
        let ring = vec![0; pages * PAGE];
        let region = (ring.as_slice(), Rounding::PowerOfTwo);
        assert_eq!(image.layout.sizes(region, None, PAGE).cqe_bytes, cqe_bytes, "{pages}");
    }
}

#[test]
fn entries_not_submitted_are_found_by_the_index_array() {
    for (sqe_bytes, cqe_bytes) in [(64, 16), (128, 32)] {
        let mut image = Image::new(&PACKED, (256, 512), cqe_bytes, sqe_bytes, true);
        image.move_to((255, 258), (0, 0));
        image.prepare(255, 13, 3);
        image.prepare(0, 23, 17);
        image.prepare(1, 200, -1);
        let names = ["ACCEPT", "WRITE", "OP_200"].map(str::to_owned);
        let [accept, write, other] = names;
        let pending = vec![(accept.clone(), 3), (write.clone(), 17), (other, -1)];
        assert_eq!(image.state().pending, Reading::Got(pending));
        // The array leads elsewhere: entry 255 comes second, and the third is one the kernel drops.
        let array_at = image.layout.array_at(cqe_bytes);
        for (slot, index) in [(255, 0), (0, 255), (1, 256)] {
            image.set(array_at + 4 * slot, index);
        }
        let pending = vec![(write, 17), (accept, 3)];
        assert_eq!(image.state().pending, Reading::Got(pending));
    }
}

#[test]
fn a_ring_without_an_index_array_takes_its_entries_in_order() {
    let mut image = Image::new(&PACKED, (256, 512), 16, 64, false);
    image.move_to((5, 7), (0, 0));
    image.prepare(5, 22, 9);
    image.prepare(6, 27, 10);
    let pending = vec![("READ".to_owned(), 9), ("RECV".to_owned(), 10)];
    assert_eq!(image.state().pending, Reading::Got(pending));
}

/// A ring from which the kernel takes two submissions once the counters have been read.
struct Taken<'a> {
    ring: &'a [u8],
    head_loads: Cell<u32>,
}

impl Words for Taken<'_> {
    fn word(&self, at_bytes: usize) -> Option<u32> {
        let word = self.ring.word(at_bytes)?;
        if at_bytes != PACKED.sq_head {
            return Some(word);
        }
        let loads = self.head_loads.replace(self.head_loads.get() + 1);
        Some(if loads == 0 { word } else { word.wrapping_add(2) })
    }

    fn len_bytes(&self) -> usize {
        self.ring.len()
    }
}

#[test]
fn entries_taken_while_they_are_read_are_left_out() {
    let mut image = Image::plain();
    image.move_to((u32::MAX, 2), (0, 0));
    for (index, fd) in [(255, 1), (0, 2), (1, 3)] {
        image.prepare(index, 22, fd);
    }
    let ring = Taken { ring: &image.ring, head_loads: Cell::new(0) };
    let sqes = Reading::Got(image.sqes.as_slice());
    let state = image.layout.state(&ring, sqes, image.sizes);
    let pending = vec![("READ".to_owned(), 3)];
    assert_eq!(state.got().unwrap().pending, Reading::Got(pending));
}

#[test]
fn many_entries_not_submitted_are_cut_at_the_bound() {
    let mut image = Image::plain();
    image.move_to((0, 256), (0, 0));
    let state = image.state();
    assert_eq!(state.pending.got().unwrap().len(), PENDING_OPS_MAX);
    assert_eq!(state.sq_pending(), 256);
}

#[test]
fn failures_stay_visible_after_they_were_reaped() {
    for cqe_bytes in CQE_BYTES {
        let mut image = Image::new(&PACKED, (256, 512), cqe_bytes, 64, true);
        // Around the wrap of the counters, and of the slots.
        let tail = 3_u32;
        for back in 1..=8 {
            image.complete(tail.wrapping_sub(back), if back == 2 { -9 } else { -24 }, 0);
        }
        image.complete(tail, -77, 0);
        image.complete(tail.wrapping_sub(RECENT_COMPLETIONS_MAX + 1), -78, 0);
        image.move_to((0, 0), (tail.wrapping_sub(2), tail));
        let state = image.state();
        assert_eq!(state.failed, Reading::Got(vec![(9, 1), (24, 1)]));
        assert_eq!(state.recent, Reading::Got(vec![(9, 1), (24, 7)]));
        image.move_to((0, 0), (tail, tail));
        assert_eq!(image.state().failed, Reading::Got(Vec::new()));
        assert_eq!(image.state().recent, Reading::Got(vec![(9, 1), (24, 7)]));
    }
}

#[test]
fn completions_of_two_slots_in_a_ring_of_mixed_ones() {
    let mut image = Image::plain();
    image.complete(0, 5, CQE_TAKES_TWO);
    image.complete(1, -1, 0);
    image.complete(2, -2, CQE_SKIP);
    image.complete(3, -3, 0);
    image.move_to((0, 0), (0, 4));
    assert_eq!(image.state().failed, Reading::Got(vec![(3, 1)]));
    // Elsewhere the flag would mean nothing.
    let mut large = Image::new(&PACKED, (256, 512), 32, 64, true);
    large.complete(0, 5, CQE_TAKES_TWO);
    large.complete(1, -1, 0);
    large.move_to((0, 0), (0, 2));
    assert_eq!(large.state().failed, Reading::Got(vec![(1, 1)]));
}

#[test]
fn entries_of_unknown_size_are_absent_only_where_there_are_some() {
    let mut image = Image::plain();
    image.sizes = EntrySizes::default();
    let idle = image.state();
    assert_eq!((&idle.pending, &idle.failed), (&Reading::Got(vec![]), &Reading::Got(vec![])));
    assert_eq!(why(&idle.recent), Some(Why::Unsupported));
    image.move_to((0, 1), (0, 1));
    let busy = image.state();
    assert_eq!((busy.sq_pending(), busy.cq_pending()), (1, 1));
    assert_eq!(why(&busy.pending), Some(Why::Unsupported));
    assert_eq!(why(&busy.failed), Some(Why::Unsupported));
    let unmapped: Reading<&[u8]> = Reading::absent(Why::Failed, "the submissions");
    let state = image.layout.state(image.ring.as_slice(), unmapped, image.sizes);
    assert_eq!(why(&state.got().unwrap().pending), Some(Why::Failed));
}

#[test]
fn a_copy_of_a_ring_is_read_as_the_ring_itself() {
    let mut image = Image::plain();
    image.move_to((0, 1), (0, 1));
    image.prepare(0, 13, 3);
    image.complete(0, -24, 0);
    assert_eq!(parse_memory(&image.ring, &image.sqes), Reading::Got(image.state()));
}

proptest! {
    #[test]
    fn parsing_never_panics(
        ring in proptest::collection::vec(any::<u8>(), 0..600),
        sqes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        parse_memory(&ring, &sqes);
    }

    /// Memory that passes for a ring, with anything in it and cut anywhere.
    #[test]
    fn a_ring_with_anything_in_it_never_panics_and_keeps_the_bounds(
        is_spread: bool,
        has_array: bool,
        entries in (0_u32..9, 0_u32..4),
        sizes in (0_usize..2, 0_usize..2),
        heads in any::<(u32, u32)>(),
        pending in any::<(u32, u32)>(),
        noise in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..200),
        cut in any::<(usize, usize)>(),
    ) {
        let offsets = if is_spread { &SPREAD } else { &PACKED };
        let entries = (1 << entries.0, 1 << (entries.0 + entries.1));
        let (cqe_bytes, sqe_bytes) = (CQE_BYTES[sizes.0], SQE_BYTES[sizes.1]);
        let mut image = Image::new(offsets, entries, cqe_bytes, sqe_bytes, has_array);
        let tails = (pending.0 % (entries.0 + 1), pending.1 % (entries.1 + 1));
        let tails = (heads.0.wrapping_add(tails.0), heads.1.wrapping_add(tails.1));
        image.move_to((heads.0, tails.0), (heads.1, tails.1));
        let from = offsets.cqes;
        let span = image.ring.len() - from;
        for (at, byte) in noise {
            image.ring[from + at % span] = byte;
            let sqes = image.sqes.len();
            image.sqes[at % sqes] = byte;
        }
        let state = image.state();
        prop_assert_eq!((state.sq_head, state.sq_tail), (heads.0, tails.0));
        prop_assert_eq!((state.cq_head, state.cq_tail), (heads.1, tails.1));
        prop_assert!(state.pending.got().unwrap().len() <= PENDING_OPS_MAX);
        let counted = |list: &Reading<Vec<(i32, u32)>>| -> u32 {
            list.got().unwrap().iter().map(|(_, count)| count).sum()
        };
        prop_assert!(counted(&state.failed) <= state.cq_pending());
        prop_assert!(counted(&state.recent) <= RECENT_COMPLETIONS_MAX);
        parse_memory(&image.ring, &image.sqes);
        let cut = (cut.0 % (image.ring.len() + 1), cut.1 % (image.sqes.len() + 1));
        parse_memory(&image.ring[..cut.0], &image.sqes[..cut.1]);
    }
}
