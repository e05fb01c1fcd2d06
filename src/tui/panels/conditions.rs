//! The page of evidence: its tiers, absent readings, the watcher's own cost, conditions of the run.

use ratatui::text::Line;
use stallscope_probes::{Absence, Reading, Why};

use super::super::app::App;
use super::super::theme::Theme;
use super::detail::Text;
use super::why;
use crate::model::Model;

/// The lines of the page.
pub fn lines(app: &App, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut page = Text { lines: Vec::new(), columns: usize::from(width).saturating_sub(3), theme };
    if let Some(model) = &app.view().model {
        super::tiers::entries(&mut page, model);
    }
    page.heading("Absent readings of this tick (absent is not zero)");
    match &app.view().model {
        None => page.entry("   ", "no tick has come yet", theme.dim()),
        Some(model) => {
            let absences = absences(model);
            if absences.is_empty() {
                page.entry("   ", "none: everything could be read", theme.dim());
            }
            for (reason, names) in absences {
                page.entry(" · ", &format!("{}: {reason}", names.join(", ")), theme.dim());
            }
        }
    }
    if let Some(model) = &app.view().model {
        shared(&mut page, model);
        page.heading("The watcher itself");
        let probe = model.active.got().map(|raw| {
            format!("its own connections: {}", super::active::words(raw, Some(model.at_ns)))
        });
        page.list(super::watcher::sentences(&model.watcher).into_iter().chain(probe));
    }
    page.heading("Target");
    target(&mut page, app);
    page.heading("Conditions");
    conditions(&mut page, app);
    if let Some(recording) = app.recording() {
        page.heading("Lost or damaged in the recording");
        page.list(recording.losses.iter().cloned());
    }
    page.lines
}

/// Tables that others fill too, and what the event loop watches.
fn shared(page: &mut Text, model: &Model) {
    let tables = model.tables.got().map_or_else(Vec::new, super::limits::tables);
    let tables = tables.iter().filter_map(|table| table.words().into_iter().next());
    let epolls = model.epolls.got().into_iter().flat_map(|epolls| epolls.iter());
    let epolls = epolls.map(|epoll| {
        let asks = epoll.listeners.iter().filter(|(_, asks)| *asks).count();
        let mute = epoll.listeners.len() - asks;
        let mute = if mute > 0 { format!(" ({mute} more without asking)") } else { String::new() };
        format!(
            "epoll {} watches {} fds, {asks} listeners among them{mute}",
            epoll.fd, epoll.watched
        )
    });
    let entries: Vec<String> = tables.chain(epolls).collect();
    if !entries.is_empty() {
        page.heading("Shared tables, epoll sets");
        page.list(entries.into_iter());
    }
}

fn target(page: &mut Text, app: &App) {
    let target = &app.info().target;
    let plain = page.theme.plain();
    page.entry("   ", &format!("pid {}, {}", target.pid, target.comm), plain);
    page.entry("   ", &format!("command line: {}", target.cmdline), plain);
    let exe = target.exe.as_ref().map_or_else(
        || String::from("executable: absent: it could not be read"),
        |exe| format!("executable: {}", exe.display()),
    );
    page.entry("   ", &exe, plain);
    if target.foreign_netns {
        let words = "It lives in another network namespace than the watcher.";
        page.entry("   ", words, page.theme.warn());
    }
    if !target.siblings.is_empty() {
        let pids: Vec<_> = target.siblings.iter().map(i32::to_string).collect();
        let words = format!("Other processes hold the same listeners: pid {}", pids.join(", "));
        page.entry("   ", &words, page.theme.warn());
    }
}

fn conditions(page: &mut Text, app: &App) {
    let place = &app.info().environment;
    let limit = |limit: Option<u64>| limit.map_or(String::from("none"), |at| at.to_string());
    let fd_limits = match &place.fd_limits {
        Reading::Got(fds) => format!("soft {}, hard {}", limit(fds.soft), limit(fds.hard)),
        Reading::Absent(absence) => format!("unknown: {}", absence.detail),
    };
    let words = [
        format!("stallscope {} on {}, {} CPUs", place.version, place.kernel, place.cpus),
        format!("one tick every {} ms", place.interval_ms),
        format!("fd limit at the start: {fd_limits}"),
    ];
    page.list(words.into_iter().chain(place.limits.iter().cloned()));
}

/// Everything that is absent in `model`: why, and what, grouped by the reason.
fn absences(model: &Model) -> Vec<(String, Vec<String>)> {
    let mut found = Found::default();
    found.look("process", &model.process, |found, process| {
        found.note("cpu of the process", &process.cpu_cores);
    });
    found.look("fds", &model.fds, |_, _| {});
    found.look("ports", &model.ports, |_, _| {});
    found.look("accept queues", &model.listeners, |found, listeners| {
        for listener in listeners.iter() {
            found.note("new drops of a listener", &listener.drops_new);
        }
    });
    found.look("connections", &model.served, |_, _| {});
    found.look("rings", &model.rings, |found, rings| {
        for ring in rings.iter() {
            found.note("state of a ring", &ring.state);
            found.note("armed operations of a ring", &ring.armed);
            found.note("submissions of a ring", &ring.submissions_per_s);
            found.note("completions of a ring", &ring.completions_per_s);
        }
    });
    found.look("TCP counters", &model.tcp, |_, _| {});
    found.look("cgroup state", &model.frozen, |_, _| {});
    found.note("cgroup limits", &model.cgroup);
    found.note("pressure", &model.pressure);
    found.note("fd census", &model.fd_kinds);
    found.look("shared tables", &model.tables, |found, tables| {
        found.note("file table", &tables.files);
        found.note("connection tracking", &tables.conntrack);
    });
    found.note("epoll sets", &model.epolls);
    // Among the tiers it says what would permit it; that nobody asked for it is no finding.
    if model.active.absence().is_some_and(|absence| absence.why != Why::Unsupported) {
        found.note("active probe", &model.active);
    }
    found.look("outgoing connections", &model.peers, |found, peers| {
        for peer in peers.iter() {
            found.note("segments sent again", &peer.retransmitted_new);
        }
    });
    found.look("heartbeat", &model.app, |found, app| {
        found.note("accepts", &app.accepts_per_s);
        found.note("requests", &app.requests_per_s);
        found.note("responses", &app.responses_per_s);
        found.note("delivered events", &app.delivered_per_s);
    });
    found.look("threads", &model.threads, |found, threads| {
        for thread in threads.iter() {
            found.note("cpu of a thread", &thread.cpu_ratio);
            found.note("run delay of a thread", &thread.delay_ratio);
            found.note("switches of a thread", &thread.switches_per_s);
            found.note("system call of a thread", &thread.syscall);
            found.note("sleeping place of a thread", &thread.wchan);
            found.note("kernel stack of a thread", &thread.kernel_stack);
        }
    });
    found.list()
}

/// Absences by reason and name, each with how often, in the order in which they were met. Few at
/// a time: reasons repeat.
#[derive(Default)]
struct Found(Vec<(String, Vec<(&'static str, usize)>)>);

impl Found {
    fn look<T>(
        &mut self,
        name: &'static str,
        reading: &Reading<T>,
        within: impl FnOnce(&mut Self, &T),
    ) {
        match reading {
            Reading::Got(value) => within(self, value),
            Reading::Absent(absence) => self.count(name, absence),
        }
    }

    fn note<T>(&mut self, name: &'static str, reading: &Reading<T>) {
        self.look(name, reading, |_, _| {});
    }

    fn count(&mut self, name: &'static str, absence: &Absence) {
        let reason = format!("absent: {}: {}", why(absence.why), absence.detail);
        let at = self.0.iter().position(|(known, _)| *known == reason).unwrap_or_else(|| {
            self.0.push((reason, Vec::new()));
            self.0.len() - 1
        });
        let names = &mut self.0[at].1;
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => *times += 1,
            None => names.push((name, 1)),
        }
    }

    fn list(self) -> Vec<(String, Vec<String>)> {
        let named = |(name, times): (&str, usize)| {
            if times > 1 { format!("{name} ({times} times)") } else { name.to_owned() }
        };
        self.0
            .into_iter()
            .map(|(reason, names)| (reason, names.into_iter().map(named).collect()))
            .collect()
    }
}
