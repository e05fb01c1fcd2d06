//! The ring that the kernel writes records of `perf_event_open(2)` into, and how it is emptied.
//!
//! One page of counters, then a power of two of pages of data. `data_head` is the kernel's,
//! `data_tail` ours; both only grow. Without room the kernel drops records and says how many.

use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use perf_event_open_sys::bindings::perf_event_mmap_page;

use super::record::HEADER_BYTES;

/// One ring.
#[derive(Debug)]
pub struct Buffer {
    map: MmapRaw,
    page_bytes: usize,
    data_bytes: usize,
    /// A record that lies across the end of the ring, put together.
    joined: Vec<u8>,
}

impl Buffer {
    /// Maps the ring of an event; `data_bytes` is a power of two of pages.
    ///
    /// # Errors
    /// EPERM when that is more memory than may be locked (`kernel.perf_event_mlock_kb`,
    /// `RLIMIT_MEMLOCK`).
    pub fn map(event: &OwnedFd, data_bytes: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let map = MmapOptions::new().len(page_bytes + data_bytes).map_raw(event)?;
        Ok(Self { map, page_bytes, data_bytes, joined: Vec::new() })
    }

    /// Hands every record that is there to `heed`, oldest first, and gives their room back.
    pub fn drain(&mut self, mut heed: impl FnMut(&[u8])) {
        let head = self.head().load(Ordering::Acquire);
        let mut tail = self.tail().load(Ordering::Relaxed);
        while head.wrapping_sub(tail) >= HEADER_BYTES as u64 {
            let mut header = [0; HEADER_BYTES];
            self.copy(tail, &mut header);
            let [.., low, high] = header;
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if length < HEADER_BYTES || length as u64 > head.wrapping_sub(tail) {
                // Not what the kernel writes: nothing after it can be trusted.
                tail = head;
                break;
            }
            let mut record = std::mem::take(&mut self.joined);
            record.resize(length, 0);
            self.copy(tail, &mut record);
            heed(&record);
            self.joined = record;
            tail = tail.wrapping_add(length as u64);
            self.tail().store(tail, Ordering::Release);
        }
        self.tail().store(tail, Ordering::Release);
    }

    /// Copies out of the ring, around its end.
    fn copy(&self, from: u64, into: &mut [u8]) {
        let at = (from % self.data_bytes as u64) as usize;
        let first = into.len().min(self.data_bytes - at);
        let data = self.map.as_ptr();
        // SAFETY: the mapping is one page and `data_bytes` long (`map`), `at` lies below
        // `data_bytes`, and `first` and the rest end at or before its end; records are shorter
        // than the ring, which `drain` has checked against `head`. Between tail and head the
        // kernel does not write. `into` is ours alone.
        unsafe {
            let data = data.add(self.page_bytes);
            std::ptr::copy_nonoverlapping(data.add(at), into.as_mut_ptr(), first);
            let rest = into.len() - first;
            std::ptr::copy_nonoverlapping(data, into.as_mut_ptr().add(first), rest);
        }
    }

    fn head(&self) -> &AtomicU64 {
        self.counter(offset_of!(perf_event_mmap_page, data_head))
    }

    fn tail(&self) -> &AtomicU64 {
        self.counter(offset_of!(perf_event_mmap_page, data_tail))
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "a page and an offset that are multiples of 8"
        )]
        let word = self.map.as_mut_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY: the first page of the mapping is a `perf_event_mmap_page`, aligned to a page and
        // writable, and lives as long as `self`; the kernel too touches this word atomically.
        unsafe { AtomicU64::from_ptr(word) }
    }
}
