//! The loop between terminal, steps and state. With [`super::terminal`] the only code of the view
//! that has effects; its clock counts frames and the time since the last look, nothing else.
#![expect(
    clippy::disallowed_methods,
    reason = "paces frames and tells the state how much time has passed"
)]

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::SIGHUP;

use super::SessionInfo;
use super::app::{Action, App, Ended, Message};
use super::keys::{self, Key};
use super::terminal::Guard;
use super::theme::Theme;
use crate::watch::event::{EndReason, Incident, Step};

/// Shortest time between two frames: 20 a second.
const FRAME: Duration = Duration::from_millis(50);
/// Steps taken in before the next look at keys and signals.
const STEPS_PER_FRAME_MAX: usize = 256;
/// Keys taken in before the next look at steps and signals.
const KEYS_PER_FRAME_MAX: usize = 64;

/// What the watching thread sends.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveUpdate {
    /// A step.
    Step(Step),
    /// The last message: watching ended.
    Ended(EndReason),
}

/// How the view was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Why it closed.
    pub left: Left,
    /// How watching had ended by then; `None`: it goes on, or this was a replay.
    pub ended: Option<Ended>,
}

/// Why the view closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The user asked for it.
    User,
    /// Watching had ended and the time to look at the end was over.
    Closed,
    /// This signal asked for it.
    Signal(i32),
}

/// Why there is no view, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// Input or output is a file or a pipe.
    #[error(
        "the view needs a terminal for input and output; without one, use --headless or `stallscope report`"
    )]
    NoTerminal,
    /// The terminal refused.
    #[error("cannot {action} the terminal: {source}")]
    Terminal {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A recording without a tick.
    #[error("the recording of pid {0} holds no ticks: there is nothing to show")]
    Empty(i32),
    /// Another thread panicked and its message stands on the terminal.
    #[error("a thread of stallscope panicked; its message is above")]
    Panicked,
}

/// Shows a target while it is watched, until the user leaves.
///
/// Dropping the sender without [`LiveUpdate::Ended`] is shown as such. When this returns, `steps`
/// is dropped: the next send fails, and the watching thread knows that nobody looks any more.
///
/// # Errors
/// When there is no terminal, or it fails, or another thread panics.
#[expect(
    clippy::needless_pass_by_value,
    reason = "dropping the receiver tells the watching thread"
)]
pub fn run_live(info: SessionInfo, steps: Receiver<LiveUpdate>) -> Result<Outcome, TuiError> {
    run(App::live(info), Some(&steps))
}

/// Shows a recording, until the user leaves.
///
/// # Errors
/// When the recording is empty, there is no terminal, or it fails.
pub fn run_replay(incident: &Incident) -> Result<Outcome, TuiError> {
    if incident.models.is_empty() {
        return Err(TuiError::Empty(incident.target.pid));
    }
    run(App::replay(incident), None)
}

fn run(mut app: App, steps: Option<&Receiver<LiveUpdate>>) -> Result<Outcome, TuiError> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(TuiError::NoTerminal);
    }
    let mut guard = Guard::take().map_err(failed("take over"))?;
    let left = match turn(&mut app, &mut guard, steps) {
        Ok(left) => left,
        // A terminal that is gone fails to be drawn on, too; that is an end, not an error.
        Err(TuiError::Terminal { .. }) if has_hung_up(Duration::ZERO).unwrap_or(true) => {
            Left::Signal(SIGHUP)
        }
        Err(error) => return Err(error),
    };
    Ok(Outcome { left, ended: app.ended() })
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> TuiError {
    move |source| TuiError::Terminal { action, source }
}

/// Turns until something says leave.
fn turn(
    app: &mut App,
    guard: &mut Guard,
    steps: Option<&Receiver<LiveUpdate>>,
) -> Result<Left, TuiError> {
    // An empty NO_COLOR does not count (no-color.org).
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let theme = Theme::new(colour);
    let mut looked_at = Instant::now();
    let mut frame_due = looked_at;
    let mut stale = true;
    loop {
        if stale && Instant::now() >= frame_due {
            frame_due = Instant::now() + FRAME;
            frame(app, guard, theme)?;
            stale = false;
        }
        // While a frame is owed, up to the time it may be drawn; else as long as a signal or a
        // step may wait.
        let wait = if stale { frame_due.saturating_duration_since(Instant::now()) } else { FRAME };
        if has_hung_up(wait).map_err(failed("wait for"))? {
            return Ok(Left::Signal(SIGHUP));
        }
        match keys(app)? {
            Action::Quit => return Ok(Left::User),
            Action::Redraw => stale = true,
            Action::Nothing => {}
        }
        if let Some(steps) = steps {
            stale |= drain(app, steps) == Action::Redraw;
        }
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut looked_at, now));
        let passed_ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        match app.update(Message::Elapsed(passed_ns)) {
            Action::Quit => return Ok(Left::Closed),
            Action::Redraw => stale = true,
            Action::Nothing => {}
        }
        if let Some(signal) = guard.signal() {
            return Ok(Left::Signal(signal));
        }
        if !Guard::is_ours() {
            Guard::wait_until_told();
            return Err(TuiError::Panicked);
        }
    }
}

fn frame(app: &mut App, guard: &mut Guard, theme: Theme) -> Result<(), TuiError> {
    let mut extents = None;
    guard
        .screen
        .draw(|frame| extents = Some(super::draw(frame.buffer_mut(), app, theme)))
        .map_err(failed("draw on"))?;
    if let Some(extents) = extents {
        app.update(Message::Drawn(extents));
    }
    Ok(())
}

/// Waits for input up to `wait`; says whether the terminal is gone (its window closed, its
/// connection lost).
///
/// crossterm must not be asked then: it reads the end of the file over and over, for ever
/// (crossterm 0.29, `event/source/unix/mio.rs`).
fn has_hung_up(wait: Duration) -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    let mut input = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match rustix::event::poll(&mut input, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(input[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}

/// Takes in the input that is there.
fn keys(app: &mut App) -> Result<Action, TuiError> {
    let mut action = Action::Nothing;
    for _ in 0..KEYS_PER_FRAME_MAX {
        if !event::poll(Duration::ZERO).map_err(failed("read from"))? {
            break;
        }
        let answer = match event::read().map_err(failed("read from"))? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                let meaning = decode(key).and_then(|key| keys::command(app.mode(), key));
                app.update(meaning.map_or(Message::OtherKey, Message::Command))
            }
            Event::Resize(..) => Action::Redraw,
            _ => Action::Nothing,
        };
        match answer {
            Action::Quit => return Ok(Action::Quit),
            Action::Redraw => action = Action::Redraw,
            Action::Nothing => {}
        }
    }
    Ok(action)
}

fn decode(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    Some(match key.code {
        KeyCode::Char(letter) if key.modifiers.contains(KeyModifiers::CONTROL) => {
            Key::Ctrl(letter.to_ascii_lowercase())
        }
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        _ => return None,
    })
}

/// Takes in the steps that wait, at most [`STEPS_PER_FRAME_MAX`].
fn drain(app: &mut App, steps: &Receiver<LiveUpdate>) -> Action {
    let mut action = Action::Nothing;
    for _ in 0..STEPS_PER_FRAME_MAX {
        let message = match steps.try_recv() {
            Ok(LiveUpdate::Step(step)) => Message::Step(step),
            Ok(LiveUpdate::Ended(reason)) => Message::Ended(reason),
            Err(TryRecvError::Disconnected) => Message::Lost,
            Err(TryRecvError::Empty) => break,
        };
        let is_last = matches!(message, Message::Lost);
        if app.update(message) == Action::Redraw {
            action = Action::Redraw;
        }
        if is_last {
            break;
        }
    }
    action
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixtures;
    use std::sync::mpsc;

    #[test]
    fn draining_is_bounded_and_a_vanished_sender_is_an_end() {
        let (sender, steps) = mpsc::channel();
        for seq in 0..=STEPS_PER_FRAME_MAX as u64 {
            let step = fixtures::step(fixtures::healthy(seq));
            sender.send(LiveUpdate::Step(step)).unwrap();
        }
        let mut app = App::live(fixtures::info());
        assert_eq!(drain(&mut app, &steps), Action::Redraw);
        let shown = |app: &App| app.view().model.as_ref().map(|model| model.seq);
        assert_eq!(shown(&app), Some(STEPS_PER_FRAME_MAX as u64 - 1));
        drop(sender);
        assert_eq!(drain(&mut app, &steps), Action::Redraw);
        assert_eq!(shown(&app), Some(STEPS_PER_FRAME_MAX as u64), "what was sent is not lost");
        assert_eq!(app.ended(), Some(Ended::Lost));
        assert_eq!(drain(&mut app, &steps), Action::Nothing, "an end is told once");
    }

    #[test]
    fn an_end_with_a_reason_keeps_it_when_the_sender_goes() {
        let (sender, steps) = mpsc::channel();
        sender.send(LiveUpdate::Ended(EndReason::TargetGone)).unwrap();
        drop(sender);
        let mut app = App::live(fixtures::info());
        drain(&mut app, &steps);
        assert_eq!(app.ended(), Some(Ended::Reason(EndReason::TargetGone)));
    }

    #[test]
    fn keys_are_decoded_with_their_modifiers() {
        let press = |code, modifiers| decode(KeyEvent::new(code, modifiers));
        assert_eq!(press(KeyCode::Char('C'), KeyModifiers::CONTROL), Some(Key::Ctrl('c')));
        assert_eq!(press(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Key::Char('?')));
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(press(KeyCode::F(1), KeyModifiers::NONE), None);
    }

    #[test]
    fn an_empty_recording_is_refused_with_a_sentence() {
        let empty = Incident { models: Vec::new(), ..fixtures::incident() };
        let error = run_replay(&empty).unwrap_err();
        assert!(error.to_string().contains("holds no ticks"), "{error}");
    }
}
