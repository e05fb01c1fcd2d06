//! The one way for text of observed processes onto the screen.
//!
//! A thread may call itself `\x1b[2J`, turn the reading direction round, or be 10 kB long. Every
//! character that a terminal would act on, or that would take no room, becomes a visible one; the
//! result has a known width.

use ratatui::text::Span;

/// Stands for a character that must not reach the terminal and has no picture of its own.
const REPLACEMENT: char = '\u{FFFD}';
/// Stands for what was cut off.
const ELLIPSIS: char = '…';
/// Characters looked at in one text; nothing on a screen needs more.
pub const CHARS_MAX: usize = 4096;

/// The character as it may be drawn.
fn visible(character: char) -> char {
    match character {
        // U+2400..U+241F are the pictures of the C0 control characters, in the same order.
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(REPLACEMENT),
        '\x7f' => '␡',
        // C1 controls, line and paragraph separators.
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}'
        // Marks, embeddings, overrides and isolates of the bidirectional algorithm (UAX #9).
        | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        // Soft hyphen (width 1 by the tables, invisible in most terminals), fillers, tags.
        | '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
        | '\u{e0000}'..='\u{e0fff}' => REPLACEMENT,
        other if char_width(other) == 0 => REPLACEMENT,
        other => other,
    }
}

/// Columns a single character takes.
fn char_width(character: char) -> usize {
    // Nearly all there is, so the tables are asked seldom.
    if matches!(character, ' '..='~') {
        return 1;
    }
    Span::raw(character.encode_utf8(&mut [0; 4]) as &str).width()
}

/// Columns `text`, which must be clean, takes.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// `text` with every character made visible, at most [`CHARS_MAX`] of them.
pub fn clean(text: &str) -> String {
    let mut out: String = text.chars().take(CHARS_MAX).map(visible).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push(ELLIPSIS);
    }
    out
}

/// `text` made visible and cut to at most `columns`; a cut is marked with an ellipsis.
pub fn fit(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    let mut last_fitting = 0;
    for character in text.chars().map(visible) {
        if used + char_width(character) > columns {
            out.truncate(last_fitting);
            if columns > 0 {
                out.push(ELLIPSIS);
            }
            return out;
        }
        used += char_width(character);
        out.push(character);
        if used < columns {
            last_fitting = out.len();
        }
    }
    out
}

/// `text` made visible and cut at its beginning: the port is at the end of an address.
pub fn fit_end(text: &str, columns: usize) -> String {
    let cleaned = clean(text);
    let whole = width(&cleaned);
    if whole <= columns {
        return cleaned;
    }
    if columns == 0 {
        return String::new();
    }
    let mut left = whole;
    let kept = cleaned.char_indices().find_map(|(at, character)| {
        if left < columns {
            return Some(&cleaned[at..]);
        }
        left -= char_width(character);
        None
    });
    format!("{ELLIPSIS}{}", kept.unwrap_or_default())
}

/// As [`fit`], then filled with spaces to exactly `columns`.
pub fn pad(text: &str, columns: usize) -> String {
    let mut out = fit(text, columns);
    let used = width(&out);
    out.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
    out
}

/// As [`pad`], with the spaces in front.
pub fn pad_left(text: &str, columns: usize) -> String {
    let fitted = fit(text, columns);
    let mut out = " ".repeat(columns.saturating_sub(width(&fitted)));
    out.push_str(&fitted);
    out
}

/// `text` made visible and broken at spaces into at most `lines_max` lines of `columns`; what does
/// not fit is marked with an ellipsis.
pub fn wrap(text: &str, columns: usize, lines_max: usize) -> Vec<String> {
    if columns == 0 || lines_max == 0 {
        return Vec::new();
    }
    let cleaned = clean(text);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in cleaned.split(' ').filter(|word| !word.is_empty()) {
        for piece in pieces(word, columns) {
            let gap = usize::from(!line.is_empty());
            if width(&line) + gap + width(piece) <= columns {
                line.push_str(&" "[..gap]);
                line.push_str(piece);
            } else if lines.len() + 1 < lines_max {
                lines.push(std::mem::replace(&mut line, piece.to_owned()));
            } else {
                // The line and the piece do not fit together, so this always leaves the mark.
                lines.push(fit(&format!("{line} {piece}"), columns));
                return lines;
            }
        }
    }
    lines.push(line);
    lines
}

/// `word` in pieces of at most `columns`.
fn pieces(word: &str, columns: usize) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, character) in word.char_indices() {
        let wide = char_width(character);
        if used + wide > columns && at > start {
            out.push(&word[start..at]);
            (start, used) = (at, 0);
        }
        used += wide;
    }
    out.push(&word[start..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_acts_on_becomes_visible() {
        let cases = [
            ("plain", "plain"),
            ("\x1b[2Jgone", "␛[2Jgone"),
            ("a\nb\tc\0", "a␊b␉c␀"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("\u{7f}", "␡"),
            ("user\u{202e}txt.exe", "user\u{fffd}txt.exe"),
            ("\u{2066}x\u{2069}", "\u{fffd}x\u{fffd}"),
            ("a\u{200b}b\u{feff}c\u{200d}d", "a\u{fffd}b\u{fffd}c\u{fffd}d"),
            ("e\u{301}\u{301}", "e\u{fffd}\u{fffd}"),
            ("soft\u{ad}hyphen", "soft\u{fffd}hyphen"),
            ("\u{e0041}tag", "\u{fffd}tag"),
            ("\u{2028}", "\u{fffd}"),
            ("日本", "日本"),
        ];
        for (given, wanted) in cases {
            assert_eq!(clean(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn fits_by_columns_not_by_characters() {
        assert_eq!(fit("tokio-runtime-worker", 8), "tokio-r…");
        assert_eq!(fit("exactly8", 8), "exactly8");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("x", 0), "");
        assert_eq!(fit_end("[2001:db8::1]:8080", 10), "…::1]:8080");
        assert_eq!(fit_end("127.0.0.1:80", 12), "127.0.0.1:80");
        assert_eq!(pad("日", 4), "日  ");
        assert_eq!(pad_left("7", 3), "  7");
    }

    #[test]
    fn wraps_at_spaces_and_marks_what_is_left_out() {
        assert_eq!(wrap("one two three", 7, 3), ["one two", "three"]);
        assert_eq!(wrap("one two three", 7, 1), ["one tw…"]);
        assert_eq!(wrap("one two", 3, 1), ["on…"]);
        assert_eq!(wrap("abcdefgh", 3, 5), ["abc", "def", "gh"]);
        assert_eq!(wrap("", 10, 2), [""]);
        assert_eq!(wrap("a b", 0, 2), Vec::<String>::new());
    }

    #[test]
    fn ten_thousand_characters_stay_bounded() {
        let long = "x".repeat(10_000);
        assert_eq!(clean(&long).chars().count(), CHARS_MAX + 1);
        assert_eq!(fit(&long, 15).chars().count(), 15);
        assert_eq!(wrap(&long, 10, 2).len(), 2);
    }

    proptest! {
        #[test]
        fn nothing_unprintable_and_nothing_too_wide(text in any::<String>(), columns in 0_usize..40) {
            let fitted = fit(&text, columns);
            prop_assert!(Span::raw(fitted.as_str()).width() <= columns);
            prop_assert!(!fitted.chars().any(|c| c.is_control() || char_width(c) == 0));
            prop_assert_eq!(width(&pad(&text, columns)), columns);
            for line in wrap(&text, columns.max(2), 4) {
                prop_assert!(width(&line) <= columns.max(2), "{line:?}");
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
