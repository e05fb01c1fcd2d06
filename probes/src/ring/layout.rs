//! Where the counters and entries of a ring lie in its memory, and what they say. Pure: the memory
//! is anything that gives [`Words`].
//!
//! `struct io_rings` (`include/linux/io_uring_types.h`; `io_uring/io_uring.c` before 6.0) is no
//! ABI: programs learn its offsets from `io_uring_setup(2)`, which nobody else is told. There have
//! been two of them. Each is believed only if its masks, entries, heads and tails go together.

use std::sync::atomic::{Ordering, fence};

use super::opcode;
use super::parse::{ERRNOS_MAX, count};
use crate::reading::{Reading, Why};
use crate::sample::{PENDING_OPS_MAX, RECENT_COMPLETIONS_MAX, RingState};

/// `IORING_MAX_ENTRIES` (`io_uring/io_uring.h`).
pub const SQ_ENTRIES_MAX: u32 = 32_768;
/// `IORING_MAX_CQ_ENTRIES`, twice as many.
pub const CQ_ENTRIES_MAX: u32 = 2 * SQ_ENTRIES_MAX;
/// Reads of the counters before an impossible difference is believed.
const ATTEMPTS_MAX: u32 = 4;
/// `IORING_SQ_CQ_OVERFLOW` (`linux/io_uring.h`).
const SQ_CQ_OVERFLOW: u32 = 1 << 1;
/// `IORING_CQE_F_SKIP`: fills a slot that says nothing (rings of mixed entries, 6.18).
const CQE_SKIP: u32 = 1 << 5;
/// `IORING_CQE_F_32`: this entry takes two slots (rings of mixed entries, 6.18).
pub(super) const CQE_TAKES_TWO: u32 = 1 << 15;
/// `SMP_CACHE_BYTES` of x86-64 and arm64: the index array begins on such a line.
const LINE_BYTES: usize = 64;
/// Sizes of a completion: plain, and of rings made with `IORING_SETUP_CQE32`.
const CQE_BYTES: [usize; 2] = [16, 32];
/// Sizes of a submission: plain, and of rings made with `IORING_SETUP_SQE128`.
const SQE_BYTES: [usize; 2] = [64, 128];
/// Shortest index array that is recognised by its being 0, 1, 2, …: a completion does not look so
/// by chance.
const IDENTITY_MIN: u32 = 4;

/// Memory in words of 32 bits, which somebody else may write meanwhile.
pub trait Words {
    /// The word at this offset, of the machine's byte order; none where the memory cannot be read.
    fn word(&self, at_bytes: usize) -> Option<u32>;
    /// Bytes that can be read, from the first on.
    fn len_bytes(&self) -> usize;
}

impl Words for [u8] {
    fn word(&self, at_bytes: usize) -> Option<u32> {
        let bytes = self.get(at_bytes..at_bytes.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }

    fn len_bytes(&self) -> usize {
        self.len()
    }
}

/// Offsets in `struct io_rings`, bytes.
#[derive(Debug, PartialEq, Eq)]
struct Offsets {
    sq_head: usize,
    sq_tail: usize,
    cq_head: usize,
    cq_tail: usize,
    /// Of the submission queue's mask; the completion queue's follows, then the entries of both,
    /// then `sq_dropped`, `sq_flags`, `cq_flags` and `cq_overflow`.
    sq_mask: usize,
    cqes: usize,
}

/// Kernels from 6.3 or so (sources of 6.6 to 6.18 read, 6.18 run).
const PACKED: Offsets =
    Offsets { sq_head: 0, sq_tail: 4, cq_head: 8, cq_tail: 12, sq_mask: 16, cqes: 64 };
/// Kernels 5.10 to 6.1 (sources read, none run): each head and tail on a cache line of its own.
const SPREAD: Offsets =
    Offsets { sq_head: 0, sq_tail: 64, cq_head: 128, cq_tail: 192, sq_mask: 256, cqes: 320 };

/// The counters of a ring at one instant. Heads and tails are u32 and wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Next entry the kernel will take.
    pub sq_head: u32,
    /// Next entry the application will fill.
    pub sq_tail: u32,
    /// Next completion the application will reap.
    pub cq_head: u32,
    /// Next completion the kernel will post.
    pub cq_tail: u32,
    /// Whether completions wait in the overflow list.
    pub overflowing: bool,
    /// Entries the kernel refused as malformed, since the ring was made.
    pub sq_dropped: u32,
    /// Completions lost for want of memory, since the ring was made.
    pub cq_lost: u32,
}

impl Counters {
    /// Entries prepared and not yet submitted.
    pub const fn sq_pending(&self) -> u32 {
        self.sq_tail.wrapping_sub(self.sq_head)
    }

    /// Completions posted and not yet reaped.
    pub const fn cq_pending(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.cq_head)
    }
}

/// How long an entry of each queue is, bytes; none while it cannot be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntrySizes {
    /// A completion: 16 or 32.
    pub cqe_bytes: Option<usize>,
    /// A submission: 64 or 128.
    pub sqe_bytes: Option<usize>,
}

impl EntrySizes {
    /// These, and where they are silent what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cqe_bytes: self.cqe_bytes.or(other.cqe_bytes),
            sqe_bytes: self.sqe_bytes.or(other.sqe_bytes),
        }
    }
}

/// How the kernel rounds up the memory of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To whole pages.
    Pages,
    /// To a power of two of pages (`io_mem_alloc`, before 6.10 or so).
    PowerOfTwo,
}

impl Rounding {
    /// The memory that `bytes` take.
    pub fn up(self, bytes: usize, page_bytes: usize) -> usize {
        let pages = bytes.div_ceil(page_bytes);
        let pages = if self == Self::Pages { pages } else { pages.next_power_of_two() };
        pages * page_bytes
    }
}

/// In which order the submissions lie.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// In that of the queue.
    Same,
    /// In that of the index array, which begins at this offset in the first region.
    Array { at: usize },
}

/// Which layout a ring has, and its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    offsets: &'static Offsets,
    /// Submission queue entries.
    pub sq_entries: u32,
    /// Completion queue entries.
    pub cq_entries: u32,
}

impl Layout {
    /// Finds the layout whose parts go together, in the first page of a ring.
    pub fn find(ring: &(impl Words + ?Sized)) -> Reading<Self> {
        // The order matters: where `SPREAD` is the right one, `PACKED` finds padding, thus no
        // entries; the other way round there are completions, which may look like anything.
        for offsets in [&PACKED, &SPREAD] {
            let word = |index: usize| ring.word(offsets.sq_mask + 4 * index);
            let (Some(sq_entries), Some(cq_entries)) = (word(2), word(3)) else { continue };
            let layout = Self { offsets, sq_entries, cq_entries };
            let sizes_are_possible = sq_entries.is_power_of_two()
                && cq_entries.is_power_of_two()
                && sq_entries <= SQ_ENTRIES_MAX
                && cq_entries <= CQ_ENTRIES_MAX
                // io_uring_setup(2) refuses a completion queue shorter than the other.
                && cq_entries >= sq_entries;
            if sizes_are_possible && layout.counters(ring).got().is_some() {
                return Reading::Got(layout);
            }
        }
        Reading::absent(
            Why::Malformed,
            "layout unknown: the masks, entries, heads and tails in the ring's memory do not go \
             together as on any kernel from 5.10 to 6.18",
        )
    }

    /// Reads the counters: a dozen loads.
    ///
    /// Both heads are read before both tails. Each head follows its tail, so a tail read later is
    /// never behind a head read before, whatever moves meanwhile. What may come out is a
    /// difference that is too large, when the reader was held up in between: that is read again.
    #[inline]
    pub fn counters(self, ring: &(impl Words + ?Sized)) -> Reading<Counters> {
        for _ in 0..ATTEMPTS_MAX {
            let Some((masks, counters)) = self.load(ring) else { break };
            if masks == (self.sq_entries.wrapping_sub(1), self.cq_entries.wrapping_sub(1))
                && counters.sq_pending() <= self.sq_entries
                && counters.cq_pending() <= self.cq_entries
            {
                return Reading::Got(counters);
            }
        }
        Reading::absent(
            Why::Malformed,
            "the heads and tails in the ring's memory are further apart than its entries",
        )
    }

    #[inline]
    fn load(self, ring: &(impl Words + ?Sized)) -> Option<((u32, u32), Counters)> {
        let offsets = self.offsets;
        let sq_head = ring.word(offsets.sq_head)?;
        let cq_head = ring.word(offsets.cq_head)?;
        // The loads above come before the loads below.
        fence(Ordering::Acquire);
        let sq_tail = ring.word(offsets.sq_tail)?;
        let cq_tail = ring.word(offsets.cq_tail)?;
        // The entries that are read after this were written before these tails.
        fence(Ordering::Acquire);
        let word = |index: usize| ring.word(offsets.sq_mask + 4 * index);
        let masks = (word(0)?, word(1)?);
        let (sq_dropped, sq_flags, cq_lost) = (word(4)?, word(5)?, word(7)?);
        let overflowing = sq_flags & SQ_CQ_OVERFLOW != 0;
        let counters =
            Counters { sq_head, sq_tail, cq_head, cq_tail, overflowing, sq_dropped, cq_lost };
        Some((masks, counters))
    }

    /// Where the index array begins (`rings_size`, `io_uring/io_uring.c`): a ring of larger
    /// completions doubles what lies before it, header and all.
    fn array_at(self, cqe_bytes: usize) -> usize {
        let plain = self.offsets.cqes + CQE_BYTES[0] * self.cq_entries as usize;
        (plain * (cqe_bytes / CQE_BYTES[0])).next_multiple_of(LINE_BYTES)
    }

    /// The lengths the first region may have, before rounding, and of which completions then:
    /// without and with an index array (`IORING_SETUP_NO_SQARRAY`).
    fn ring_lengths(self) -> [(usize, usize); 4] {
        let [plain, large] = CQE_BYTES.map(|cqe_bytes| (cqe_bytes, self.array_at(cqe_bytes)));
        let array_bytes = 4 * self.sq_entries as usize;
        let with_array = |(cqe_bytes, bytes)| (cqe_bytes, bytes + array_bytes);
        [plain, with_array(plain), large, with_array(large)]
    }

    /// The lengths the submissions may have, before rounding, and of which size then.
    fn sqes_lengths(self) -> [(usize, usize); 2] {
        SQE_BYTES.map(|sqe_bytes| (sqe_bytes, sqe_bytes * self.sq_entries as usize))
    }

    /// The lengths to ask for when mapping the ring, best first. The first is longer than any
    /// kernel's: newer ones grant that, and which pages are there tells the size. Older ones
    /// refuse what is too long, and so the longest that is granted tells.
    pub fn ring_wants(self, page_bytes: usize) -> Vec<(usize, Rounding)> {
        wants(&self.ring_lengths(), page_bytes)
    }

    /// The same for the submissions.
    pub fn sqes_wants(self, page_bytes: usize) -> Vec<(usize, Rounding)> {
        wants(&self.sqes_lengths(), page_bytes)
    }

    /// How long the entries are: what makes the regions as long as they are. No flag of the ring
    /// that says so can be seen from outside.
    pub fn sizes(
        self,
        ring: (&(impl Words + ?Sized), Rounding),
        sqes: Option<(usize, Rounding)>,
        page_bytes: usize,
    ) -> EntrySizes {
        let fits = |lengths: &[(usize, usize)], size, (len_bytes, rounding): (usize, Rounding)| {
            lengths.iter().any(|(entry_bytes, bytes)| {
                *entry_bytes == size && rounding.up(*bytes, page_bytes) == len_bytes
            })
        };
        let only = |sizes: [usize; 2], fits: &dyn Fn(usize) -> bool| match sizes.map(fits) {
            [true, false] => Some(sizes[0]),
            [false, true] => Some(sizes[1]),
            _ => None,
        };
        let (ring, ring_rounding) = ring;
        let region = (ring.len_bytes(), ring_rounding);
        let cqe_fits = |size| fits(&self.ring_lengths(), size, region);
        let cqe_bytes = only(CQE_BYTES, &cqe_fits)
            // liburing and the crate io-uring number the array once and leave it so.
            .or_else(|| only(CQE_BYTES, &|size| cqe_fits(size) && self.is_numbered(ring, size)));
        let sqe_bytes = match sqes {
            // The only entry lies at the same place either way.
            Some(_) if self.sq_entries == 1 => Some(SQE_BYTES[0]),
            Some(region) => only(SQE_BYTES, &|size| fits(&self.sqes_lengths(), size, region)),
            None => None,
        };
        EntrySizes { cqe_bytes, sqe_bytes }
    }

    /// Whether the words where the index array would be are 0, 1, 2, ….
    fn is_numbered(self, ring: &(impl Words + ?Sized), cqe_bytes: usize) -> bool {
        let at = self.array_at(cqe_bytes);
        self.sq_entries >= IDENTITY_MIN
            && (0..self.sq_entries).all(|index| ring.word(at + 4 * index as usize) == Some(index))
    }

    /// Reads the counters and the entries that tell something. Allocates nothing while no entry
    /// waits and nothing failed.
    ///
    /// # Errors
    /// As [`Self::counters`]. The lists are absent where the size of the entries is not known and
    /// there are some.
    pub fn state(
        self,
        ring: &(impl Words + ?Sized),
        sqes: Reading<&(impl Words + ?Sized)>,
        sizes: EntrySizes,
    ) -> Reading<RingState> {
        self.counters(ring).map(|counters| RingState {
            sq_entries: self.sq_entries,
            sq_head: counters.sq_head,
            sq_tail: counters.sq_tail,
            cq_entries: self.cq_entries,
            cq_head: counters.cq_head,
            cq_tail: counters.cq_tail,
            sqpoll: None,
            overflowing: counters.overflowing,
            sq_dropped: Some(counters.sq_dropped),
            cq_lost: Some(counters.cq_lost),
            pending: self.pending(ring, sqes, sizes, &counters),
            failed: self.failures(ring, sizes, counters.cq_head, counters.cq_pending()),
            recent: {
                let looked_at = self.cq_entries.min(RECENT_COMPLETIONS_MAX);
                let first = counters.cq_tail.wrapping_sub(looked_at);
                // Slots that were never used are zero, as a success is.
                self.failures(ring, sizes, first, looked_at)
            },
        })
    }

    /// Opcode and fd of what was prepared and not submitted.
    fn pending(
        self,
        ring: &(impl Words + ?Sized),
        sqes: Reading<&(impl Words + ?Sized)>,
        sizes: EntrySizes,
        counters: &Counters,
    ) -> Reading<Vec<(String, i32)>> {
        if counters.sq_pending() == 0 {
            return Reading::Got(Vec::new());
        }
        sqes.and_then(|sqes| {
            let Some(sqe_bytes) = sizes.sqe_bytes else { return too_small() };
            let Some(order) = self.order(ring, sizes) else { return too_small() };
            let looked_at = counters.sq_pending().min(PENDING_OPS_MAX as u32);
            let mask = self.sq_entries - 1;
            let entry = |offset: u32| {
                let slot = counters.sq_head.wrapping_add(offset) & mask;
                let index = match order {
                    Order::Array { at } => ring.word(at + 4 * slot as usize)?,
                    Order::Same => slot,
                };
                // The kernel drops an entry with an index beyond the queue.
                let at = (index <= mask).then_some(index as usize * sqe_bytes)?;
                let [code, ..] = sqes.word(at)?.to_ne_bytes();
                Some((code, sqes.word(at + 4)?.cast_signed()))
            };
            let entries: Vec<_> = (0..looked_at).map(entry).collect();
            // What was taken meanwhile may have been written over: it is left out.
            fence(Ordering::Acquire);
            let head = ring.word(self.offsets.sq_head).unwrap_or(counters.sq_head);
            let taken = head.wrapping_sub(counters.sq_head) as usize;
            let still_there = entries.into_iter().skip(taken).flatten();
            Reading::Got(still_there.map(|(code, fd)| (opcode::name(code), fd)).collect())
        })
    }

    /// In which order the submissions are taken; none when it cannot be told.
    fn order(self, ring: &(impl Words + ?Sized), sizes: EntrySizes) -> Option<Order> {
        if self.sq_entries == 1 {
            return Some(Order::Same);
        }
        let at = self.array_at(sizes.cqe_bytes?);
        let mut indices = (0..self.sq_entries as usize).map(|index| ring.word(at + 4 * index));
        // A ring without an array has zeros there, or nothing. An array of zeros would mean that
        // all entries are the first one.
        let is_used = indices.any(|index| index.is_some_and(|index| index != 0));
        Some(if is_used { Order::Array { at } } else { Order::Same })
    }

    /// Results below zero among `looked_at` completions from `first` on: errno and how many.
    fn failures(
        self,
        ring: &(impl Words + ?Sized),
        sizes: EntrySizes,
        first: u32,
        looked_at: u32,
    ) -> Reading<Vec<(i32, u32)>> {
        if looked_at == 0 {
            return Reading::Got(Vec::new());
        }
        let Some(cqe_bytes) = sizes.cqe_bytes else { return too_small() };
        let mut failed = Vec::new();
        let mut offset = 0;
        while offset < looked_at {
            let slot = first.wrapping_add(offset) & (self.cq_entries - 1);
            let at = self.offsets.cqes + slot as usize * cqe_bytes;
            offset += 1;
            let (Some(result), Some(flags)) = (ring.word(at + 8), ring.word(at + 12)) else {
                continue;
            };
            if flags & CQE_SKIP != 0 {
                continue;
            }
            if flags & CQE_TAKES_TWO != 0 && cqe_bytes == CQE_BYTES[0] {
                offset += 1;
            }
            if let Some(errno) = result.cast_signed().checked_neg().filter(|errno| *errno > 0) {
                count(&mut failed, errno, ERRNOS_MAX);
            }
        }
        failed.sort_unstable();
        Reading::Got(failed)
    }
}

fn too_small<T>() -> Reading<T> {
    Reading::absent(
        Why::Unsupported,
        "the ring is too small to tell the size of its entries; fdinfo tells once it lists one",
    )
}

fn wants(lengths: &[(usize, usize)], page_bytes: usize) -> Vec<(usize, Rounding)> {
    let mut rounded: Vec<usize> =
        lengths.iter().map(|(_, bytes)| Rounding::PowerOfTwo.up(*bytes, page_bytes)).collect();
    rounded.sort_unstable_by(|one, other| other.cmp(one));
    rounded.dedup();
    let too_long = rounded.first().map(|longest| (longest + page_bytes, Rounding::Pages));
    let exact = rounded.into_iter().map(|bytes| (bytes, Rounding::PowerOfTwo));
    too_long.into_iter().chain(exact).collect()
}

/// Reads the memory of a ring from a copy of it: `ring` is what is mapped at offset 0, `sqes` what
/// is mapped at `IORING_OFF_SQES`, both of pages of 4 KiB.
pub fn parse_memory(ring: &[u8], sqes: &[u8]) -> Reading<RingState> {
    const PAGE_BYTES: usize = 4096;
    Layout::find(ring).and_then(|layout| {
        let rounding = Rounding::Pages;
        let sizes = layout.sizes((ring, rounding), Some((sqes.len(), rounding)), PAGE_BYTES);
        layout.state(ring, Reading::Got(sqes), sizes)
    })
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
