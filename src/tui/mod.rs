//! The terminal view: live (`watch`, `demo`) and on recordings (`replay`).
//!
//! State stands apart from drawing. [`app`] takes a message and answers with an action; it knows
//! no terminal, no file and no clock (time is in the steps). [`layout`] decides sizes with integer
//! functions. [`panels`] draw; whatever text stems from an observed process passes [`text`] first.
//! [`terminal`] and [`run`] are the only code that touches the real terminal and the real clock.

pub mod app;
mod draw;
mod health;
pub mod history;
pub mod keys;
pub mod layout;
pub mod panels;
mod replay;
mod run;
mod terminal;
pub mod text;
pub mod theme;
mod units;
mod view;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod screen_tests;

pub use draw::draw;
pub use health::Health;
pub use panels::active::words as probe_words;
pub use run::{Left, LiveUpdate, Outcome, TuiError, run_live, run_replay};
pub use view::View;

use std::time::Duration;

use crate::watch::event::{Anchor, Environment, Target};

/// Who is watched, under which conditions, and what to do when watching ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Who.
    pub target: Target,
    /// Where.
    pub environment: Environment,
    /// Makes wall times.
    pub anchor: Anchor,
    /// Once watching has ended, leave after this long, unless a key is pressed. `None`: stay until
    /// the user leaves.
    pub close_after_end: Option<Duration>,
}
