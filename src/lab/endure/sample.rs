//! Looks at one process from outside: memory, fds, threads, CPU time, and its heartbeat page.
#![expect(clippy::disallowed_methods, reason = "this is `read` code")]

use std::path::Path;
use std::time::{Duration, Instant};

use stallscope_probes::heartbeat::{self, PageReader};
use stallscope_probes::sample::HeartbeatRaw;
use stallscope_probes::{Reading, fds, process};

use super::series::Point;

/// Where the kernel shows its processes.
const PROC: &str = "/proc";

/// A process that is looked at again and again.
pub(super) struct Subject {
    pid: i32,
    page: Reading<PageReader>,
    ticks_per_s: f64,
    before: Option<Counters>,
    /// Why memory could not be read, the last time that was so.
    pub(super) rss_absent: Option<String>,
}

/// What only grows, and when it was read.
#[derive(Debug, Clone, Copy)]
struct Counters {
    at: Instant,
    cpu_s: Option<f64>,
    waited_s: Option<f64>,
    responses: Option<f64>,
}

/// Memory of a process, KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Resident {
    rss_kib: f64,
    anon_kib: Option<f64>,
}

impl Subject {
    /// The process `pid`.
    pub(super) fn new(pid: i32) -> Self {
        let page = process::identity(Path::new(PROC), pid)
            .and_then(|known| heartbeat::find(Path::new(PROC), pid, known.start_time_ticks));
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        Self { pid, page, ticks_per_s, before: None, rss_absent: None }
    }

    /// What it says of itself, or why that is not known.
    pub(super) fn page(&self) -> Result<HeartbeatRaw, String> {
        known(self.page.as_ref().and_then(PageReader::read))
    }

    /// How many fds it has open, or why that is not known.
    pub(super) fn fds(&self) -> Result<u64, String> {
        known(fds::read(Path::new(PROC), self.pid).map(|fds| fds.open))
    }

    /// Everything, `at` since the load began.
    pub(super) fn look(&mut self, at: Duration) -> Point {
        let memory = self.memory();
        if let Err(why) = &memory {
            self.rss_absent = Some(why.clone());
        }
        let memory = memory.ok();
        let process = process::read(Path::new(PROC), self.pid).got().cloned();
        let page = self.page().ok();
        let ticks = process.as_ref().map(|process| process.utime_ticks + process.stime_ticks);
        let now = Counters {
            at: Instant::now(),
            cpu_s: ticks.map(|ticks| ticks as f64 / self.ticks_per_s),
            waited_s: self.waited_s(),
            responses: page.as_ref().map(|page| page.responses as f64),
        };
        let before = self.before.replace(now);
        let rate = |count: fn(&Counters) -> Option<f64>| {
            let before = before.as_ref()?;
            Some((count(&now)? - count(before)?) / (now.at - before.at).as_secs_f64())
        };
        Point {
            at_s: at.as_secs_f64(),
            rss_kib: memory.map(|memory| memory.rss_kib),
            anon_kib: memory.and_then(|memory| memory.anon_kib),
            fds: self.fds().ok().map(|fds| fds as f64),
            threads: process.map(|process| process.threads as f64),
            cpu_cores: rate(|counters| counters.cpu_s),
            waited_for_cpu: rate(|counters| counters.waited_s),
            responses_per_s: rate(|counters| counters.responses),
            producer_queue: page.map(|page| page.producer_queue as f64),
        }
    }

    /// How long the main thread could run and had no CPU, in all.
    fn waited_s(&self) -> Option<f64> {
        let path = Path::new(PROC).join(self.pid.to_string()).join("schedstat");
        waited_s(&std::fs::read_to_string(path).ok()?)
    }

    fn memory(&self) -> Result<Resident, String> {
        let path = Path::new(PROC).join(self.pid.to_string()).join("status");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        // A zombie has no memory, and its file no such line.
        resident(&text).ok_or_else(|| format!("{} has no line VmRSS", path.display()))
    }
}

fn known<T>(reading: Reading<T>) -> Result<T, String> {
    match reading {
        Reading::Got(value) => Ok(value),
        Reading::Absent(absence) => Err(absence.detail),
    }
}

/// From `/proc/PID/status` (proc(5)).
fn resident(status: &str) -> Option<Resident> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Resident { rss_kib: kib("VmRSS:")?, anon_kib: kib("RssAnon:") })
}

/// From `/proc/PID/schedstat` (Documentation/scheduler/sched-stats.rst): the second figure, ns.
fn waited_s(schedstat: &str) -> Option<f64> {
    let waited_ns: f64 = schedstat.split_whitespace().nth(1)?.parse().ok()?;
    Some(waited_ns / 1e9)
}

/// The longest time in which no answer came, as far as that is certain: a look that came late itself
/// makes none longer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The last count, and when it was seen first.
    last: Option<(u64, Duration)>,
    longest: Duration,
}

impl Silence {
    /// So many answers were counted `at`.
    pub(super) fn counted(&mut self, answers: u64, at: Duration) {
        match self.last {
            Some((count, since)) if count == answers => {
                self.longest = self.longest.max(at.saturating_sub(since));
            }
            _ => self.last = Some((answers, at)),
        }
    }

    /// s; `None` when nothing was counted.
    pub(super) fn longest_s(&self) -> Option<f64> {
        self.last.map(|_| self.longest.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_where_it_stands() {
        let status = "Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t   5120 kB\nRssAnon:\t 4000 kB\n";
        assert_eq!(resident(status), Some(Resident { rss_kib: 5120.0, anon_kib: Some(4000.0) }));
        assert_eq!(resident("VmRSS: 1 kB"), Some(Resident { rss_kib: 1.0, anon_kib: None }));
        assert_eq!(resident("Name:\tx\nState:\tZ (zombie)\n"), None, "absent is not zero");
    }

    #[test]
    fn the_wait_for_a_cpu_is_the_second_figure() {
        assert_eq!(waited_s("5 2500000000 7\n"), Some(2.5));
        assert_eq!(waited_s(""), None);
    }

    #[test]
    fn silence_is_what_lies_between_looks_that_saw_the_same() {
        let ms = Duration::from_millis;
        let mut silence = Silence::default();
        assert_eq!(silence.longest_s(), None);
        for (answers, at) in [(1, 0), (2, 100), (2, 300), (2, 400), (3, 2_000), (4, 9_000)] {
            silence.counted(answers, ms(at));
        }
        assert_eq!(silence.longest_s(), Some(0.3), "late looks prove nothing");
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let mut subject = Subject::new(std::process::id().cast_signed());
        let point = subject.look(Duration::from_secs(3));
        assert!(point.rss_kib.unwrap() > 100.0 && point.threads.unwrap() >= 1.0, "{point:?}");
        assert!(point.fds.unwrap() >= 3.0 && point.cpu_cores.is_none(), "{point:?}");
        assert!(subject.page().unwrap_err().contains("heartbeat page"));
        assert!(Subject::new(i32::MAX).look(Duration::ZERO).rss_kib.is_none());
    }
}
