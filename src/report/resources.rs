//! What the process holds and depends on: its fds, connections to others, its cgroup, pressure.

use maud::{Markup, html};
use stallscope_probes::Reading;
use stallscope_probes::sample::{FdKindsRaw, PressureScope};

use super::facts::Facts;
use super::tables::scrolling;
use super::text::{count, duration_ms, duration_ns, number, shown, why};
use crate::model::answers::waiting;
use crate::model::{Model, PeerModel, StallShare};

/// The section's body: the last tick of the stall, or of the run.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    let Some(model) = facts.stall_models().next_back() else {
        return html! { p { "There is no tick to look at." } };
    };
    html! {
        p { "As read last, at " (facts.clock(model.at_ns)) " UTC or a little before." }
        h3 { "What the fds are" }
        (fds(&model.fd_kinds))
        h3 { "Connections to others" }
        (peers(model))
        h3 { "Clients" }
        (clients(model))
        h3 { "Tables that others fill too" }
        (shared_tables(model))
        h3 { "cgroup and pressure" }
        (limits(facts, model))
    }
}

fn absent<T>(reading: &Reading<T>) -> Markup {
    html! {
        @if let Some(absence) = reading.absence() {
            span.none { "absent, " (why(absence.why)) ": " (shown(&absence.detail)) }
        }
    }
}

fn fds(reading: &Reading<FdKindsRaw>) -> Markup {
    let Some(kinds) = reading.got() else { return html! { p { (absent(reading)) } } };
    let counts = [
        ("sockets", kinds.sockets),
        ("io_uring", kinds.rings),
        ("epoll", kinds.epolls),
        ("eventfd, timerfd and their kin", kinds.anonymous),
        ("pipes", kinds.pipes),
        ("files and devices", kinds.files),
    ];
    html! {
        ul.chips {
            @for (name, times) in counts { @if times > 0 { li { (count(times.into())) " " (name) } } }
        }
        p.hint {
            (count(kinds.looked_at.into())) " fds were looked at"
            @if kinds.truncated { "; there were more" } "."
        }
    }
}

/// Connections to the ports served, and who waits for an answer.
fn clients(model: &Model) -> Markup {
    if model.served.got().is_none() {
        return html! { p { (absent(&model.served)) } };
    }
    let served = model.all_served();
    if served.is_empty() {
        return html! { p { "No connection to it was counted." } };
    }
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Port" }
                    th.num scope="col" { "Accepted" }
                    th.num scope="col" { "Closed by the client only" }
                    th.num scope="col" { "With unread bytes" }
                    th.num scope="col" { "Waiting for an answer" }
                    th.num scope="col" { "The oldest for" }
                }
            }
            tbody {
                @for port in served {
                    tr {
                        th scope="row" { (port.raw.port) }
                        td.num { (count(port.raw.accepted_open.into())) }
                        td.num { (count(port.raw.close_wait.into())) }
                        td.num { (count(port.raw.unread_sockets.into())) }
                        @match port.raw.answers {
                            Some(answers) => {
                                td.num { (count(waiting(&answers).0.into())) }
                                td.num {
                                    @match waiting(&answers).1 {
                                        Some(ms) => { (duration_ms(ms.into())) }
                                        None => { "–" }
                                    }
                                }
                            }
                            None => { td.none { "not told" } td {} }
                        }
                    }
                }
            }
        }
    };
    scrolling("Clients", &table)
}

/// The file table and connection tracking.
fn shared_tables(model: &Model) -> Markup {
    let Some(tables) = model.tables.got() else { return html! { p { (absent(&model.tables)) } } };
    html! {
        dl.pairs {
            dt { "Open files of the system" }
            dd {
                @match &tables.files {
                    Reading::Got(files) => {
                        (count(files.open)) " of " (count(files.max))
                        @if files.exempt == Some(true) { "; this process may go beyond" }
                    }
                    Reading::Absent(_) => { (absent(&tables.files)) }
                }
            }
            dt { "Connections tracked" }
            dd {
                @match &tables.conntrack {
                    Reading::Got(table) => {
                        (count(table.entries.into())) " of " (count(table.max.into())) "; "
                        (count(table.drops)) " packets dropped for want of room so far"
                    }
                    Reading::Absent(_) => { (absent(&tables.conntrack)) }
                }
            }
        }
    }
}

fn peers(model: &Model) -> Markup {
    if model.peers.got().is_none() {
        return html! { p { (absent(&model.peers)) } };
    }
    let peers = model.all_peers();
    if peers.is_empty() {
        return html! { p { "The process has made no connection of its own." } };
    }
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "To" }
                    th scope="col" { "Service" }
                    th scope="col" { "State" }
                    th.num scope="col" { "Not acknowledged, bytes" }
                    th.num scope="col" { "Unread, bytes" }
                    th.num scope="col" { "Segments sent again" }
                    th.num scope="col" { "Of them new" }
                    th.num scope="col" { "Round trip" }
                }
            }
            tbody { @for peer in peers { (connection(peer)) } }
        }
    };
    html! {
        (scrolling("Connections to others", &table))
        p.hint {
            "Kafka is told by the ports that brokers use by custom, or by librdkafka's threads in "
            "the process: it is a guess."
        }
    }
}

fn connection(peer: &PeerModel) -> Markup {
    let raw = &peer.raw;
    html! {
        tr {
            th scope="row" { (raw.remote) }
            td { @if peer.kafka { "Kafka" } @else { "–" } }
            td { (peer.state_name()) }
            td.num { (count(raw.unsent_bytes.into())) }
            td.num { (count(raw.unread_bytes.into())) }
            @if let Some(info) = &raw.info {
                td.num { (count(info.retransmitted.into())) }
                @match &peer.retransmitted_new {
                    Reading::Got(new) => { td.num { (count((*new).into())) } }
                    Reading::Absent(absence) => { td.none { (why(absence.why)) } }
                }
                td.num { (duration_ns(u64::from(info.rtt_us) * 1_000)) }
            } @else {
                td.none { "not told" } td {} td {}
            }
        }
    }
}

fn percent(ratio: f64) -> String {
    format!("{} %", number(ratio * 100.0))
}

fn limits(facts: &Facts<'_>, model: &Model) -> Markup {
    let models = || facts.stall_models();
    let throttled = models().filter_map(|model| model.cgroup.got()?.throttled_ratio);
    let throttled =
        throttled.fold(None, |most: Option<f64>, now| Some(most.map_or(now, |most| most.max(now))));
    html! {
        dl.pairs {
            dt { "Throttled by cpu.max" }
            dd {
                @match (model.cgroup.got(), throttled) {
                    (None, _) => { (absent(&model.cgroup)) }
                    (Some(now), None) if now.throttled_new.is_none() => { span.none { "not told" } }
                    (Some(_), None) => { "never: no period of enforcement went by" }
                    (Some(now), Some(most)) => {
                        @match now.throttled_ratio {
                            Some(now) => { "in " (percent(now)) " of the periods at the last look, " }
                            None => {}
                        }
                        "in " (percent(most)) " at most"
                    }
                }
            }
            @if let Some(cgroup) = model.cgroup.got() {
                dt { "Limits of memory met" }
                dd {
                    "memory.high " (times(cgroup.memory_high_new)) ", memory.max "
                    (times(cgroup.memory_max_new)) ", killed " (times(cgroup.oom_kills_new))
                    ", within the last second or two"
                }
            }
            dt { "Time lost waiting" }
            dd {
                @match &model.pressure {
                    Reading::Absent(_) => { (absent(&model.pressure)) }
                    Reading::Got(pressure) => {
                        "for a CPU " (share(pressure.cpu)) ", for memory " (share(pressure.memory))
                        ", for a disk " (share(pressure.io))
                        @match pressure.scope {
                            PressureScope::Cgroup => { ", by tasks of its cgroup" }
                            PressureScope::Machine => { ", by tasks of the whole machine" }
                        }
                    }
                }
            }
        }
    }
}

fn times(events: Option<u64>) -> String {
    events.map_or_else(|| String::from("not told"), |events| format!("{} times", count(events)))
}

fn share(share: Option<StallShare>) -> String {
    share.map_or_else(|| String::from("not told"), |share| percent(share.some))
}
