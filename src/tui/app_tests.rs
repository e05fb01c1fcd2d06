//! Message in, action out.

use std::time::Duration;

use super::*;
use crate::tui::fixtures;
use crate::watch::event::Event;

fn live() -> App {
    let mut app = App::live(fixtures::info());
    app.update(Message::Step(fixtures::step(fixtures::healthy(0))));
    app
}

fn press(app: &mut App, command: Command) -> Action {
    app.update(Message::Command(command))
}

fn extents(pane: Pane, rows: usize, visible: usize) -> Message {
    let mut extents = Extents::default();
    extents.set(pane, Extent { rows, visible });
    Message::Drawn(extents)
}

fn shown(app: &App) -> Option<u64> {
    app.view().model.as_ref().map(|model| model.seq)
}

#[test]
fn a_step_is_shown_and_asks_for_a_frame() {
    let mut app = App::live(fixtures::info());
    assert_eq!(shown(&app), None);
    let action = app.update(Message::Step(fixtures::step(fixtures::healthy(4))));
    assert_eq!((action, shown(&app)), (Action::Redraw, Some(4)));
}

#[test]
fn a_frozen_picture_stands_while_steps_are_still_received() {
    let mut app = live();
    assert_eq!(press(&mut app, Command::Freeze), Action::Redraw);
    for seq in 1..4 {
        let step = fixtures::step(fixtures::healthy(seq));
        assert_eq!(app.update(Message::Step(step)), Action::Redraw, "the ticks behind");
    }
    assert_eq!((shown(&app), app.ticks_behind(), app.is_frozen()), (Some(0), 3, true));
    press(&mut app, Command::Freeze);
    assert_eq!((shown(&app), app.ticks_behind(), app.is_frozen()), (Some(3), 0, false));
    assert_eq!(app.view().lateness.lost, 0, "nothing was lost in between");
}

#[test]
fn quitting_is_an_answer_not_an_effect() {
    let mut app = live();
    press(&mut app, Command::Toggle(Page::Help));
    assert_eq!(press(&mut app, Command::Quit), Action::Quit);
}

#[test]
fn pages_open_replace_each_other_and_close() {
    let mut app = live();
    press(&mut app, Command::Toggle(Page::Verdict));
    assert_eq!(app.page(), Some(Page::Verdict));
    press(&mut app, Command::Toggle(Page::Help));
    assert_eq!(app.page(), Some(Page::Help));
    press(&mut app, Command::Toggle(Page::Help));
    assert_eq!(app.page(), None);
    press(&mut app, Command::Toggle(Page::Absent));
    press(&mut app, Command::ClosePage);
    assert_eq!(app.page(), None);
}

#[test]
fn focus_goes_round_both_ways() {
    let mut app = live();
    let mut seen = vec![app.focus()];
    for _ in 0..4 {
        press(&mut app, Command::FocusNext);
        seen.push(app.focus());
    }
    assert_eq!(seen, [Pane::Threads, Pane::Log, Pane::Accept, Pane::Rings, Pane::Threads]);
    press(&mut app, Command::FocusPrevious);
    assert_eq!(app.focus(), Pane::Rings);
}

#[test]
fn scrolling_ends_at_the_ends() {
    let mut app = live();
    app.update(extents(Pane::Threads, 12, 4));
    press(&mut app, Command::Scroll(Scroll::Lines(-1)));
    assert_eq!(app.offset(Pane::Threads), 0);
    press(&mut app, Command::Scroll(Scroll::Pages(1)));
    assert_eq!(app.offset(Pane::Threads), 3, "one line of the page before stays in sight");
    press(&mut app, Command::Scroll(Scroll::Bottom));
    assert_eq!(app.offset(Pane::Threads), 8);
    press(&mut app, Command::Scroll(Scroll::Lines(1)));
    assert_eq!(app.offset(Pane::Threads), 8);
    press(&mut app, Command::Scroll(Scroll::Top));
    assert_eq!(app.offset(Pane::Threads), 0);
}

#[test]
fn an_offset_comes_back_when_there_is_less_to_show_but_not_under_a_page() {
    let mut app = live();
    app.update(extents(Pane::Threads, 12, 4));
    press(&mut app, Command::Scroll(Scroll::Bottom));
    press(&mut app, Command::Toggle(Page::Help));
    app.update(extents(Pane::Page, 50, 20));
    press(&mut app, Command::Scroll(Scroll::Lines(2)));
    assert_eq!((app.offset(Pane::Page), app.offset(Pane::Threads)), (2, 8));
    app.update(extents(Pane::Threads, 5, 4));
    assert_eq!(app.offset(Pane::Threads), 1);
    press(&mut app, Command::Toggle(Page::Verdict));
    assert_eq!(app.offset(Pane::Page), 0, "another page begins at its top");
}

#[test]
fn the_log_follows_new_lines_until_one_scrolls_up() {
    let mut app = live();
    press(&mut app, Command::FocusNext);
    app.update(extents(Pane::Log, 10, 2));
    let note = |seq: u64| {
        let event = Event::Note { at_ns: seq, text: String::from("x") };
        Message::Step(Step { events: vec![event], ..fixtures::step(fixtures::healthy(seq)) })
    };
    app.update(note(1));
    assert_eq!(app.offset(Pane::Log), 0);
    press(&mut app, Command::Scroll(Scroll::Lines(-3)));
    assert_eq!(app.offset(Pane::Log), 3, "counted from the end");
    app.update(note(2));
    assert_eq!(app.offset(Pane::Log), 4, "the lines in sight stay");
    press(&mut app, Command::Scroll(Scroll::Bottom));
    assert_eq!(app.offset(Pane::Log), 0);
}

#[test]
fn after_the_end_it_stays_open() {
    let mut app = live();
    assert_eq!(app.update(Message::Ended(EndReason::TargetGone)), Action::Redraw);
    assert_eq!(app.update(Message::Lost), Action::Nothing, "the first end counts");
    assert_eq!(app.ended(), Some(Ended::Reason(EndReason::TargetGone)));
    assert_eq!(app.update(Message::Elapsed(u64::MAX)), Action::Nothing);
}

#[test]
fn after_the_end_of_a_demo_it_closes_unless_a_key_is_pressed() {
    let info = || SessionInfo { close_after_end: Some(Duration::from_secs(2)), ..fixtures::info() };
    let mut app = App::live(info());
    assert_eq!(app.update(Message::Elapsed(u64::MAX)), Action::Nothing, "not before the end");
    app.update(Message::Ended(EndReason::TimeUp));
    assert_eq!(app.update(Message::Elapsed(100_000_000)), Action::Redraw, "1 s is shown now");
    assert_eq!(app.update(Message::Elapsed(100_000_000)), Action::Nothing);
    assert_eq!(app.update(Message::Elapsed(1_800_000_000)), Action::Quit);

    for key in [Message::OtherKey, Message::Command(Command::Toggle(Page::Verdict))] {
        let mut app = App::live(info());
        app.update(Message::Ended(EndReason::TimeUp));
        assert_eq!(app.update(key), Action::Redraw);
        assert_eq!(app.update(Message::Elapsed(u64::MAX)), Action::Nothing);
        assert_eq!(app.closing_in_ns(), None);
    }
}

#[test]
fn a_replay_moves_and_plays() {
    let mut app = App::replay(&fixtures::incident());
    assert_eq!(shown(&app), Some(0));
    press(&mut app, Command::Seek(Seek::Onset));
    assert_eq!(shown(&app), Some(20));
    assert_eq!(app.update(Message::Elapsed(1_000_000_000)), Action::Nothing, "paused");
    press(&mut app, Command::Play);
    assert_eq!(app.update(Message::Elapsed(1_000_000_000)), Action::Redraw);
    assert_eq!(shown(&app), Some(30));
    press(&mut app, Command::Seek(Seek::Ticks(-1)));
    assert_eq!(shown(&app), Some(29));
}
