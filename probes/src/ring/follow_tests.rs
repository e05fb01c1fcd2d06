use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::{IoUring, opcode};

use super::*;

fn make() -> Option<IoUring> {
    IoUring::new(256).inspect_err(|error| println!("did not run: no io_uring: {error}")).ok()
}

fn rings_of(ring: &IoUring) -> Rings {
    let mut rings = Rings::new(Path::new("/proc"), std::process::id() as i32, RingAccess::Memory);
    rings.follow(&[ring.as_raw_fd()]);
    rings
}

fn only(rings: &mut Rings) -> RingRaw {
    let mut read = rings.read();
    assert_eq!(read.len(), 1, "{read:?}");
    read.remove(0)
}

fn prepare(ring: &mut IoUring) {
    // SAFETY: the entry refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.unwrap();
}

/// Another test of this process may hold the ring's lock: no verdict then.
fn read_fdinfo_unlocked(rings: &mut Rings) {
    for _ in 0..1000 {
        rings.read_fdinfo(|| 7);
        if rings.followed[0].fdinfo.got().is_some() {
            return;
        }
    }
    panic!("the ring's section was never there");
}

fn counters(values: [u32; 4]) -> Counters {
    let [sq_head, sq_tail, cq_head, cq_tail] = values;
    let (overflowing, sq_dropped, cq_lost) = (false, 0, 0);
    Counters { sq_head, sq_tail, cq_head, cq_tail, overflowing, sq_dropped, cq_lost }
}

#[test]
fn fdinfo_confirms_what_it_lies_between() {
    let printed = |values: [u32; 4], entries: (u32, u32)| {
        let [sq_head, sq_tail, cq_head, cq_tail] = values;
        let (sq_entries, cq_entries) = entries;
        let state = RingState {
            sq_entries,
            sq_head,
            sq_tail,
            cq_entries,
            cq_head,
            cq_tail,
            ..RingState::default()
        };
        let (armed, sizes) = (ArmedRaw::default(), EntrySizes::default());
        Reading::Got(Parsed { state, armed, sizes })
    };
    let entries = (8, 16);
    let before = Reading::Got(counters([u32::MAX, u32::MAX, 5, 6]));
    let after = Reading::Got(counters([3, 4, 5, 9]));
    let cases = [
        ([u32::MAX, u32::MAX, 5, 6], Verdict::Confirmed),
        ([0, 1, 5, 7], Verdict::Confirmed),
        ([3, 4, 5, 9], Verdict::Confirmed),
        ([4, 4, 5, 9], Verdict::Mismatch),
        ([3, 5, 5, 9], Verdict::Mismatch),
        ([3, 4, 6, 9], Verdict::Mismatch),
        ([3, 4, 4, 9], Verdict::Mismatch),
        ([3, 4, 5, 10], Verdict::Mismatch),
        ([u32::MAX - 1, u32::MAX, 5, 6], Verdict::Mismatch),
    ];
    for (values, verdict) in cases {
        let parsed = printed(values, entries);
        assert_eq!(judge(entries, &before, &parsed, &after), verdict, "{values:?}");
    }
    let resized = printed([0, 1, 5, 7], (16, 32));
    assert_eq!(judge(entries, &before, &resized, &after), Verdict::Mismatch);
    let locked = Reading::absent(Why::Locked, "");
    assert_eq!(judge(entries, &before, &locked, &after), Verdict::None);
    let torn = Reading::absent(Why::Malformed, "");
    let parsed = printed([0, 1, 5, 7], entries);
    assert_eq!(judge(entries, &torn, &parsed, &after), Verdict::Mismatch);
}

#[test]
fn memory_that_fdinfo_contradicts_is_mapped_anew_and_then_given_up() {
    let (Some(ring), Some(mut other)) = (make(), make()) else { return };
    prepare(&mut other);
    let mut rings = rings_of(&ring);
    let wrong_memory = |rings: &mut Rings| {
        let Source::Memory { hold, .. } = rings.attach(other.as_raw_fd()) else {
            panic!("the other ring is not mapped");
        };
        let Source::Memory { hold: held, .. } = &mut rings.followed[0].source else {
            panic!("the ring is not mapped");
        };
        *held = hold;
    };
    wrong_memory(&mut rings);
    read_fdinfo_unlocked(&mut rings);
    let Source::Memory { mismatches: 1, confirmed: false, .. } = rings.followed[0].source else {
        panic!("{:?}", rings.followed[0].source);
    };
    assert_eq!(only(&mut rings).state.got().map(RingState::sq_pending), Some(0), "mapped anew");

    wrong_memory(&mut rings);
    read_fdinfo_unlocked(&mut rings);
    let given_up = only(&mut rings);
    let RingSource::Fdinfo(absence) = &given_up.source else { panic!("{given_up:?}") };
    assert_eq!(absence.why, Why::Malformed);
    assert_eq!(given_up.state.got().map(|state| state.sq_entries), Some(256), "from fdinfo");
    rings.follow(&[ring.as_raw_fd()]);
    assert_eq!(only(&mut rings).source, given_up.source, "not tried again");
}

#[test]
fn a_mismatch_that_does_not_come_back_is_forgotten() {
    let Some(ring) = make() else { return };
    let mut rings = rings_of(&ring);
    if let Source::Memory { mismatches, .. } = &mut rings.followed[0].source {
        *mismatches = 1;
    }
    read_fdinfo_unlocked(&mut rings);
    assert_eq!(only(&mut rings).source, RingSource::Memory { confirmed: true });
    assert!(matches!(rings.followed[0].source, Source::Memory { mismatches: 0, .. }));
}

#[test]
fn where_rings_share_an_inode_none_is_held() {
    let Some(mut ring) = make() else { return };
    let mut rings = rings_of(&ring);
    assert!(matches!(rings.followed[0].source, Source::Memory { hold: Hold::Kept(_), .. }));
    rings.shared_file = rings.followed[0].file;
    rings.release();
    rings.follow(&[ring.as_raw_fd()]);
    assert!(matches!(rings.followed[0].source, Source::Memory { hold: Hold::Anew, .. }));

    prepare(&mut ring);
    let read = only(&mut rings);
    assert_eq!(read.source, RingSource::Memory { confirmed: false });
    let state = read.state.got().unwrap();
    assert_eq!(state.pending, Reading::Got(vec![("NOP".to_owned(), -1)]));
    read_fdinfo_unlocked(&mut rings);
    let read = only(&mut rings);
    assert_eq!(read.source, RingSource::Memory { confirmed: true });
    assert_eq!(read.state.got().unwrap().sqpoll, Some(false));
}

#[test]
fn a_lock_that_is_held_leaves_what_was_seen_of_the_operations() {
    let Some(ring) = make() else { return };
    let mut rings = rings_of(&ring);
    let followed = &mut rings.followed[0];
    let locked = || Reading::absent(Why::Locked, "");
    followed.take(locked(), 1);
    assert_eq!(followed.armed.absence().map(|absence| absence.why), Some(Why::Locked));
    read_fdinfo_unlocked(&mut rings);
    let followed = &mut rings.followed[0];
    followed.take(locked(), 8);
    assert_eq!(followed.armed.got().map(|armed| armed.at_ns), Some(7));
    followed.take(Reading::absent(Why::NotPermitted, ""), 9);
    assert_eq!(followed.armed.absence().map(|absence| absence.why), Some(Why::NotPermitted));
}
