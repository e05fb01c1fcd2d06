//! What a load run counts: responses by status, failures by kind and errno, latencies.

use std::collections::BTreeMap;
use std::io;

use hdrhistogram::Histogram;
use rustix::io::Errno;

/// Latencies above this are counted as this: far beyond any timeout in use.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits kept of a latency.
const LATENCY_DIGITS: u8 = 3;
/// One past the highest three-digit status.
const STATUS_MAX: usize = 1000;

/// What became of a connect, or of a request, that got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// Nobody listens there (ECONNREFUSED).
    ConnectRefused,
    /// No ephemeral port is left towards this server (EADDRNOTAVAIL).
    AddrNotAvailable,
    /// No answer to the handshake within the timeout, or within the kernel's own (ETIMEDOUT).
    ConnectTimeout,
    /// Any other failure of a connect.
    ConnectFailed,
    /// This process (EMFILE) or the system (ENFILE) has no fd left.
    NoFd,
    /// The server, or something between, broke the connection (ECONNRESET, EPIPE).
    Reset,
    /// The connection ended before the response did.
    UnexpectedEof,
    /// No whole response within the timeout.
    RequestTimeout,
    /// What came is not an HTTP response.
    Malformed,
    /// Any other failure to send or receive.
    Io,
}

impl FailureKind {
    /// As in JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect_refused",
            Self::AddrNotAvailable => "addr_not_available",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::NoFd => "no_fd",
            Self::Reset => "reset",
            Self::UnexpectedEof => "unexpected_eof",
            Self::RequestTimeout => "request_timeout",
            Self::Malformed => "malformed_response",
            Self::Io => "io",
        }
    }

    /// In words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connection refused",
            Self::AddrNotAvailable => "no ephemeral port left",
            Self::ConnectTimeout => "connect timed out",
            Self::ConnectFailed => "connect failed",
            Self::NoFd => "no file descriptor left here",
            Self::Reset => "connection reset",
            Self::UnexpectedEof => "connection ended early",
            Self::RequestTimeout => "request timed out",
            Self::Malformed => "malformed response",
            Self::Io => "send or receive failed",
        }
    }
}

/// A failure, with the errno when the kernel gave one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failure {
    /// What.
    pub kind: FailureKind,
    /// errno(3).
    pub errno: Option<i32>,
}

impl Failure {
    /// A failure without an errno.
    pub const fn of(kind: FailureKind) -> Self {
        Self { kind, errno: None }
    }

    /// Of `socket(2)` or `connect(2)`.
    pub fn of_connect(error: &io::Error) -> Self {
        let kind = match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED) => FailureKind::ConnectRefused,
            Some(Errno::ADDRNOTAVAIL) => FailureKind::AddrNotAvailable,
            Some(Errno::TIMEDOUT) => FailureKind::ConnectTimeout,
            Some(Errno::MFILE | Errno::NFILE) => FailureKind::NoFd,
            _ => FailureKind::ConnectFailed,
        };
        Self { kind, errno: error.raw_os_error() }
    }

    /// Of sending a request or receiving its response.
    pub fn of_exchange(error: &io::Error) -> Self {
        let kind = match Errno::from_io_error(error) {
            Some(Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED) => FailureKind::Reset,
            // The kernel gave up on retransmissions: the connection is gone.
            Some(Errno::TIMEDOUT) => FailureKind::RequestTimeout,
            _ => FailureKind::Io,
        };
        Self { kind, errno: error.raw_os_error() }
    }
}

/// Counts and latencies of a run, or of a part of one.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Requests begun.
    pub requests: u64,
    /// Whole responses.
    pub responses: u64,
    /// Connections that were established.
    pub connections_opened: u64,
    /// Requests that were begun and failed.
    pub requests_failed: u64,
    by_status: Vec<u64>,
    failures: BTreeMap<Failure, u64>,
    latency_us: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Panics
    /// Never: the bounds of the histogram are constants, and a test makes one.
    #[expect(clippy::expect_used, reason = "constant arguments, covered by every test here")]
    pub fn new() -> Self {
        Self {
            requests: 0,
            responses: 0,
            connections_opened: 0,
            requests_failed: 0,
            by_status: vec![0; STATUS_MAX],
            failures: BTreeMap::new(),
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("1 < LATENCY_US_MAX / 2 and at most 5 digits"),
        }
    }

    /// A whole response came, so long after its request was due.
    pub fn on_response(&mut self, status: u16, latency_ns: u64) {
        self.responses += 1;
        if let Some(count) = self.by_status.get_mut(usize::from(status)) {
            *count += 1;
        }
        self.latency_us.saturating_record(latency_ns.saturating_add(500) / 1000);
    }

    /// A connect failed.
    pub fn on_connect_failure(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    /// A request that was begun failed.
    pub fn on_request_failure(&mut self, failure: Failure) {
        self.requests_failed += 1;
        *self.failures.entry(failure).or_default() += 1;
    }

    /// Adds another tally to this one.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.responses += other.responses;
        self.connections_opened += other.connections_opened;
        self.requests_failed += other.requests_failed;
        for (mine, theirs) in self.by_status.iter_mut().zip(&other.by_status) {
            *mine += theirs;
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        // Both have the same bounds, so every value of one fits the other.
        for value in other.latency_us.iter_recorded() {
            self.latency_us
                .saturating_record_n(value.value_iterated_to(), value.count_since_last_iteration());
        }
    }

    /// Responses by status, lowest first.
    pub fn by_status(&self) -> impl Iterator<Item = (u16, u64)> {
        (0u16..).zip(self.by_status.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Responses with a status from 200 to 299.
    pub fn accepted_2xx(&self) -> u64 {
        self.by_status[200..300].iter().sum()
    }

    /// Failures, by kind and errno.
    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        self.failures.iter().map(|(failure, count)| (*failure, *count))
    }

    /// Failures of all kinds, and responses outside 2xx.
    pub fn errors_total(&self) -> u64 {
        let failures: u64 = self.failures.values().sum();
        failures + self.responses - self.accepted_2xx()
    }

    /// Requests begun whose end is not known.
    pub fn in_flight(&self) -> u64 {
        self.requests.saturating_sub(self.responses + self.requests_failed)
    }

    /// Latencies of whole responses, µs.
    pub const fn latency_us(&self) -> &Histogram<u64> {
        &self.latency_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_kind_and_errno() {
        let connect = [
            (Errno::CONNREFUSED, FailureKind::ConnectRefused),
            (Errno::ADDRNOTAVAIL, FailureKind::AddrNotAvailable),
            (Errno::TIMEDOUT, FailureKind::ConnectTimeout),
            (Errno::MFILE, FailureKind::NoFd),
            (Errno::NFILE, FailureKind::NoFd),
            (Errno::HOSTUNREACH, FailureKind::ConnectFailed),
        ];
        for (errno, kind) in connect {
            let expected = Failure { kind, errno: Some(errno.raw_os_error()) };
            assert_eq!(Failure::of_connect(&errno.into()), expected, "{errno}");
        }
        let exchange = [
            (Errno::CONNRESET, FailureKind::Reset),
            (Errno::PIPE, FailureKind::Reset),
            (Errno::TIMEDOUT, FailureKind::RequestTimeout),
            (Errno::NOBUFS, FailureKind::Io),
        ];
        for (errno, kind) in exchange {
            let expected = Failure { kind, errno: Some(errno.raw_os_error()) };
            assert_eq!(Failure::of_exchange(&errno.into()), expected, "{errno}");
        }
        let odd = io::Error::other("no errno");
        assert_eq!(Failure::of_exchange(&odd), Failure::of(FailureKind::Io));
    }

    fn filled(seed: u64) -> Tally {
        let mut tally = Tally::new();
        tally.requests = 10 * seed;
        tally.connections_opened = seed;
        for _ in 0..seed {
            tally.on_response(202, seed * 1_000_000);
            tally.on_response(503, 1_000);
            tally.on_request_failure(Failure { kind: FailureKind::Reset, errno: Some(104) });
            tally.on_request_failure(Failure { kind: FailureKind::Reset, errno: Some(32) });
            tally.on_connect_failure(Failure::of(FailureKind::ConnectTimeout));
        }
        tally
    }

    #[test]
    fn counts_add_up() {
        let tally = filled(3);
        assert_eq!(tally.by_status().collect::<Vec<_>>(), [(202, 3), (503, 3)]);
        assert_eq!((tally.accepted_2xx(), tally.responses), (3, 6));
        assert_eq!(tally.failures().count(), 3, "the two errnos of a reset stand apart");
        assert_eq!(tally.errors_total(), 3 * 3 + 3);
        assert_eq!(tally.in_flight(), 30 - 6 - 6);
    }

    #[test]
    fn merging_is_the_same_as_counting_together() {
        let mut merged = filled(2);
        merged.merge(&filled(5));
        assert_eq!(merged.requests, 70);
        assert_eq!(merged.connections_opened, 7);
        assert_eq!(merged.by_status().collect::<Vec<_>>(), [(202, 7), (503, 7)]);
        assert_eq!(merged.failures().map(|(_, count)| count).collect::<Vec<_>>(), [7, 7, 7]);
        assert_eq!(merged.requests_failed, 14);
        assert_eq!(merged.latency_us().len(), 14);
        let quantile = |tally: &Tally, at| tally.latency_us().value_at_quantile(at);
        assert_eq!(quantile(&merged, 0.25), 1);
        assert!((4995..=5005).contains(&quantile(&merged, 1.0)));
    }

    #[test]
    fn latencies_are_rounded_and_bounded() {
        let mut tally = Tally::new();
        tally.on_response(200, 1_499);
        tally.on_response(200, u64::MAX);
        assert_eq!(tally.latency_us().min(), 1);
        assert!(tally.latency_us().max() >= LATENCY_US_MAX);
    }
}
