//! The state of the view. Message in, action out: no terminal, no I/O, no clock.

use super::SessionInfo;
use super::replay::Recording;
use super::view::View;
use crate::watch::event::{EndReason, Incident, Step};

/// Something that reaches the application.
#[derive(Debug, Clone)]
pub enum Message {
    /// Watching made a step.
    Step(Step),
    /// Watching ended.
    Ended(EndReason),
    /// The sender of steps vanished without a word.
    Lost,
    /// The user wants something.
    Command(Command),
    /// The user pressed a key that means nothing here.
    OtherKey,
    /// This much time has passed, ns.
    Elapsed(u64),
    /// The screen was drawn: how much there is to scroll.
    Drawn(Extents),
}

/// What a key can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Leave.
    Quit,
    /// Close the page over the panels.
    ClosePage,
    /// Open a page, or close it.
    Toggle(Page),
    /// Freeze the picture, or let it go on.
    Freeze,
    /// Play the recording, or pause.
    Play,
    /// Go elsewhere in the recording.
    Seek(Seek),
    /// Scroll the page, or the panel in focus.
    Scroll(Scroll),
    /// Let the arrow keys scroll the next panel.
    FocusNext,
    /// Let the arrow keys scroll the panel before.
    FocusPrevious,
}

/// A page over the panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The keys.
    Help,
    /// The verdict in full.
    Verdict,
    /// Tiers of evidence, absent readings and the conditions of the run.
    Absent,
}

/// Where to go in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The first tick.
    First,
    /// The last tick.
    Last,
    /// So many ticks on (or back).
    Ticks(isize),
    /// So many seconds on (or back).
    Seconds(i32),
    /// The next onset.
    Onset,
}

/// How far to scroll; down is positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scroll {
    /// Lines.
    Lines(isize),
    /// As many lines as are visible.
    Pages(isize),
    /// The first line.
    Top,
    /// The last line.
    Bottom,
}

/// What scrolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// The thread table.
    Threads,
    /// The log; counted from its end, so that new lines are followed.
    Log,
    /// The accept queues.
    Accept,
    /// The rings.
    Rings,
    /// The page over the panels.
    Page,
}

impl Pane {
    /// The panels, in the order of the Tab key.
    const PANELS: [Self; 4] = [Self::Threads, Self::Log, Self::Accept, Self::Rings];
    const COUNT: usize = 5;
}

/// How much a pane holds and shows, in lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Lines there are.
    pub rows: usize,
    /// Lines that fit.
    pub visible: usize,
}

impl Extent {
    /// The greatest useful offset.
    pub const fn offset_max(self) -> usize {
        self.rows.saturating_sub(self.visible)
    }
}

/// The extents of the panes that were drawn, by [`Pane`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extents([Option<Extent>; Pane::COUNT]);

impl Extents {
    /// Notes what `pane` holds and shows.
    pub const fn set(&mut self, pane: Pane, extent: Extent) {
        self.0[pane as usize] = Some(extent);
    }
}

/// What the caller has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the screen is still right.
    Nothing,
    /// Draw again.
    Redraw,
    /// Leave.
    Quit,
}

/// How watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// For this reason.
    Reason(EndReason),
    /// Without a word: the watching thread is gone.
    Lost,
}

impl Ended {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reason(EndReason::TimeUp) => "the time given is up",
            Self::Reason(EndReason::Stalled) => "a stall was named",
            Self::Reason(EndReason::TargetGone) => "the target has exited",
            Self::Reason(EndReason::Interrupted) => "interrupted",
            Self::Reason(EndReason::RecordingEnds) => "the recording ends here",
            Self::Reason(EndReason::RecordingFull) => "the recording was full",
            Self::Lost => "the watcher stopped without giving a reason",
        }
    }
}

/// The state.
#[derive(Debug, Clone)]
pub struct App {
    info: SessionInfo,
    view: View,
    frozen: Option<Box<View>>,
    recording: Option<Recording>,
    page: Option<Page>,
    focus: Pane,
    offsets: [usize; Pane::COUNT],
    extents: [Extent; Pane::COUNT],
    ended: Option<Ended>,
    closing_in_ns: Option<u64>,
}

impl App {
    /// For a target that is being watched.
    pub fn live(info: SessionInfo) -> Self {
        Self {
            info,
            view: View::default(),
            frozen: None,
            recording: None,
            page: None,
            focus: Pane::Threads,
            offsets: [0; Pane::COUNT],
            extents: [Extent::default(); Pane::COUNT],
            ended: None,
            closing_in_ns: None,
        }
    }

    /// For a recording.
    pub fn replay(incident: &Incident) -> Self {
        let info = SessionInfo {
            target: incident.target.clone(),
            environment: incident.environment.clone(),
            anchor: incident.anchor,
            close_after_end: None,
        };
        let recording = Recording::new(incident);
        Self { view: recording.view(), recording: Some(recording), ..Self::live(info) }
    }

    /// Takes a message in.
    pub fn update(&mut self, message: Message) -> Action {
        match message {
            Message::Step(step) => self.step(&step),
            Message::Ended(reason) => self.end(Ended::Reason(reason)),
            Message::Lost => self.end(Ended::Lost),
            Message::Command(command) => self.command(command),
            Message::OtherKey => self.keep_open(),
            Message::Elapsed(ns) => self.elapse(ns),
            Message::Drawn(extents) => self.drawn(extents),
        }
    }

    fn step(&mut self, step: &Step) -> Action {
        let lines = self.view.log.len();
        self.view.push(step);
        if self.frozen.is_some() {
            // Only the number of ticks behind changes on the screen.
            return Action::Redraw;
        }
        // Whoever reads older lines of the log keeps them in place while new ones come.
        let offset = &mut self.offsets[Pane::Log as usize];
        if *offset > 0 {
            *offset += self.view.log.len().saturating_sub(lines);
        }
        Action::Redraw
    }

    fn end(&mut self, ended: Ended) -> Action {
        if self.ended.is_some() {
            return Action::Nothing;
        }
        self.ended = Some(ended);
        self.closing_in_ns = self
            .info
            .close_after_end
            .map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        Action::Redraw
    }

    fn keep_open(&mut self) -> Action {
        if self.closing_in_ns.take().is_some() { Action::Redraw } else { Action::Nothing }
    }

    fn elapse(&mut self, ns: u64) -> Action {
        if let Some(left_ns) = &mut self.closing_in_ns {
            let seconds = self.info.close_after_end.map(|_| *left_ns / 1_000_000_000);
            *left_ns = left_ns.saturating_sub(ns);
            if *left_ns == 0 {
                return Action::Quit;
            }
            let changed = seconds != Some(*left_ns / 1_000_000_000);
            return if changed { Action::Redraw } else { Action::Nothing };
        }
        if let Some(recording) = &mut self.recording
            && recording.elapse(ns)
        {
            self.view = recording.view();
            return Action::Redraw;
        }
        Action::Nothing
    }

    /// Offsets that point past the end (the window grew, a thread exited) come back. A pane that
    /// was not drawn keeps its place.
    fn drawn(&mut self, extents: Extents) -> Action {
        for (at, extent) in extents.0.into_iter().enumerate() {
            if let Some(extent) = extent {
                self.extents[at] = extent;
                self.offsets[at] = self.offsets[at].min(extent.offset_max());
            }
        }
        Action::Nothing
    }

    fn command(&mut self, command: Command) -> Action {
        if command == Command::Quit {
            return Action::Quit;
        }
        self.keep_open();
        match command {
            Command::Quit => return Action::Quit,
            Command::ClosePage => self.page = None,
            Command::Toggle(page) => self.toggle(page),
            Command::Freeze => self.freeze(),
            Command::Play => {
                if let Some(recording) = &mut self.recording {
                    recording.toggle_play();
                    self.view = recording.view();
                }
            }
            Command::Seek(seek) => {
                if let Some(recording) = &mut self.recording
                    && recording.seek(seek)
                {
                    self.view = recording.view();
                }
            }
            Command::Scroll(scroll) => self.scroll(scroll),
            Command::FocusNext => self.focus = self.neighbour(1),
            Command::FocusPrevious => self.focus = self.neighbour(Pane::PANELS.len() - 1),
        }
        Action::Redraw
    }

    fn toggle(&mut self, page: Page) {
        self.page = if self.page == Some(page) { None } else { Some(page) };
        self.offsets[Pane::Page as usize] = 0;
    }

    fn freeze(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some(Box::new(self.view.clone())),
        };
    }

    fn neighbour(&self, steps: usize) -> Pane {
        let at = Pane::PANELS.iter().position(|pane| *pane == self.focus);
        let next = at.map_or(0, |at| (at + steps) % Pane::PANELS.len());
        Pane::PANELS[next]
    }

    fn scroll(&mut self, scroll: Scroll) {
        let pane = if self.page.is_some() { Pane::Page } else { self.focus };
        let extent = self.extents[pane as usize];
        let page = extent.visible.saturating_sub(1).max(1).cast_signed();
        let offset = &mut self.offsets[pane as usize];
        // The offset of the log counts up from its end.
        let sign = if pane == Pane::Log { -1 } else { 1 };
        let moved = |offset: usize, lines: isize| {
            offset.saturating_add_signed(lines.saturating_mul(sign)).min(extent.offset_max())
        };
        *offset = match scroll {
            Scroll::Lines(lines) => moved(*offset, lines),
            Scroll::Pages(pages) => moved(*offset, pages.saturating_mul(page)),
            Scroll::Top => moved(*offset, -isize::MAX),
            Scroll::Bottom => moved(*offset, isize::MAX),
        };
    }

    /// Who is watched, and where.
    pub const fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// What to draw.
    pub fn view(&self) -> &View {
        self.frozen.as_deref().unwrap_or(&self.view)
    }

    /// Whether the picture is frozen.
    pub const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Ticks that came since the picture was frozen.
    pub fn ticks_behind(&self) -> u64 {
        let seq = |view: &View| view.model.as_ref().map(|model| model.seq);
        match (self.frozen.as_deref().and_then(seq), seq(&self.view)) {
            (Some(shown), Some(newest)) => newest.saturating_sub(shown),
            _ => 0,
        }
    }

    /// The recording, in a replay.
    pub const fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
    }

    /// The page over the panels.
    pub const fn page(&self) -> Option<Page> {
        self.page
    }

    /// The panel that the arrow keys scroll.
    pub const fn focus(&self) -> Pane {
        self.focus
    }

    /// Lines of `pane` scrolled out of sight.
    pub const fn offset(&self, pane: Pane) -> usize {
        self.offsets[pane as usize]
    }

    /// How watching ended, once it has.
    pub const fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Time until the view closes by itself, ns.
    pub const fn closing_in_ns(&self) -> Option<u64> {
        self.closing_in_ns
    }

    /// What keys mean now.
    pub const fn mode(&self) -> super::keys::Mode {
        super::keys::Mode { replay: self.recording.is_some(), paged: self.page.is_some() }
    }
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
