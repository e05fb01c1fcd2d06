//! `accept-eagain-storm`: accepts fail at once with EAGAIN, and the loop tries again at once.
//!
//! On kernels up to 5.15 an accept through io_uring on a non-blocking listener (tokio's, handed over
//! with `from_std`) fails instead of waiting (`io_uring/net.c io_accept`, `REQ_F_NOWAIT`); newer ones do
//! the same when asked to (`IORING_ACCEPT_DONTWAIT`).

use super::case::{Case, number};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Hand a blocking listener to io_uring: `listener.set_nonblocking(false)` before `from_std`.",
    "Back off 10 to 100 ms when an accept fails, whatever the error: a loop without a pause burns a core.",
];

/// EAGAIN of errno(3).
const EAGAIN: i32 = 11;
/// Of the completions looked at, so many must be EAGAIN.
const EAGAIN_MIN: u32 = 24;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let rings = case.rings();
    if rings.is_empty() {
        return super::sq_not_flushed::no_rings(case);
    }
    let again = |errors: &stallscope_probes::Reading<Vec<(i32, u32)>>| {
        let errors = errors.got().into_iter().flatten();
        errors
            .filter(|(errno, _)| *errno == EAGAIN)
            .fold(0_u32, |sum, (_, n)| sum.saturating_add(*n))
    };
    let rate = |fd: i32| {
        let rates = case
            .judged()
            .iter()
            .filter_map(|model| model.ring(fd)?.completions_per_s.got().copied());
        rates.fold(0.0_f64, f64::max)
    };
    let per_s_min = case.weights.eagain_completions_per_s_min;
    let storm_per_s = per_s_min.min(case.thresholds.storm_completions_per_s);
    let storm = rings.iter().find(|ring| {
        ring.cq_posting && again(&ring.last.recent) >= EAGAIN_MIN && rate(ring.fd) >= storm_per_s
    });
    let Some(ring) = storm else {
        return Finding::Excluded(String::from(
            "No ring completes operations with EAGAIN again and again.",
        ));
    };
    let rate = rate(ring.fd);
    let mut evidence = vec![
        number(
            ring.tier,
            format!("ring {} last completions that failed with EAGAIN", ring.fd),
            f64::from(again(&ring.last.recent)),
            "completions",
            None,
        ),
        number(ring.tier, format!("ring {} completions", ring.fd), rate, "per second", None),
    ];
    if let Some(fds) = case.last().and_then(|last| last.fds.got()) {
        evidence.push(number(Tier::Fds, "open fds", fds.open as f64, "fds", None));
    }
    evidence.extend(case.queue_evidence());
    Finding::Fits(Account {
        confidence: Confidence::Certain,
        summary: format!(
            "Ring {} completes {rate:.0} operations a second, all refused with EAGAIN: the accept loop asks again and again for what would block.",
            ring.fd
        ),
        evidence,
    })
}
