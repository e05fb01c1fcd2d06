//! The thread that catches stacks while the target is watched, and the one that names them.
//!
//! Neither may hold up the sampling: what is wanted is sent to them, and what they have made is
//! taken when it is there. Both end with the [`Keeper`].

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use stallscope_probes::stacks::capture::{Ask, Capture, Waits};
use stallscope_probes::{Absence, Reading};

use super::dump::{self, Eyes, Found};
use super::naming::{Job, Namer};
use super::plan::{Plan, Stretch};
use super::rolling::Rolling;
use crate::profile::fold::fold;
use crate::profile::stacks::{Kind, Profile, ThreadStacks};
use crate::watch::clock::{now_ns, thread_cpu_ns};
use crate::watch::event::{Event, ProfileWindow, Target};

/// Time between looks at the rings.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// Jobs that may wait for their names; more are left out.
const JOBS_MAX: usize = 16;
/// How long the end of watching may wait for the last names.
const LAST_MAX: Duration = Duration::from_secs(20);

/// What the keeper has made.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// A profile.
    Profile(ProfileWindow),
    /// The stacks of all threads.
    Stacks(ThreadStacks),
}

/// What is asked of it.
enum Order {
    Onset { at_ns: u64, detected_ns: u64 },
    Recovered { at_ns: u64 },
    End,
}

/// Work for the naming thread.
enum Work {
    Profiles(Box<Job>),
    Stacks(Box<Found>),
}

/// Keeps the last seconds' stacks of one process.
#[derive(Debug)]
pub struct Keeper {
    orders: Option<Sender<Order>>,
    made: Receiver<Made>,
    catching: Option<JoinHandle<()>>,
    naming: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Begins to catch.
    ///
    /// # Errors
    /// When the target may not be profiled, with what would permit it.
    pub fn begin(target: &Target, hz: u32) -> Result<Self, Absence> {
        let ask = Ask { hz, waits: Waits::Cheaply };
        let capture = match Capture::begin(Path::new("/proc"), target.pid, ask, now_ns()) {
            Reading::Got(capture) => capture,
            Reading::Absent(absence) => return Err(absence),
        };
        let (orders, ordered) = channel();
        let (work, to_name) = sync_channel(JOBS_MAX);
        let (give, made) = channel();
        let (pid, comm) = (target.pid, target.comm.clone());
        let failed = |error: std::io::Error| Absence::from(&error);
        let catching = std::thread::Builder::new()
            .name(String::from("stacks"))
            .spawn(move || Catcher::new(pid, capture, work).run(&ordered))
            .map_err(failed)?;
        let naming = std::thread::Builder::new()
            .name(String::from("symbols"))
            .spawn(move || name_all(pid, &comm, hz, &to_name, &give))
            .map_err(failed)?;
        Ok(Self { orders: Some(orders), made, catching: Some(catching), naming: Some(naming) })
    }

    /// Heeds what happened in a tick.
    pub fn heed(&self, events: &[Event]) {
        let Some(orders) = &self.orders else { return };
        for event in events {
            // A keeper that has ended (its target has) is not an error of the watcher's.
            match event {
                Event::Onset(onset) => orders
                    .send(Order::Onset { at_ns: onset.at_ns, detected_ns: onset.detected_ns })
                    .ok(),
                Event::Recovered { at_ns, .. } => {
                    orders.send(Order::Recovered { at_ns: *at_ns }).ok()
                }
                Event::Verdict(_) | Event::Forecast(_) | Event::Note { .. } => None,
            };
        }
    }

    /// What has been made since the last call.
    pub fn take(&self) -> Vec<Made> {
        self.made.try_iter().collect()
    }

    /// Ends: makes what is still wanted, and waits for it, though not for ever.
    pub fn finish(mut self) -> Vec<Made> {
        if let Some(orders) = self.orders.take() {
            orders.send(Order::End).ok();
        }
        let mut made = Vec::new();
        let until_ns = now_ns().saturating_add(u64::try_from(LAST_MAX.as_nanos()).unwrap_or(0));
        loop {
            let left = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
            match self.made.recv_timeout(left) {
                Ok(one) => made.push(one),
                // Both threads have ended, or names take too long.
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => break,
            }
        }
        made
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Without orders to come the catching thread ends, and then the other one.
        drop(self.orders.take());
        if let Some(catching) = self.catching.take() {
            catching.join().ok();
        }
        // Naming may be in the midst of a large file: the process does not wait for it.
        drop(self.naming.take());
    }
}

struct Catcher {
    pid: i32,
    capture: Capture,
    rolling: Rolling,
    plan: Plan,
    work: SyncSender<Work>,
    left_out: u64,
    begun_ns: u64,
}

impl Catcher {
    fn new(pid: i32, capture: Capture, work: SyncSender<Work>) -> Self {
        let begun_ns = now_ns();
        let rolling = Rolling::new(begun_ns);
        Self { pid, capture, rolling, plan: Plan::default(), work, left_out: 0, begun_ns }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = orders.recv_timeout(DRAIN_EVERY);
            self.look();
            let now_ns = now_ns();
            let mut ends = false;
            let wanted = match order {
                Ok(Order::Onset { at_ns, detected_ns }) => {
                    self.send_stacks();
                    let whole_ns = self.rolling.whole_since_ns();
                    self.plan.onset(at_ns, detected_ns, whole_ns).into_iter().collect()
                }
                Ok(Order::Recovered { at_ns }) => self.plan.recovered(at_ns),
                Ok(Order::End) => {
                    ends = true;
                    self.plan.end(now_ns, self.rolling.whole_since_ns())
                }
                Err(RecvTimeoutError::Timeout) => self.plan.due(now_ns),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for stretch in wanted {
                self.send_profiles(stretch);
            }
            if ends {
                return;
            }
        }
    }

    fn look(&mut self) {
        let now_ns = now_ns();
        let caught = self.capture.drain(now_ns);
        self.rolling.push(caught, now_ns);
        self.capture.look_at_sleepers(now_ns);
        if self.capture.stacks().is_full() {
            // So many different stacks are a target without frame pointers or unwind tables.
            self.capture.forget_stacks();
            self.rolling.clear(now_ns);
        }
    }

    fn send_profiles(&mut self, stretch: Stretch) {
        let (begin_ns, end_ns) = stretch;
        let away = self.capture.away(end_ns);
        let caught = self.rolling.cut(begin_ns, end_ns, away);
        let kinds = vec![Kind::Cpu, Kind::OffCpu];
        let mut job = Job::new(&mut self.capture, stretch, kinds, caught);
        job.notes.push(self.cost());
        if self.left_out > 0 {
            job.notes
                .push(format!("{} profiles were left out: naming did not keep up", self.left_out));
        }
        if self.work.try_send(Work::Profiles(Box::new(job))).is_err() {
            self.left_out += 1;
        }
    }

    fn send_stacks(&mut self) {
        let now_ns = now_ns();
        let found = dump::find(self.pid, Eyes::Following(&mut self.capture, &self.rolling), now_ns);
        if self.work.try_send(Work::Stacks(Box::new(found))).is_err() {
            self.left_out += 1;
        }
    }

    /// What catching has cost so far.
    fn cost(&self) -> String {
        let passed_ns = now_ns().saturating_sub(self.begun_ns).max(1);
        cost(thread_cpu_ns() as f64 / passed_ns as f64 * 100.0)
    }
}

/// What catching has cost, as a sentence that does not change with every look.
fn cost(percent: f64) -> String {
    const STEPS_PERCENT: [f64; 6] = [0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    let step = STEPS_PERCENT.into_iter().find(|step| percent < *step);
    step.map_or_else(
        || format!("catching stacks took the watcher {percent:.0} % of one CPU"),
        |step| format!("catching stacks took the watcher less than {step} % of one CPU"),
    )
}

/// Body of the naming thread.
fn name_all(pid: i32, comm: &str, hz: u32, to_name: &Receiver<Work>, made: &Sender<Made>) {
    let mut namer = Namer::new(pid, comm, hz);
    while let Ok(work) = to_name.recv() {
        let sent = match work {
            Work::Profiles(job) => namer
                .name(&job)
                .iter()
                .try_for_each(|profile| made.send(Made::Profile(window(profile)))),
            Work::Stacks(found) => made.send(Made::Stacks(dump::name(&found, &mut namer))),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// As a recording keeps it.
fn window(profile: &Profile) -> ProfileWindow {
    ProfileWindow {
        begin_ns: profile.begin_ns,
        end_ns: profile.end_ns,
        kind: profile.kind,
        maker: profile.maker,
        hz: profile.hz,
        folded: fold(profile),
        notes: profile.notes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::made::{self, Plan as Made};
    use crate::profile::stacks::Maker;

    #[test]
    fn what_it_cost_is_told_in_steps() {
        let cases = [
            (0.0, "less than 0.2 %"),
            (0.2, "less than 0.5 %"),
            (0.99, "less than 1 %"),
            (9.9, "less than 10 %"),
            (10.0, "watcher 10 %"),
            (42.4, "watcher 42 %"),
        ];
        for (percent, words) in cases {
            assert!(cost(percent).contains(words), "{percent}: {}", cost(percent));
        }
    }

    #[test]
    fn a_recording_keeps_a_profile_folded_with_what_it_is_of() {
        let samples: [(&str, &[&str], u64); 1] = [("worker", &["main", "park"], 2_000_000)];
        let profile = made::profile(&Made { kind: Kind::OffCpu, samples: &samples });
        let kept = window(&profile);
        assert_eq!((kept.begin_ns, kept.end_ns), (profile.begin_ns, profile.end_ns));
        assert_eq!((kept.kind, kept.maker, kept.hz), (Kind::OffCpu, Maker::Watcher, profile.hz));
        assert_eq!((kept.folded.as_str(), kept.notes), ("worker;main;park 2000\n", profile.notes));
    }

    #[test]
    fn a_target_that_is_gone_is_not_caught() {
        let target = Target {
            pid: i32::MAX,
            comm: String::from("gone"),
            cmdline: String::new(),
            exe: None,
            start_time_ticks: 0,
            foreign_netns: false,
            siblings: Vec::new(),
        };
        let absence = Keeper::begin(&target, 99).expect_err("there is no such process");
        assert_eq!(absence.why, stallscope_probes::Why::Gone, "{absence:?}");
    }
}
