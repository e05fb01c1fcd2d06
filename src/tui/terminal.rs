//! The terminal, and the promise to give it back: on every way out (drop, panic in any thread,
//! signal) one idempotent [`restore`] leaves raw mode and the alternate screen and shows the
//! cursor.

use std::io::{self, Stdout};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether the terminal is ours and must be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether the message of a panic has been printed.
static TOLD: AtomicBool = AtomicBool::new(false);
/// The panic hook is set once per process.
static HOOK: Once = Once::new();

/// How often, and how many times, to look whether a message was printed: a backtrace takes a
/// debug build a second or two.
const TOLD_POLL: Duration = Duration::from_millis(10);
const TOLD_POLLS_MAX: u32 = 300;

/// Gives the terminal back. Does nothing when it is not taken, or was given back already.
pub fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // Both are tried even if one fails, and a failure has nobody left to be told to.
    disable_raw_mode().ok();
    execute!(io::stdout(), LeaveAlternateScreen, Show).ok();
}

/// The terminal while it is ours.
pub struct Guard {
    /// What is drawn on. Not dropped: its drop shows the cursor, as [`restore`] does already, and
    /// prints when it cannot, which is a panic when the terminal is gone (ratatui 0.30,
    /// `Terminal::drop`).
    pub screen: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
    signals: Signals,
}

impl Guard {
    /// Takes the terminal.
    pub fn take() -> io::Result<Self> {
        HOOK.call_once(|| {
            let earlier = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // Before the message: on the alternate screen it would vanish.
                restore();
                earlier(panic);
                TOLD.store(true, Ordering::SeqCst);
            }));
        });
        let signals = Signals::catch()?;
        TAKEN.store(true, Ordering::SeqCst);
        let taken = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(screen) => Ok(Self { screen: ManuallyDrop::new(screen), signals }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Whether the terminal is still ours: a panic in another thread gives it back.
    pub fn is_ours() -> bool {
        TAKEN.load(Ordering::SeqCst)
    }

    /// Waits, for a bounded time, until the thread that panicked has printed its message: leaving
    /// the process earlier would cut it short.
    pub fn wait_until_told() {
        for _ in 0..TOLD_POLLS_MAX {
            if TOLD.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(TOLD_POLL);
        }
    }

    /// The signal that asked us to leave, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.signals.received()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        restore();
    }
}

/// Notes SIGTERM, SIGINT and SIGHUP instead of dying of them with a broken terminal.
struct Signals {
    received: Arc<AtomicUsize>,
    ids: Vec<SigId>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let mut signals = Self { received: Arc::default(), ids: Vec::new() };
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let flag = Arc::clone(&signals.received);
            let id =
                signal_hook::flag::register_usize(signal, flag, signal.unsigned_abs() as usize)?;
            signals.ids.push(id);
        }
        Ok(signals)
    }

    fn received(&self) -> Option<i32> {
        match self.received.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_was_not_taken_is_not_touched() {
        restore();
        assert!(!TAKEN.load(Ordering::SeqCst));
    }

    #[test]
    fn a_signal_is_noted_not_died_of() {
        let signals = Signals::catch().unwrap();
        assert_eq!(signals.received(), None);
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(signals.received(), Some(SIGHUP));
    }
}
