//! `cpu-throttled`: the cgroup's CPU quota is used up, and the process waits most of the time.
//!
//! When the tasks of a cgroup have used `cpu.max` within a period (100 ms by default), all of them
//! wait for the next one (`Documentation/scheduler/sched-bwc.rst`; `cpu.stat: nr_throttled`,
//! `throttled_usec`). The threads are runnable all the while: state R, run delay that rises and CPU
//! time that does not (measured on 6.18 at 5 % of a CPU: 0.95 s of delay a second).

use stallscope_probes::Reading;

use super::case::{Case, ThreadSpan, number};
use super::outside::TICKS_MIN;
use super::thresholds::Thresholds;
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{CgroupModel, Model, ThreadModel};

pub(super) const NEXT: &[&str] = &[
    "Raise the quota: `cpu.max` of the cgroup (cpu.cfs_quota_us of version 1), the CPU limit of the container or `CPUQuota=` of the unit.",
    "Look whether something else in the same cgroup eats the quota: it counts for all its processes, and all their threads.",
    "Fewer busy threads than CPUs of the quota: many threads use up a period's quota in its first milliseconds, and wait for the rest of it.",
    "This is no fault of the server's event loop: do not look there first.",
];

fn is_throttled(cgroup: &CgroupModel, set: &Thresholds) -> bool {
    cgroup.throttled_ratio.is_some_and(|ratio| ratio >= set.throttled_periods_ratio_min)
        || cgroup.throttled_ms_new.is_some_and(|ms| ms >= set.throttled_ms_min)
}

fn holds(model: &Model, set: &Thresholds) -> Option<bool> {
    Some(is_throttled(model.cgroup.got()?, set))
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let cgroup = match &last.cgroup {
        Reading::Got(cgroup) => cgroup,
        Reading::Absent(absence) => {
            return Finding::Missing(format!(
                "what the cgroup did could not be read ({}).",
                absence.detail
            ));
        }
    };
    if cgroup.throttled_new.is_none() && cgroup.throttled_ms_new.is_none() {
        return Finding::Missing(String::from("the cgroup does not count throttling."));
    }
    let judged = case.judged();
    let agreeing = judged.iter().filter(|model| holds(model, case.weights) == Some(true)).count();
    if !is_throttled(cgroup, case.weights) || agreeing * 2 < judged.len() {
        return Finding::Excluded(format!("The cgroup is not throttled: {}.", share_words(cgroup)));
    }
    Finding::Fits(account(case, last, cgroup))
}

fn account(case: &Case<'_>, last: &Model, cgroup: &CgroupModel) -> Account {
    let threads = case.runtime();
    let starved = threads.iter().find(|thread| is_starved(thread, case.weights));
    let confidence = if starved.is_some() {
        Confidence::Certain
    } else if threads.is_empty() {
        Confidence::Likely
    } else {
        // The loop's own thread waits for something else, or gets what it needs.
        Confidence::Possible
    };
    let since_ns = case.since(|model| holds(model, case.weights));
    let mut evidence = Vec::new();
    if let Some(ratio) = cgroup.throttled_ratio {
        let signal = "periods in which its cgroup was throttled (cpu.max)";
        let share = ratio * 100.0;
        evidence.push(number(Tier::Cgroup, signal, share, "% of the periods", since_ns));
    }
    if let Some(ms) = cgroup.throttled_ms_new {
        let signal = "time for which it was throttled, over the last second or two";
        evidence.push(number(Tier::Cgroup, signal, ms, "ms, all CPUs", since_ns));
    }
    if let Some(thread) = starved.or(threads.first()).map(|thread| thread.last) {
        for (reading, what) in
            [(&thread.delay_ratio, "waits for a CPU"), (&thread.cpu_ratio, "has a CPU")]
        {
            let signal = format!("thread {} {what}", thread.tid);
            let share = reading.got().map(|ratio| ratio * 100.0);
            evidence.extend(
                share.map(|share| number(Tier::Threads, signal, share, "% of the time", None)),
            );
        }
    }
    if let Some(cpu) = last.pressure.got().and_then(|pressure| pressure.cpu) {
        let signal = "tasks waited for a CPU";
        evidence.push(number(Tier::Pressure, signal, cpu.some * 100.0, "% of the time", None));
    }
    evidence.extend(case.queue_evidence());
    Account {
        confidence,
        summary: format!(
            "The CPU quota of its cgroup is used up: {}, and the process waits for the next period instead of working.",
            share_words(cgroup)
        ),
        evidence,
    }
}

/// Wants a CPU and hardly gets one. Where the kernel does not say how long a thread waited, one
/// that is runnable in most samples without CPU time does.
fn is_starved(thread: &ThreadSpan<'_>, set: &Thresholds) -> bool {
    let last: &ThreadModel = thread.last;
    let served = last.cpu_ratio.got().is_some_and(|ratio| *ratio >= set.starved_cpu_ratio_max);
    let delayed = last.delay_ratio.got().is_some_and(|ratio| *ratio >= set.starved_delay_ratio_min);
    let runnable = thread.ticks >= TICKS_MIN && thread.running * 2 > thread.ticks;
    !served && (delayed || (runnable && last.cpu_ratio.got().is_some()))
}

fn share_words(cgroup: &CgroupModel) -> String {
    match (cgroup.throttled_ratio, cgroup.throttled_ms_new) {
        (Some(ratio), Some(ms)) => {
            format!("throttled in {:.0} % of its periods, {ms:.0} ms of late", ratio * 100.0)
        }
        (Some(ratio), None) => format!("throttled in {:.0} % of its periods", ratio * 100.0),
        (None, Some(ms)) => format!("throttled for {ms:.0} ms of late"),
        (None, None) => String::from("it has no CPU quota"),
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::TaskState;

    use super::super::fixtures::{Expect, PID, Story, absent, block, change_thread, hold, spin};
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    fn throttled(ratio: Option<f64>, ms: f64) -> Story {
        Story::new(StallKind::Throttled).stalled(move |_, model| {
            model.cgroup = Got(CgroupModel {
                throttled_ratio: ratio,
                throttled_new: Some(9),
                throttled_ms_new: Some(ms),
                memory_high_new: None,
                memory_max_new: None,
                oom_kills_new: None,
            });
        })
    }

    fn starved(story: Story) -> Story {
        story.stalled(|_, model| {
            change_thread(model, PID, |thread| {
                thread.state = TaskState::Running;
                thread.cpu_ratio = Got(0.05);
                thread.delay_ratio = Got(0.95);
            });
        })
    }

    #[test]
    fn throttled_and_starved_of_a_cpu() {
        let no_delay = |_: usize, model: &mut Model| {
            change_thread(model, PID, |thread| thread.delay_ratio = Got(0.0));
        };
        hold(
            examine,
            vec![
                ("starved", starved(throttled(Some(0.9), 800.0)), Fits(Certain, "90 % of its")),
                (
                    "delay",
                    starved(throttled(Some(0.9), 800.0)),
                    Fits(Certain, "waits for a CPU: 95"),
                ),
                ("by time", starved(throttled(None, 1_100.0)), Fits(Certain, "for 1100 ms")),
                (
                    "runnable without CPU time",
                    starved(throttled(Some(0.9), 800.0)).stalled(no_delay),
                    Fits(Certain, "90 %"),
                ),
                (
                    "the loop's thread sleeps",
                    throttled(Some(0.9), 800.0).stalled(|_, model| block(model)),
                    Fits(Possible, "90 %"),
                ),
                (
                    "it gets a core all the same",
                    throttled(Some(0.9), 800.0).stalled(|_, model| spin(model)),
                    Fits(Possible, "90 %"),
                ),
                (
                    "threads unreadable",
                    throttled(Some(0.9), 800.0).throughout(|_, model| model.threads = absent()),
                    Fits(Likely, "90 %"),
                ),
                ("now and then", starved(throttled(Some(0.4), 300.0)), Excluded("40 % of its")),
                ("no quota", Story::new(StallKind::Throttled), Excluded("not throttled")),
                (
                    "only just now",
                    starved(throttled(Some(0.9), 800.0)).stalled(|since, model| {
                        if since < 28 {
                            model.cgroup = super::super::fixtures::calm(0).cgroup;
                        }
                    }),
                    Excluded("not throttled"),
                ),
                (
                    "no counters",
                    starved(throttled(Some(0.9), 800.0)).throughout(|_, model| {
                        let Got(cgroup) = &mut model.cgroup else { return };
                        *cgroup = CgroupModel {
                            throttled_ratio: None,
                            throttled_new: None,
                            throttled_ms_new: None,
                            ..*cgroup
                        };
                    }),
                    Missing("does not count"),
                ),
                (
                    "unreadable",
                    starved(throttled(Some(0.9), 800.0))
                        .throughout(|_, model| model.cgroup = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
