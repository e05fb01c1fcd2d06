//! What is followed, and what it says of a stall.

use super::StallKind;
use super::thresholds::Thresholds;

/// What one track follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The process as a whole.
    Process,
    /// The submission queue of a ring, by fd.
    Submission(i32),
    /// Its completion queue.
    Completion(i32),
    /// Its completions, all errors.
    Storm(i32),
    /// The beat of the server's own page.
    Beat,
    /// Requests without a response, by the server's own page.
    PageAnswers,
    /// Unread bytes on connections to a port.
    Unread(u16),
    /// Requests without an answer on connections to a port.
    Answers(u16),
    /// Connections to a port that were accepted and never looked at.
    Neglected(u16),
    /// The accept queue of an own listener, by inode.
    Accept(u32),
    /// Another's listener on a port of the target.
    Sibling(u32),
    /// Drops at an own listener.
    Overflow(u32),
    /// A port that nobody listens on any more.
    Gone(u16),
    /// Handshakes under way.
    Handshakes,
    /// The limit of fds, where new connections are reset.
    NoFd,
    /// The connection tracking table.
    Conntrack,
    /// Ephemeral ports.
    Ports,
    /// The CPU quota.
    Throttled,
    /// The watcher's own connections.
    Probe,
}

impl Subject {
    pub(super) const fn kind(self) -> StallKind {
        match self {
            Self::Process => StallKind::Stopped,
            Self::Submission(_) | Self::Completion(_) => StallKind::Ring,
            Self::Beat | Self::Unread(_) => StallKind::Runtime,
            Self::Accept(_) | Self::Sibling(_) | Self::Storm(_) => StallKind::Accept,
            Self::PageAnswers | Self::Answers(_) | Self::Neglected(_) | Self::Probe => {
                StallKind::Answers
            }
            Self::Gone(_) => StallKind::Listener,
            Self::Overflow(_) | Self::Handshakes | Self::NoFd | Self::Conntrack | Self::Ports => {
                StallKind::Full
            }
            Self::Throttled => StallKind::Throttled,
        }
    }

    /// Whether its demand is nothing unusual for some seconds: no reason to look closer yet.
    pub(super) const fn is_patient(self) -> bool {
        matches!(self, Self::PageAnswers)
    }

    /// By when after the first tick it has been looked at for the first time: counters have to be
    /// read twice, and shares are taken over a second or two.
    pub(super) const fn first_look_ns(self) -> u64 {
        match self {
            Self::Throttled => 2_500_000_000,
            Self::Handshakes | Self::Overflow(_) => 1_750_000_000,
            _ => 1_000_000_000,
        }
    }

    /// How long its demand may go unmet; for those whose time does not depend on what else is seen.
    pub(super) const fn hold_ms(self, set: &Thresholds) -> u64 {
        match self {
            Self::Process => set.stopped_hold_ms,
            Self::Submission(_) | Self::Completion(_) | Self::Beat => set.frozen_hold_ms,
            Self::Storm(_) => set.storm_hold_ms,
            Self::Unread(_) => set.unread_hold_ms,
            Self::PageAnswers | Self::Answers(_) => set.answers_hold_ms,
            Self::Neglected(_) => set.neglected_hold_ms,
            Self::Accept(_) => set.accept_hold_ms,
            Self::Sibling(_) => set.sibling_hold_ms,
            Self::Overflow(_) => set.overflow_hold_ms,
            Self::Gone(_) => set.listener_gone_hold_ms,
            Self::Handshakes => set.syn_hold_ms,
            Self::NoFd | Self::Conntrack | Self::Ports | Self::Probe => set.full_hold_ms,
            Self::Throttled => set.throttled_hold_ms,
        }
    }
}
