//! What is on the screen, from fixed models. Text goes into snapshots; styles are asserted.

use std::fmt::Write as _;
use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use stallscope_probes::sample::{ActiveOutcome, RingSource};
use stallscope_probes::{Absence, Reading, Why};

use super::app::{App, Command, Extents, Message, Page, Pane, Scroll, Seek};
use super::theme::Theme;
use super::{draw, fixtures, panels};
use crate::model::Model;
use crate::watch::event::{EndReason, Event, Step};

const SMALL: (u16, u16) = (80, 24);
const MIDDLE: (u16, u16) = (120, 40);
const BIG: (u16, u16) = (200, 60);

fn screen(app: &App, (columns, rows): (u16, u16)) -> (TestBackend, Extents) {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut extents = Extents::default();
    terminal.draw(|frame| extents = draw(frame.buffer_mut(), app, Theme::new(true))).unwrap();
    (terminal.backend().clone(), extents)
}

fn text(app: &App, size: (u16, u16)) -> TestBackend {
    screen(app, size).0
}

fn buffer(app: &App, size: (u16, u16), theme: Theme) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, size.0, size.1));
    draw(&mut buffer, app, theme);
    buffer
}

/// Watches `ticks` models of `make`, the events with the last.
fn watched(ticks: std::ops::Range<u64>, make: fn(u64) -> Model, events: &[Event]) -> App {
    let mut app = App::live(fixtures::info());
    let last = ticks.end - 1;
    for seq in ticks {
        let events = if seq == last { events.to_vec() } else { Vec::new() };
        app.update(Message::Step(Step { model: Arc::new(make(seq)), events }));
    }
    app
}

fn healthy() -> App {
    let note = Event::Note { at_ns: fixtures::at_ns(0), text: String::from("watching began") };
    watched(0..72, fixtures::healthy, &[note, Event::Verdict(fixtures::healthy_verdict())])
}

fn stalled() -> App {
    let mut app = watched(0..20, fixtures::healthy, &[Event::Verdict(fixtures::healthy_verdict())]);
    for seq in 20..72 {
        let events = match seq {
            25 => vec![Event::Onset(fixtures::onset()), Event::Verdict(fixtures::sq_verdict())],
            _ => Vec::new(),
        };
        app.update(Message::Step(Step { model: Arc::new(fixtures::sq_stalled(seq)), events }));
    }
    app
}

/// Accepting stalls, the rest goes on; tables are nearly full, and the active probe fails.
fn partial() -> App {
    let events = [
        Event::Forecast(fixtures::forecast()),
        Event::Onset(fixtures::partial_onset()),
        Event::Verdict(fixtures::chained_verdict()),
    ];
    watched(0..72, fixtures::pressed, &events)
}

/// Healthy, with an active probe that is answered.
fn probed() -> App {
    let make = |seq| {
        let outcome = ActiveOutcome::Answered { connect_us: 90, answer_us: Some(400) };
        Model { active: Reading::Got(fixtures::probed(outcome)), ..fixtures::healthy(seq) }
    };
    watched(0..72, make, &[Event::Verdict(fixtures::healthy_verdict())])
}

fn suspected() -> App {
    watched(0..72, fixtures::pressed, &[Event::Onset(fixtures::partial_onset())])
}

fn fd_exhausted() -> App {
    watched(0..30, fixtures::fd_exhausted, &[Event::Verdict(fixtures::fd_verdict())])
}

/// The budget does not allow what was asked for.
fn slowed() -> App {
    let make = |seq| {
        let mut model = fixtures::healthy(seq);
        model.watcher.interval_ms = 400.0;
        model
    };
    watched(0..30, make, &[])
}

/// The largest ring there can be, an overflow, and no rights to the ring's memory.
fn large_ring() -> App {
    let make = |seq| {
        let mut model = fixtures::healthy(seq);
        if let Reading::Got(rings) = &mut model.rings {
            let ring = &mut Arc::make_mut(rings)[0];
            let why = Absence { why: Why::NotPermitted, detail: String::from("EPERM") };
            ring.source = RingSource::Fdinfo(why);
            ring.fd = 128;
            if let Reading::Got(state) = &mut ring.state {
                (state.sq_entries, state.cq_entries) = (32_768, 65_536);
                state.cq_tail = state.cq_head.wrapping_add(65_536);
                state.overflowing = true;
                state.recent = Reading::Got(vec![(24, 32)]);
            }
        }
        model
    };
    watched(0..30, make, &[])
}

fn foreign() -> App {
    watched(0..30, fixtures::foreign, &[])
}

fn hostile() -> App {
    let mut info = fixtures::info();
    info.target.comm = String::from("\x1b[31mevil\u{202e}name that is long");
    info.target.cmdline = format!("./evil \x1b[2J {}", "B".repeat(4096));
    let mut app = App::live(info);
    let mut verdict = fixtures::sq_verdict();
    verdict.summary = String::from("\x1b[5mblink\x1b[0m and \u{202e}reversed");
    verdict.evidence[0].signal = String::from("thread \x1b]0;title\x07");
    verdict.chain = fixtures::chained_verdict().chain;
    verdict.chain[0].what = String::from("thread \x1b[2J\u{202e}began");
    verdict.unknowable = vec![String::from("what \x1b[31mit was")];
    let mut onset = fixtures::partial_onset();
    onset.partial = Some(String::from("\u{9b}5m\x1b[5mthe rest"));
    let mut forecast = fixtures::forecast();
    forecast.text = String::from("\x1b]0;title\x07 runs out");
    let note = Event::Note { at_ns: fixtures::at_ns(1), text: "\x1b[2J\n\t\u{feff}".repeat(3_000) };
    let events =
        vec![note, Event::Forecast(forecast), Event::Onset(onset), Event::Verdict(verdict)];
    app.update(Message::Step(Step { model: Arc::new(fixtures::hostile(1)), events }));
    app
}

fn open(mut app: App, page: Page) -> App {
    app.update(Message::Command(Command::Toggle(page)));
    app
}

macro_rules! snapshots {
    ($($name:ident: $app:expr, $size:expr;)*) => {
        $(#[test] fn $name() { insta::assert_snapshot!(text(&$app, $size)); })*
    };
}

snapshots! {
    healthy_small: healthy(), SMALL;
    healthy_middle: healthy(), MIDDLE;
    healthy_big: healthy(), BIG;
    stalled_small: stalled(), SMALL;
    stalled_middle: stalled(), MIDDLE;
    stalled_big: stalled(), BIG;
    fd_exhausted_small: fd_exhausted(), SMALL;
    fd_exhausted_middle: fd_exhausted(), MIDDLE;
    partial_small: partial(), SMALL;
    partial_middle: partial(), MIDDLE;
    partial_big: partial(), BIG;
    partial_suspected: suspected(), SMALL;
    verdict_chain_small: open(partial(), Page::Verdict), SMALL;
    verdict_chain_middle: open(partial(), Page::Verdict), MIDDLE;
    evidence_tables: open(partial(), Page::Absent), MIDDLE;
    probed_small: probed(), SMALL;
    probed_middle: probed(), MIDDLE;
    foreign_small: foreign(), SMALL;
    foreign_middle: foreign(), MIDDLE;
    hostile_small: hostile(), SMALL;
    hostile_middle: hostile(), MIDDLE;
    before_the_first_tick: App::live(fixtures::info()), SMALL;
    help_small: open(healthy(), Page::Help), SMALL;
    help_replay: open(App::replay(&fixtures::incident()), Page::Help), MIDDLE;
    verdict_small: open(stalled(), Page::Verdict), SMALL;
    verdict_middle: open(stalled(), Page::Verdict), MIDDLE;
    verdict_hostile: open(hostile(), Page::Verdict), SMALL;
    no_verdict: open(foreign(), Page::Verdict), SMALL;
    absent_small: open(hostile(), Page::Absent), SMALL;
    absent_foreign: open(foreign(), Page::Absent), MIDDLE;
    absent_replay: open(replay_at(Seek::Last), Page::Absent), MIDDLE;
    replay_onset: replay_at(Seek::Onset), SMALL;
    replay_recovered: replay_at(Seek::Last), MIDDLE;
    slowed_small: slowed(), SMALL;
    slowed_middle: slowed(), MIDDLE;
    evidence_middle: open(fd_exhausted(), Page::Absent), MIDDLE;
    large_ring_small: large_ring(), SMALL;
    too_small: healthy(), (60, 20);
    too_small_by_far: healthy(), (12, 3);
}

fn replay_at(seek: Seek) -> App {
    let mut app = App::replay(&fixtures::incident());
    app.update(Message::Command(Command::Seek(seek)));
    app
}

/// One panel, narrow and wide, in every fixed situation.
fn panel(heights: (u16, u16), draw: impl Fn(&mut Buffer, Rect, &App, Theme)) -> String {
    let apps = [
        ("healthy", healthy()),
        ("stalled", stalled()),
        ("fd exhausted", fd_exhausted()),
        ("foreign", foreign()),
        ("hostile", hostile()),
        ("replay", replay_at(Seek::Onset)),
    ];
    let mut out = String::new();
    for (width, height) in [(39, heights.0), (80, heights.1)] {
        for (name, app) in &apps {
            let area = Rect::new(0, 0, width, height);
            let mut buffer = Buffer::empty(area);
            draw(&mut buffer, area, app, Theme::new(true));
            writeln!(out, "[{name}, {width} columns]").unwrap();
            for y in 0..height {
                // The cells behind a wide character are blanks that no terminal draws.
                let mut x = 0;
                let mut line = String::new();
                while x < width {
                    let symbol = buffer[(x, y)].symbol();
                    line.push_str(symbol);
                    x += (super::text::width(symbol) as u16).max(1);
                }
                writeln!(out, "|{line}|").unwrap();
            }
        }
    }
    out
}

macro_rules! panel_snapshots {
    ($($name:ident: $panel:ident, $heights:expr;)*) => {
        $(#[test] fn $name() {
            insta::assert_snapshot!(panel($heights, |buffer, area, app, theme| {
                panels::$panel::draw(buffer, area, app, theme);
            }));
        })*
    };
}

panel_snapshots! {
    panel_header: header, (2, 2);
    panel_banner: banner, (4, 7);
    panel_limits: limits, (4, 6);
    panel_accept: accept, (5, 7);
    panel_rings: rings, (6, 7);
    panel_throughput: throughput, (5, 8);
    panel_threads: threads, (4, 8);
    panel_log: log, (3, 5);
    panel_footer: footer, (1, 1);
    panel_outside: outside, (4, 7);
}

#[test]
fn frozen_and_late() {
    let mut app = healthy();
    let mut late = fixtures::healthy(80);
    late.late_ms = 140.0;
    app.update(Message::Step(fixtures::step(late)));
    app.update(Message::Command(Command::Freeze));
    app.update(Message::Step(fixtures::step(fixtures::healthy(95))));
    insta::assert_snapshot!(text(&app, SMALL));
}

#[test]
fn ended_and_about_to_close() {
    let mut info = fixtures::info();
    info.close_after_end = Some(std::time::Duration::from_secs(5));
    let mut app = App::live(info);
    app.update(Message::Step(fixtures::step(fixtures::healthy(3))));
    app.update(Message::Ended(EndReason::TargetGone));
    insta::assert_snapshot!(text(&app, SMALL));
}

#[test]
fn scrolled_threads_and_focus() {
    let mut app = healthy();
    let (_, extents) = screen(&app, SMALL);
    app.update(Message::Drawn(extents));
    app.update(Message::Command(Command::Scroll(Scroll::Bottom)));
    assert_eq!(app.offset(Pane::Threads), 3);
    insta::assert_snapshot!(text(&app, SMALL));
}

#[test]
fn the_bar_of_a_stall_is_loud_with_colours_and_without() {
    let app = stalled();
    let bar = buffer(&app, SMALL, Theme::new(true))[(1, 2)].clone();
    assert_eq!((bar.fg, bar.bg), (Color::White, Color::Red));
    assert!(bar.modifier.contains(Modifier::BOLD));
    let plain = buffer(&app, SMALL, Theme::new(false));
    assert!(plain[(1, 2)].modifier.contains(Modifier::REVERSED | Modifier::BOLD));
    let calm = buffer(&healthy(), SMALL, Theme::new(true));
    assert_eq!(calm[(1, 2)].bg, Color::Green);
}

#[test]
fn a_forecast_is_amber_and_what_still_works_is_green() {
    let screen = buffer(&partial(), MIDDLE, Theme::new(true));
    let place = |word: &str| {
        let line = |y: u16| (0..120).map(|x| screen[(x, y)].symbol()).collect::<String>();
        let found = (0..40).find_map(|y| line(y).find(word).map(|at| (at, y)));
        let (at, y) = found.unwrap_or_else(|| panic!("{word} is not on the screen"));
        let x = line(y)[..at].chars().count() as u16;
        screen[(x, y)].fg
    };
    assert_eq!(place("forecast"), Color::Yellow);
    assert_eq!(place("still works"), Color::Green);
    assert_eq!(place("3 failures in a row"), Color::Red);
}

#[test]
fn an_overflow_is_said_however_large_the_ring() {
    let screen = text(&large_ring(), SMALL).to_string();
    assert!(screen.contains("OVF") && !screen.contains("ovf"), "{screen}");
}

#[test]
fn a_slowed_watcher_is_a_warning_and_another_is_not() {
    let footer = |app: &App| {
        let screen = buffer(app, SMALL, Theme::new(true));
        // The last word of the line at the bottom.
        (screen[(78, 23)].symbol().to_owned(), screen[(78, 23)].style())
    };
    let (slowed, warning) = footer(&slowed());
    let (calm, plain) = footer(&healthy());
    assert_eq!((slowed.as_str(), calm.as_str()), ("z", "B"), "Hz, MiB");
    assert_eq!(warning.fg, Theme::new(true).warn().fg);
    assert_ne!(plain.fg, warning.fg);
}

#[test]
fn no_color_leaves_every_cell_without_one() {
    for app in [stalled(), hostile(), foreign(), open(stalled(), Page::Verdict)] {
        let plain = buffer(&app, MIDDLE, Theme::new(false));
        assert!(
            plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
        );
    }
}

#[test]
fn absent_values_are_dim_and_full_limits_are_red() {
    let screen = buffer(&foreign(), SMALL, Theme::new(true));
    let fds = (0..24).find(|y| screen[(0, *y)].symbol() == "f").unwrap();
    assert_eq!(screen[(6, fds)].symbol(), "a", "absent");
    assert!(screen[(6, fds)].modifier.contains(Modifier::DIM));
    let full = buffer(&fd_exhausted(), SMALL, Theme::new(true));
    assert_eq!(full[(6, fds)].fg, Color::Red);
}

#[test]
fn nothing_of_a_hostile_process_reaches_the_terminal_as_it_is() {
    for page in [None, Some(Page::Help), Some(Page::Verdict), Some(Page::Absent)] {
        let mut app = hostile();
        if let Some(page) = page {
            app = open(app, page);
        }
        for size in [SMALL, MIDDLE, BIG] {
            for cell in &buffer(&app, size, Theme::new(true)).content {
                let acts = |c: char| {
                    c.is_control()
                        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}')
                };
                assert!(!cell.symbol().chars().any(acts), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn every_size_can_be_drawn() {
    let apps = [healthy(), stalled(), foreign(), hostile(), fd_exhausted(), partial()];
    for columns in (0..230).step_by(7) {
        for rows in (0..70).step_by(3) {
            for app in &apps {
                buffer(app, (columns, rows), Theme::new(true));
            }
        }
    }
}
