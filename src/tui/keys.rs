//! One table from keys to commands; the help page is drawn from it too.

use super::app::{Command, Page, Scroll, Seek};

/// A key, freed from the terminal library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names on the keys")]
pub enum Key {
    Char(char),
    Ctrl(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    Enter,
    Esc,
}

/// When a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// While a target is watched.
    Live,
    /// While a recording is shown.
    Replay,
    /// While a page covers the panels.
    Paged,
}

/// What the keys depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// A recording is shown.
    pub replay: bool,
    /// A page covers the panels.
    pub paged: bool,
}

impl When {
    const fn holds(self, mode: Mode) -> bool {
        match self {
            Self::Always => true,
            Self::Live => !mode.replay,
            Self::Replay => mode.replay,
            Self::Paged => mode.paged,
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct Binding {
    /// When it holds.
    pub when: When,
    /// Any of these.
    pub keys: &'static [Key],
    /// Means this.
    pub command: Command,
    /// In the words of the help page.
    pub help: &'static str,
}

const fn bind(when: When, keys: &'static [Key], command: Command, help: &'static str) -> Binding {
    Binding { when, keys, command, help }
}

/// All keys. The first line that holds wins, so the narrower ones stand first.
pub static TABLE: &[Binding] = &[
    bind(When::Always, &[Key::Ctrl('c')], Command::Quit, "leave at once"),
    bind(When::Paged, &[Key::Char('q'), Key::Esc], Command::ClosePage, "close this page"),
    bind(When::Always, &[Key::Char('q')], Command::Quit, "leave, when no page is open"),
    bind(When::Always, &[Key::Char('?')], Command::Toggle(Page::Help), "this page"),
    bind(
        When::Always,
        &[Key::Char('v'), Key::Enter],
        Command::Toggle(Page::Verdict),
        "the verdict: all evidence, what was ruled out, what to do",
    ),
    bind(
        When::Always,
        &[Key::Char('a')],
        Command::Toggle(Page::Absent),
        "evidence: what can be seen, what not and why; the run",
    ),
    bind(
        When::Live,
        &[Key::Char(' ')],
        Command::Freeze,
        "freeze the picture, or let it go on (watching never stops)",
    ),
    bind(When::Replay, &[Key::Char(' ')], Command::Play, "play, or pause"),
    bind(When::Replay, &[Key::Left], Command::Seek(Seek::Ticks(-1)), "one tick back"),
    bind(When::Replay, &[Key::Right], Command::Seek(Seek::Ticks(1)), "one tick on"),
    bind(When::Replay, &[Key::Char('[')], Command::Seek(Seek::Seconds(-1)), "one second back"),
    bind(When::Replay, &[Key::Char(']')], Command::Seek(Seek::Seconds(1)), "one second on"),
    bind(When::Replay, &[Key::Home], Command::Seek(Seek::First), "first tick"),
    bind(When::Replay, &[Key::End], Command::Seek(Seek::Last), "last tick"),
    bind(When::Replay, &[Key::Char('o')], Command::Seek(Seek::Onset), "onset of the (next) stall"),
    bind(When::Always, &[Key::Up, Key::Char('k')], Command::Scroll(Scroll::Lines(-1)), "scroll up"),
    bind(
        When::Always,
        &[Key::Down, Key::Char('j')],
        Command::Scroll(Scroll::Lines(1)),
        "scroll down",
    ),
    bind(When::Always, &[Key::PageUp], Command::Scroll(Scroll::Pages(-1)), "a page up"),
    bind(When::Always, &[Key::PageDown], Command::Scroll(Scroll::Pages(1)), "a page down"),
    bind(When::Live, &[Key::Home], Command::Scroll(Scroll::Top), "to the top"),
    bind(When::Live, &[Key::End], Command::Scroll(Scroll::Bottom), "to the bottom"),
    bind(When::Always, &[Key::Tab], Command::FocusNext, "scroll the next panel"),
    bind(When::Always, &[Key::BackTab], Command::FocusPrevious, "scroll the panel before"),
];

/// What `key` means in `mode`.
pub fn command(mode: Mode, key: Key) -> Option<Command> {
    TABLE
        .iter()
        .find(|binding| binding.when.holds(mode) && binding.keys.contains(&key))
        .map(|binding| binding.command)
}

/// The lines of the help page: keys and what they do.
pub fn help(mode: Mode) -> Vec<(String, &'static str)> {
    // From the help page itself one wants to know every key, those of pages too.
    let mode = Mode { paged: true, ..mode };
    TABLE
        .iter()
        .filter(|binding| binding.when.holds(mode))
        .map(|binding| {
            let keys: Vec<_> = binding.keys.iter().map(|key| name(*key)).collect();
            (keys.join(" "), binding.help)
        })
        .collect()
}

/// The name on a key.
pub fn name(key: Key) -> String {
    match key {
        Key::Char(' ') => String::from("space"),
        Key::Char(letter) => letter.to_string(),
        Key::Ctrl(letter) => format!("Ctrl-{}", letter.to_ascii_uppercase()),
        Key::Up => String::from("↑"),
        Key::Down => String::from("↓"),
        Key::Left => String::from("←"),
        Key::Right => String::from("→"),
        Key::BackTab => String::from("Shift-Tab"),
        Key::PageUp => String::from("PgUp"),
        Key::PageDown => String::from("PgDn"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Mode = Mode { replay: false, paged: false };
    const REPLAY: Mode = Mode { replay: true, paged: false };
    const PAGE: Mode = Mode { replay: false, paged: true };

    #[test]
    fn the_same_key_means_what_the_mode_makes_of_it() {
        let cases = [
            (LIVE, Key::Char('q'), Some(Command::Quit)),
            (PAGE, Key::Char('q'), Some(Command::ClosePage)),
            (PAGE, Key::Ctrl('c'), Some(Command::Quit)),
            (LIVE, Key::Esc, None),
            (LIVE, Key::Char(' '), Some(Command::Freeze)),
            (REPLAY, Key::Char(' '), Some(Command::Play)),
            (LIVE, Key::Left, None),
            (REPLAY, Key::Left, Some(Command::Seek(Seek::Ticks(-1)))),
            (REPLAY, Key::End, Some(Command::Seek(Seek::Last))),
            (LIVE, Key::End, Some(Command::Scroll(Scroll::Bottom))),
            (LIVE, Key::Enter, Some(Command::Toggle(Page::Verdict))),
            (LIVE, Key::Char('x'), None),
        ];
        for (mode, key, wanted) in cases {
            assert_eq!(command(mode, key), wanted, "{mode:?} {key:?}");
        }
    }

    #[test]
    fn every_line_of_the_table_can_be_reached_and_is_explained() {
        for binding in TABLE {
            assert!(!binding.help.is_empty(), "{:?}", binding.keys);
            for key in binding.keys {
                let reached = [false, true].into_iter().any(|replay| {
                    [false, true]
                        .into_iter()
                        .any(|paged| command(Mode { replay, paged }, *key) == Some(binding.command))
                });
                assert!(reached, "{key:?} is hidden by an earlier line");
            }
        }
    }

    #[test]
    fn help_shows_the_keys_of_its_mode_only() {
        let text = |mode| format!("{:?}", help(mode));
        assert!(text(LIVE).contains("freeze") && !text(LIVE).contains("onset"));
        assert!(text(REPLAY).contains("onset") && !text(REPLAY).contains("freeze"));
    }
}
