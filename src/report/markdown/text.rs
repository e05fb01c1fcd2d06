//! Markdown from text that may be hostile: escapes, fences, tables.

use std::fmt::Write as _;

/// Markdown punctuation made literal, so that hostile text can neither link, mention, nor break a
/// table. The text is printable already: it has no line breaks.
pub(crate) fn escaped(text: &str) -> String {
    // What begins a list, a rule or an underline does so at the begin of a line only.
    let after = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let mut after_mark = after.chars();
    let is_mark = if after.len() < text.len() { ['.', ')', '.'] } else { ['-', '+', '='] }
        .contains(&after_mark.next().unwrap_or(' '));
    let is_alone = after_mark.next().is_none_or(|char| !char.is_alphanumeric());
    let (begin, rest) = if is_mark && is_alone {
        text.split_at(text.len() - after.len())
    } else {
        return inline(text);
    };
    format!("{begin}\\{}", inline(rest))
}

fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(char) = chars.next() {
        match char {
            // Within a word it is no emphasis.
            '_' if before.is_ascii_alphanumeric()
                && chars.peek().is_some_and(char::is_ascii_alphanumeric) =>
            {
                escaped.push(char);
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&' | '$' => {
                escaped.push('\\');
                escaped.push(char);
            }
            // Mentions and addresses are found after escapes are resolved: an empty comment parts
            // them from what follows.
            '@' => escaped.push_str("@<!-- -->"),
            _ => escaped.push(char),
        }
        before = char;
    }
    // A bare address would become a link in most renderers.
    escaped.replace("://", ":\\//").replace("www.", "www\\.").replace("WWW.", "WWW\\.")
}

/// Lines in a fence that none of them can close.
pub(crate) fn fenced(lines: &[String]) -> String {
    let longest = lines
        .iter()
        .flat_map(|line| line.split(|char| char != '`'))
        .map(str::len)
        .fold(2, usize::max);
    let fence = "`".repeat(longest + 1);
    let mut out = format!("{fence}text\n");
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    out.push_str(&fence);
    out
}

/// A section's heading.
pub(crate) fn heading(out: &mut String, title: &str) {
    out.truncate(out.trim_end().len());
    let _ = writeln!(out, "\n\n## {title}\n");
}

/// The head of a table: names, of which those that end in `:` stand to the right.
pub(crate) fn table_head(out: &mut String, names: &[&str]) {
    let (mut head, mut rule) = (String::from("|"), String::from("|"));
    for name in names {
        let _ = write!(head, " {} |", name.trim_end_matches(':'));
        rule.push_str(if name.ends_with(':') { "--:|" } else { "---|" });
    }
    let _ = writeln!(out, "{head}\n{rule}");
}

/// A row of cells that are Markdown already.
pub(crate) fn table_row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_literal() {
        let cases = [
            ("a|b", "a\\|b"),
            ("<b>&amp;", "\\<b\\>\\&amp;"),
            ("[x](http://evil)", "\\[x\\](http:\\//evil)"),
            ("www.evil.com", "www\\.evil.com"),
            ("@all", "@<!-- -->all"),
            ("- item", "\\- item"),
            ("12. item", "12\\. item"),
            ("12 items", "12 items"),
            ("127.0.0.1", "127.0.0.1"),
            ("---", "\\---"),
            ("-x", "-x"),
            ("io_uring _x_", "io_uring \\_x\\_"),
            ("`code`", "\\`code\\`"),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn a_fence_is_longer_than_any_within() {
        let lines = [String::from("a ```` b"), String::from("c")];
        assert_eq!(fenced(&lines), "`````text\na ```` b\nc\n`````");
        assert_eq!(fenced(&[]), "```text\n```");
    }
}
