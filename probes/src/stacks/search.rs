//! The frame of a function whose frame pointer is not known.
//!
//! A function that keeps a frame pointer has, where that points, two words: the frame pointer of its
//! caller, which lies further up the stack, and the return address. Below the function's own frame
//! may lie old ones, of functions that it called before, so finding two such words is not enough.
//! What tells its own is either of two proofs: the function's first instructions say how far below
//! the frame the stack pointer was set; or before the return address stands a call, and that call is
//! of this very function. Where neither can be had (a frame of changing size, reached through a
//! register), the chain of frames has to lead on, and what is found is a guess, and marked as such.

use super::unwind::{Copied, Unwinder};

/// Frames of a chain looked at.
const CHAIN_MAX: usize = 256;
/// Frames that a chain must have to be believed without proof.
const CHAIN_MIN: usize = 3;

/// Where to search.
pub struct Place<'a> {
    /// First address of the function whose frame is wanted, if known.
    pub function: Option<u64>,
    /// Where its stack begins.
    pub sp: u64,
    /// The stack.
    pub(super) stack: &'a Copied<'a>,
    /// Reads eight bytes of the process.
    pub memory: &'a dyn Fn(u64) -> Option<[u8; 8]>,
}

/// What stands before a return address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// A call of the function there.
    Of(u64),
    /// A call through a register or a table.
    Somewhere,
    /// No call: it is not a return address.
    None,
}

/// One frame: two words on the stack.
#[derive(Debug, Clone, Copy)]
struct Frame {
    at: u64,
    caller: u64,
    back: u64,
}

/// The function's frame pointer, and whether that is sure.
pub fn frame(unwinder: &Unwinder, place: &Place<'_>) -> Option<(u64, bool)> {
    let words = place.stack.bytes.len() as u64 / 8;
    let first = place.sp.wrapping_sub(place.stack.base).div_ceil(8);
    let frames = || {
        (first..words).filter_map(|index| frame_at(unwinder, place, place.stack.base + index * 8))
    };
    if let Some(function) = place.function {
        let own = below_frame_bytes(place, function)
            .and_then(|bytes| frame_at(unwinder, place, place.sp.wrapping_add(bytes)))
            .filter(|frame| call_before(place, frame.back) != Call::None);
        if let Some(own) = own {
            return Some((own.at, true));
        }
        let own = frames().find(|frame| call_before(place, frame.back) == Call::Of(function));
        if let Some(own) = own {
            return Some((own.at, true));
        }
    }
    let guess = frames().find(|frame| may_be(unwinder, place, *frame))?;
    Some((guess.at, false))
}

/// The two words at `at`, if they may be a frame.
fn frame_at(unwinder: &Unwinder, place: &Place<'_>, at: u64) -> Option<Frame> {
    let (caller, back) = (place.stack.word(at)?, place.stack.word(at.wrapping_add(8))?);
    let leads_up = caller == 0 || (caller > at && place.stack.word(caller).is_some());
    (leads_up && unwinder.is_code(back)).then_some(Frame { at, caller, back })
}

/// Whether a frame may be the wanted one, for want of proof: the call is not known to be of another
/// function, nor made by the function itself, and the chain leads on.
fn may_be(unwinder: &Unwinder, place: &Place<'_>, frame: Frame) -> bool {
    match call_before(place, frame.back) {
        Call::None => return false,
        // A call through the linker's stub names the stub.
        Call::Of(target) if unwinder.function_of(target) == Some(target) => return false,
        Call::Of(_) | Call::Somewhere => {}
    }
    if place.function.is_some()
        && unwinder.function_of(frame.back.wrapping_sub(1)) == place.function
    {
        return false;
    }
    let mut next = frame;
    for length in 1..CHAIN_MAX {
        if next.caller == 0 {
            return true;
        }
        let Some(outer) = frame_at(unwinder, place, next.caller) else {
            return length >= CHAIN_MIN;
        };
        // The outer frame is that of the function which the inner one returns into: a call that
        // names its target must name that one. An old frame of another function fails here.
        let inner = unwinder.function_of(next.back.wrapping_sub(1));
        match call_before(place, outer.back) {
            Call::None => return length >= CHAIN_MIN,
            Call::Of(target)
                if unwinder.function_of(target) == Some(target) && inner != Some(target) =>
            {
                return false;
            }
            Call::Of(_) | Call::Somewhere => next = outer,
        }
    }
    true
}

/// How far below the frame of the function at `begin` its stack pointer is: what its first
/// instructions push and subtract once they have set the frame pointer.
#[cfg(target_arch = "x86_64")]
fn below_frame_bytes(place: &Place<'_>, begin: u64) -> Option<u64> {
    let mut code = [0_u8; 40];
    for (nth, piece) in code.chunks_exact_mut(8).enumerate() {
        piece.copy_from_slice(&(place.memory)(begin.wrapping_add(nth as u64 * 8))?);
    }
    let mut rest = code.as_slice();
    // endbr64; push %rbp; mov %rsp,%rbp
    rest = rest.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(rest);
    rest = rest.strip_prefix(&[0x55, 0x48, 0x89, 0xe5])?;
    let mut bytes = 0;
    loop {
        rest = match rest {
            [0x50..=0x57, rest @ ..] | [0x41, 0x50..=0x57, rest @ ..] => rest,
            _ => break,
        };
        bytes += 8;
    }
    match rest {
        // sub $n,%rsp, of one byte or of four.
        [0x48, 0x83, 0xec, size @ 0..0x80, after @ ..] if !aligns(after) => {
            Some(bytes + u64::from(*size))
        }
        [0x48, 0x81, 0xec, a, b, c, d, after @ ..] if !aligns(after) => {
            Some(bytes + u64::from(u32::from_le_bytes([*a, *b, *c, *d])))
        }
        // The stack is aligned, or grown in a loop: not known.
        [0x48, 0x83 | 0x81, 0xec, ..] | [0x49, 0x89, 0xe3, ..] | [0x4c, 0x8d, 0x9c, ..] => None,
        rest if aligns(rest) => None,
        _ => Some(bytes),
    }
}

/// `and $n,%rsp`, before or after which the size depends on the caller.
#[cfg(target_arch = "x86_64")]
const fn aligns(code: &[u8]) -> bool {
    matches!(code, [0x48, 0x83 | 0x81, 0xe4, ..])
}

#[cfg(not(target_arch = "x86_64"))]
fn below_frame_bytes(_place: &Place<'_>, _begin: u64) -> Option<u64> {
    None
}

/// What stands before the return address `back`.
#[cfg(target_arch = "x86_64")]
fn call_before(place: &Place<'_>, back: u64) -> Call {
    let Some(bytes) = (place.memory)(back.wrapping_sub(8)) else { return Call::None };
    let offset = |from: usize| {
        let bytes = bytes.get(from..from + 4).and_then(|bytes| bytes.first_chunk());
        bytes.map(|bytes| i64::from(i32::from_le_bytes(*bytes)))
    };
    // Instruction set reference, CALL: E8 cd; FF /2 with a register, or memory of every length.
    if bytes[3] == 0xe8 {
        return offset(4).map_or(Call::None, |offset| Call::Of(back.wrapping_add_signed(offset)));
    }
    if bytes[2..4] == [0xff, 0x15] {
        let slot = offset(4).map(|offset| back.wrapping_add_signed(offset));
        let target = slot.and_then(|slot| (place.memory)(slot));
        return target.map_or(Call::Somewhere, |target| Call::Of(u64::from_le_bytes(target)));
    }
    let through = |from: usize| bytes[from] == 0xff && bytes[from + 1] & 0x38 == 0x10;
    if (1..=6).any(through) { Call::Somewhere } else { Call::None }
}

/// Of other machines nothing is known: every word may be a return address.
#[cfg(not(target_arch = "x86_64"))]
fn call_before(_place: &Place<'_>, _back: u64) -> Call {
    Call::Somewhere
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    #[test]
    fn the_first_instructions_tell_how_large_the_frame_is() {
        // As compiled: endbr64, push rbp, mov; push r15, r14, rbx; sub.
        const PUSHES: [u8; 9] = [0x55, 0x48, 0x89, 0xe5, 0x41, 0x57, 0x41, 0x56, 0x53];
        let cases: [(&[u8], Option<u64>); 6] = [
            (&[0x48, 0x83, 0xec, 0x38, 0x64], Some(24 + 0x38)),
            (&[0x48, 0x81, 0xec, 0x00, 0x02, 0, 0, 0x64], Some(24 + 0x200)),
            (&[0x64, 0x48], Some(24)),
            (&[0x48, 0x83, 0xe4, 0xe0, 0x48, 0x83, 0xec, 0x38], None),
            (&[0x48, 0x83, 0xec, 0x38, 0x48, 0x83, 0xe4, 0xe0], None),
            (&[0x49, 0x89, 0xe3, 0x49], None),
        ];
        for (more, expected) in cases {
            for prefix in [&[][..], &[0xf3, 0x0f, 0x1e, 0xfa]] {
                let mut code = [prefix, &PUSHES, more].concat();
                code.resize(48, 0x90);
                let memory = |address: u64| code.get(address as usize..)?.first_chunk().copied();
                let stack = Copied { base: 0, bytes: &[] };
                let place = Place { function: None, sp: 0, stack: &stack, memory: &memory };
                assert_eq!(below_frame_bytes(&place, 0), expected, "{more:x?}");
            }
        }
        let memory = |_| Some([0x90; 8]);
        let stack = Copied { base: 0, bytes: &[] };
        let place = Place { function: None, sp: 0, stack: &stack, memory: &memory };
        assert_eq!(below_frame_bytes(&place, 0), None, "it keeps no frame pointer");
    }

    #[test]
    fn calls_are_told_by_the_bytes_before_the_return_address() {
        let cases: [([u8; 8], Call); 6] = [
            ([0x90, 0x90, 0x90, 0xe8, 0x10, 0, 0, 0], Call::Of(0x1010)),
            ([0x90, 0x90, 0x90, 0xe8, 0xf0, 0xff, 0xff, 0xff], Call::Of(0xff0)),
            ([0x90, 0x90, 0xff, 0x15, 0, 0, 0, 0], Call::Of(0x2a)),
            ([0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0], Call::Somewhere),
            ([0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0x53, 0x18], Call::Somewhere),
            ([0x90; 8], Call::None),
        ];
        for (bytes, call) in cases {
            let memory = |address: u64| match address {
                0xff8 => Some(bytes),
                0x1000 => Some(0x2a_u64.to_le_bytes()),
                _ => None,
            };
            let stack = Copied { base: 0, bytes: &[] };
            let place = Place { function: None, sp: 0, stack: &stack, memory: &memory };
            assert_eq!(call_before(&place, 0x1000), call, "{bytes:x?}");
            assert_eq!(call_before(&place, 0x9000), Call::None, "not readable");
        }
    }
}
