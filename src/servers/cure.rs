//! What the servers on tokio-uring 0.5.0 do so that its faults cannot bite. Each measure can be left
//! out, so that a run shows the difference; `docs/the-stall.md` tells what happens then.

use std::str::FromStr;

/// One measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// Entries of the submission queue are handed to the kernel 2 ms after they were made, also
    /// while the runtime never parks, and again when the kernel had no room for them (`uring_pump`).
    ///
    /// tokio-uring submits when its runtime parks (`runtime/mod.rs`, `on_thread_park`) or when the
    /// queue is full, and a current-thread runtime with a task that is always ready does not park
    /// (tokio, `current_thread/mod.rs`, `park_yield`); and it drops the error of that submission
    /// (`let _ = …flush()`).
    Submit,
    /// One accept future is kept until it has ended.
    ///
    /// One that is dropped, as `select!` and `timeout` do, stays with the kernel, which gives it the
    /// next connection; nobody serves that, and nobody closes it
    /// (`runtime/driver/mod.rs`, `remove_op`: a dropped operation is marked `Ignored` and stays in flight;
    /// `runtime/driver/op/mod.rs`, `Lifecycle::complete`: its result is thrown away).
    Accept,
    /// The listening socket is bound by the server itself.
    ///
    /// tokio-uring's `bind` sets `SO_REUSEPORT`, with which a second server on the port starts
    /// without an error and takes a part of the connections, and a backlog of 1024
    /// (`net/tcp/listener.rs`, `io/socket.rs`).
    Listen,
    /// A connection that is given up is shut down, and its operations awaited, before it is closed.
    ///
    /// A read or write that is dropped keeps its socket open for as long as the client likes (the same
    /// `remove_op`: it stays in flight, and its data holds the socket's `SharedFd`).
    Close,
}

impl Cure {
    /// All.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Accept, Self::Listen, Self::Close];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::Close => "close",
        }
    }
}

/// Which measures are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cures([bool; 4]);

impl Cures {
    /// All of them.
    pub const ALL: Self = Self([true; 4]);
    /// None of them.
    pub const NONE: Self = Self([false; 4]);

    /// Whether this one is.
    pub const fn has(self, cure: Cure) -> bool {
        self.0[cure as usize]
    }

    /// The same but for one.
    #[must_use]
    pub const fn without(mut self, cure: Cure) -> Self {
        self.0[cure as usize] = false;
        self
    }
}

impl FromStr for Cures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        let mut cures = Self::NONE;
        for name in text.split(',') {
            let known = Cure::ALL.into_iter().find(|cure| cure.name() == name);
            let cure = known.ok_or_else(|| {
                let names = Cure::ALL.map(Cure::name).join(", ");
                format!("'{name}' is no cure: write all, none, or some of {names}")
            })?;
            cures.0[cure as usize] = true;
        }
        Ok(cures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cures_are_named_one_by_one_or_together() {
        assert_eq!("all".parse(), Ok(Cures::ALL));
        assert_eq!("none".parse(), Ok(Cures::NONE));
        assert_eq!("accept,listen,close".parse(), Ok(Cures::ALL.without(Cure::Submit)));
        assert!(Cures::ALL.has(Cure::Close) && !Cures::NONE.has(Cure::Submit));
        for text in ["", "some", "submit,", "all,none"] {
            assert!(text.parse::<Cures>().unwrap_err().contains("submit, accept"), "{text}");
        }
    }
}
