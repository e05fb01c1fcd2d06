//! Filters that the kernel applies to a dump: the bytecode of `INET_DIAG_REQ_BYTECODE`. Pure.
//!
//! What a filter leaves out costs the kernel a comparison, instead of a message to fill and, on
//! this side, to parse.

/// Ranges of ports in one filter. The kernel tries them one by one for every socket, under the
/// lock of its bucket; with more than this a dump is better sorted out here.
pub const FILTER_RANGES_MAX: usize = 64;

/// Operations of `inet_diag_bc_run` (`net/ipv4/inet_diag.c`). `INET_DIAG_BC_S_EQ` is younger;
/// kernels without it refuse the whole request.
const JUMP: u8 = 1;
const LOCAL_PORT_AT_LEAST: u8 = 2;
const LOCAL_PORT_AT_MOST: u8 = 3;

/// Bytes of `struct inet_diag_bc_op`: the operation, where to go on if true (one byte), and if not
/// (two). Both count from the operation itself.
const OPERATION_BYTES: u16 = 4;
/// A comparison has its port in the last two bytes of a second such struct.
const COMPARISON_BYTES: u16 = 2 * OPERATION_BYTES;

/// A filter that passes sockets whose local port is one of `ports` or within one of `ranges` (both
/// ends included). Empty, which passes all, if that takes more than [`FILTER_RANGES_MAX`]
/// comparisons, or if there is nothing to pass: the kernel knows no program for that.
pub fn local_ports(ports: &[u16], ranges: &[(u16, u16)]) -> Vec<u8> {
    let ranges = merged(ports, ranges);
    if ranges.len() > FILTER_RANGES_MAX {
        return Vec::new();
    }
    let mut program = Vec::new();
    let mut clauses = ranges.iter().peekable();
    while let Some((low, high)) = clauses.next() {
        let is_last = clauses.peek().is_none();
        let jump_bytes = if is_last { 0 } else { OPERATION_BYTES };
        // Past this clause; from the last one past the end, by the one word which the kernel's
        // audit allows and `inet_diag_bc_run` takes for "no".
        let miss = if is_last { OPERATION_BYTES } else { jump_bytes };
        compare(&mut program, LOCAL_PORT_AT_LEAST, *low, 2 * COMPARISON_BYTES + miss);
        compare(&mut program, LOCAL_PORT_AT_MOST, *high, COMPARISON_BYTES + miss);
        if !is_last {
            // To the end: a match.
            let left = (ranges.len() * CLAUSE_BYTES - OPERATION_BYTES as usize) - program.len();
            operation(&mut program, JUMP, OPERATION_BYTES as u8, left as u16);
        }
    }
    program
}

/// Bytes of all clauses but the last, which needs no jump.
const CLAUSE_BYTES: usize = (2 * COMPARISON_BYTES + OPERATION_BYTES) as usize;

fn compare(program: &mut Vec<u8>, code: u8, port: u16, if_not: u16) {
    operation(program, code, COMPARISON_BYTES as u8, if_not);
    operation(program, 0, 0, port);
}

fn operation(program: &mut Vec<u8>, code: u8, if_true: u8, if_not: u16) {
    program.extend_from_slice(&[code, if_true]);
    program.extend_from_slice(&if_not.to_ne_bytes());
}

/// The same ports as few ranges, in order.
fn merged(ports: &[u16], ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut all: Vec<(u16, u16)> =
        ports.iter().map(|port| (*port, *port)).chain(ranges.iter().copied()).collect();
    all.retain(|(low, high)| low <= high);
    all.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (low, high) in all {
        match merged.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op(program: &[u8], at: usize) -> (u8, usize, usize) {
        let no = u16::from_ne_bytes([program[at + 2], program[at + 3]]);
        (program[at], program[at + 1].into(), no.into())
    }

    /// `inet_diag_bc_run` (`net/ipv4/inet_diag.c`).
    fn passes(program: &[u8], port: u16) -> bool {
        let (mut at, end) = (0, program.len());
        while at < end {
            let (code, yes, no) = op(program, at);
            let is_true = match code {
                JUMP => false,
                LOCAL_PORT_AT_LEAST => usize::from(port) >= op(program, at + 4).2,
                LOCAL_PORT_AT_MOST => usize::from(port) <= op(program, at + 4).2,
                other => panic!("operation {other}"),
            };
            at += if is_true { yes } else { no };
        }
        at == end
    }

    /// `inet_diag_bc_audit` (`net/ipv4/inet_diag.c`): what it refuses fails here.
    fn audit(program: &[u8]) {
        let mut starts = Vec::new();
        let mut targets = Vec::new();
        let (mut at, end) = (0, program.len());
        while at < end {
            let (code, yes, no) = op(program, at);
            let least = if code == JUMP { 4 } else { 8 };
            for jump in [yes, no] {
                assert!(jump >= least && jump <= end - at + 4 && jump % 4 == 0, "{jump} at {at}");
            }
            starts.push(at);
            targets.push(at + no);
            at += yes;
        }
        assert_eq!(at, end);
        assert!(targets.iter().all(|target| *target >= end || starts.contains(target)));
    }

    #[test]
    fn one_range_is_two_comparisons() {
        let mut expected = vec![2, 8];
        expected.extend(20_u16.to_ne_bytes());
        expected.extend([0, 0]);
        expected.extend(8080_u16.to_ne_bytes());
        expected.extend([3, 8]);
        expected.extend(12_u16.to_ne_bytes());
        expected.extend([0, 0]);
        expected.extend(8080_u16.to_ne_bytes());
        assert_eq!(local_ports(&[8080], &[]), expected);
    }

    #[test]
    fn neighbours_become_one_range_and_too_many_none() {
        type Ranges = &'static [(u16, u16)];
        let cases: [(&[u16], Ranges, Ranges); 5] = [
            (&[8081, 8080], &[], &[(8080, 8081)]),
            (&[40_000, 80], &[(32_768, 60_999)], &[(80, 80), (32_768, 60_999)]),
            (&[65_535, 0], &[(65_000, 65_535)], &[(0, 0), (65_000, 65_535)]),
            (&[], &[(5, 4)], &[]),
            (&[7], &[(1, 9), (3, 4)], &[(1, 9)]),
        ];
        for (ports, ranges, expected) in cases {
            assert_eq!(merged(ports, ranges), expected);
        }
        let every_other = |count: usize| (0..count as u16).map(|n| 2 * n).collect::<Vec<_>>();
        assert!(!local_ports(&every_other(FILTER_RANGES_MAX), &[]).is_empty());
        assert!(local_ports(&every_other(FILTER_RANGES_MAX + 1), &[]).is_empty());
        assert!(local_ports(&[], &[]).is_empty());
    }

    proptest! {
        #[test]
        fn a_filter_passes_the_audit_and_exactly_what_it_says(
            ports in proptest::collection::vec(0_u16..300, 1..20),
            ranges in proptest::collection::vec((0_u16..300, 0_u16..300), 0..3),
        ) {
            let program = local_ports(&ports, &ranges);
            audit(&program);
            for port in 0..=301 {
                let wanted = ports.contains(&port)
                    || ranges.iter().any(|(low, high)| (*low..=*high).contains(&port));
                prop_assert_eq!(passes(&program, port), wanted, "{}", port);
            }
        }
    }
}
