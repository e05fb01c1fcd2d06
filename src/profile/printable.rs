//! Hostile text made visible: what a process calls itself must not act on whoever reads it.

use std::fmt::Write as _;

/// Text with every control, direction-changing and invisible character replaced by an escape that
/// can be read (`\x1b`, `\u{202e}`), and cut after `chars_max` characters with a visible mark.
///
/// This is not HTML escaping: that happens where HTML is written.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(chars_max));
    let mut chars = text.chars();
    for char in chars.by_ref().take(chars_max) {
        match char {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            _ if char.is_ascii_control() => {
                escape(&mut shown, format_args!("\\x{:02x}", u32::from(char)));
            }
            _ if is_invisible(char) => {
                escape(&mut shown, format_args!("\\u{{{:x}}}", u32::from(char)));
            }
            _ => shown.push(char),
        }
    }
    let cut = chars.count();
    if cut > 0 {
        escape(&mut shown, format_args!("… [{cut} more characters]"));
    }
    shown
}

fn escape(shown: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = shown.write_fmt(text);
}

/// Characters that change how *other* characters are shown, or are not shown themselves: C1
/// controls, bidirectional controls (Unicode TR 9), zero-width ones, line separators, the
/// non-characters that XML forbids, and tags.
const fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{fffe}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_become_visible_and_the_rest_stays() {
        let cases = [
            ("tokio-rt-worker", "tokio-rt-worker"),
            ("naïve 日本", "naïve 日本"),
            ("a\x1b[31mb", "a\\x1b[31mb"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("exe\u{202e}txt", "exe\\u{202e}txt"),
            ("a\u{200b}b", "a\\u{200b}b"),
            ("nul\0", "nul\\x00"),
            ("del\x7f", "del\\x7f"),
            ("c1\u{9b}", "c1\\u{9b}"),
            ("\u{ffff}", "\\u{ffff}"),
            ("<b>", "<b>"),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text, 100), expected);
        }
    }

    #[test]
    fn long_text_is_cut_with_a_mark_and_the_bound_itself_is_not() {
        assert_eq!(printable("12345", 5), "12345");
        assert_eq!(printable("123456", 5), "12345… [1 more characters]");
    }
}
