//! Numbers of the kernel's interfaces, by name.

use crate::diagnose::verdict::Cause;

/// A system call by name. The one place where the table of the machine's system calls is asked.
pub(super) fn syscall(nr: i64) -> String {
    crate::model::syscall::name(nr).map_or_else(|| format!("syscall {nr}"), str::to_owned)
}

/// An errno by name (errno(3); numbers of include/uapi/asm-generic/errno{-base,}.h).
pub(super) fn errno(number: i32) -> String {
    ERRNO
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("errno {number}"), |(_, name)| (*name).to_owned())
}

/// What a cause is called in a headline; the id stands beside it.
pub(super) const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::SqNotFlushed => "Submission queue not flushed",
        Cause::SubmitErrorDropped => "Submission failed and was forgotten",
        Cause::CompletionsNotReaped => "Completions not reaped",
        Cause::AcceptNotArmed => "Nobody accepts",
        Cause::TaskrunDeferred => "Completions deferred for ever",
        Cause::ListenerGone => "Listening socket closed",
        Cause::AcceptLeaked => "Cancelled accepts take connections",
        Cause::ReuseportSibling => "A sibling on the port does not serve",
        Cause::AcceptEagainStorm => "Accepts fail at once, for ever",
        Cause::RuntimeBlocked => "Runtime thread blocked",
        Cause::RuntimeBusy => "Runtime thread computes",
        Cause::WorkersBlocked => "All workers blocked",
        Cause::FdExhausted => "Out of file descriptors",
        Cause::FileTableFull => "The system's file table is full",
        Cause::AcceptQueueOverflow => "Accept queue overflows",
        Cause::SynBacklogFull => "Too many handshakes under way",
        Cause::EphemeralPortsExhausted => "Out of local ports",
        Cause::ConntrackFull => "Connection tracking table full",
        Cause::KafkaUnreachable => "Kafka broker cannot be reached",
        Cause::KafkaSlow => "Kafka broker too slow",
        Cause::KafkaQueueFull => "Kafka producer's queue full",
        Cause::KafkaNotPolled => "Nobody polls the Kafka producer",
        Cause::ProcessStopped => "Process stopped",
        Cause::CpuThrottled => "CPU quota used up",
        Cause::HealthyIdle => "Healthy, nothing to do",
        Cause::HealthyBusy => "Healthy, busy",
        Cause::Unknown => "Stalled, cause unknown",
    }
}

const ERRNO: [(i32, &str); 48] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (32, "EPIPE"),
    (34, "ERANGE"),
    (38, "ENOSYS"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (71, "EPROTO"),
    (75, "EOVERFLOW"),
    (77, "EBADFD"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (90, "EMSGSIZE"),
    (95, "EOPNOTSUPP"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (113, "EHOSTUNREACH"),
    (125, "ECANCELED"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_names_and_others_stay_numbers() {
        assert_eq!(errno(24), "EMFILE");
        assert_eq!(errno(9999), "errno 9999");
    }
}
