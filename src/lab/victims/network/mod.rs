//! Servers whose host, namespace or limits are the trouble, and the clients that are part of it.
#![expect(
    clippy::disallowed_methods,
    reason = "victims keep their own time, and read and write the limits they are to run into"
)]

mod cgroup;
mod clients;
mod epoll;
mod fds;
mod file_table;
mod flood;
mod host;
mod http;
mod listeners;
mod packets;
mod ports;
mod queues;
mod server;

use super::Run;

/// By name.
pub(super) const VICTIMS: &[(&str, Run)] = &[
    ("fd-spin", fds::spin),
    ("fd-back-off", fds::back_off),
    ("fd-uring", fds::uring),
    ("fd-turns-away", fds::turns_away),
    ("fd-epoll", epoll::run),
    ("file-table", file_table::run),
    (file_table::GUARD, file_table::guard),
    ("accept-slow", queues::slow_accepts),
    ("accept-paced", queues::paced_accepts),
    ("net-usual", queues::usual),
    ("net-few-handshakes", queues::few_handshakes),
    ("ports-backend", ports::run),
    (ports::BEHIND, ports::behind),
    ("quota-hard", host::quota_hard),
    ("quota-moderate", host::quota_moderate),
    ("quota-roomy", host::quota_roomy),
    ("frozen", host::frozen),
    ("frozen-v2", host::frozen_v2),
    (host::FREEZER, host::freezer),
    (host::FREEZER_V2, host::freezer_v2),
    ("one-of-two-listeners", listeners::one_of_two),
    ("listener-renewed", listeners::renewed),
    ("client-gather", clients::gather),
    ("client-crowd", clients::crowd),
    ("client-next-port", clients::next_port),
    ("client-ports-closed", clients::ports_closed),
    ("client-ports-held", clients::ports_held),
    ("client-handshakes", flood::handshakes),
    ("client-tracked", flood::tracked),
];

/// Removes what a victim, `pid`, may have left on the host: its cgroups, even frozen, and a lowered
/// `fs.file-max`. To be called once it was told to end; a frozen one ends only then.
///
/// # Errors
/// When something cannot be removed or put back.
pub fn clean_up(pid: u32) -> anyhow::Result<()> {
    let cgroups = cgroup::clean_up(pid);
    file_table::clean_up(pid)?;
    cgroups
}
