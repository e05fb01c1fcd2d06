//! The differential flamegraph: the second profile, coloured by how it differs from the first.

use std::collections::BTreeMap;

use inferno::flamegraph::color::BackgroundColor;
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use crate::profile::flame::{Drawn, FlameError, STACKS_MAX, SVG_BYTES_MAX, take_apart};
use crate::profile::folded::{Folded, OTHER_STACKS};

/// Narrowest frame drawn, percent of the width: tried in this order until the SVG fits.
const WIDTH_PERCENT_MIN: [f64; 4] = [0.1, 0.5, 2.0, 8.0];

/// Draws `after`; frames that are innermost more often than in `before` are red, less often blue.
/// Counts of `before` are scaled to the sum of `after`, so that only shares differ.
///
/// # Errors
/// When the renderer refuses, or the drawing is too large even without narrow frames.
pub(super) fn draw_difference(
    before: &Folded,
    after: &Folded,
    title: &str,
) -> Result<Drawn, FlameError> {
    if before.samples == 0 || after.samples == 0 {
        return Ok(Drawn::Empty);
    }
    let lines = lines(before, after);
    for width_percent_min in WIDTH_PERCENT_MIN {
        let svg = render(&lines, title, width_percent_min)
            .map_err(|source| FlameError::Render { samples: after.samples, source })?;
        let flame = take_apart(&svg, width_percent_min)?;
        if flame.svg.len() <= SVG_BYTES_MAX {
            return Ok(Drawn::Flame(flame));
        }
    }
    Err(FlameError::TooLarge)
}

/// `stack before after`, the heaviest stacks of either side.
fn lines(before: &Folded, after: &Folded) -> Vec<String> {
    let scale = after.samples as f64 / before.samples.max(1) as f64;
    let mut both: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (stack, count) in &before.stacks {
        both.entry(stack).or_default().0 = (*count as f64 * scale).round() as u64;
    }
    for (stack, count) in &after.stacks {
        both.entry(stack).or_default().1 = *count;
    }
    let mut stacks: Vec<(&str, (u64, u64))> = both.into_iter().collect();
    stacks.sort_by(|(a, x), (b, y)| y.0.max(y.1).cmp(&x.0.max(x.1)).then(a.cmp(b)));
    let rest = stacks.split_off(stacks.len().min(STACKS_MAX));
    let mut other = ((before.cut_samples as f64 * scale).round() as u64, after.cut_samples);
    for (_, (before, after)) in rest {
        other = (other.0.saturating_add(before), other.1.saturating_add(after));
    }
    let line = |stack: &str, (before, after)| format!("{stack} {before} {after}");
    let mut lines: Vec<String> =
        stacks.into_iter().map(|(stack, counts)| line(stack, counts)).collect();
    if other != (0, 0) {
        lines.push(line(OTHER_STACKS, other));
    }
    // The renderer wants them in the order of their text.
    lines.sort();
    lines
}

fn render(lines: &[String], title: &str, width_percent_min: f64) -> std::io::Result<String> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.bgcolors = Some(BackgroundColor::Flat((255, 255, 255).into()));
    options.deterministic = true;
    options.min_width = width_percent_min;
    options.count_name = String::from("samples");
    options.name_type = String::new();
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    String::from_utf8(svg).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::folded::merge;

    #[test]
    fn shares_are_compared_and_not_counts() {
        let (before, after) = (merge(["t;a 10\nt;b 10\n"]), merge(["t;a 100\nt;b 100\n"]));
        assert_eq!(lines(&before, &after), ["t;a 100 100", "t;b 100 100"]);
        let gone = merge(["t;a 30\n"]);
        assert_eq!(lines(&before, &gone), ["t;a 15 30", "t;b 15 0"]);
    }

    #[test]
    fn what_grew_says_by_how_much_and_nothing_is_stated_as_such() {
        let (before, after) = (merge(["t;a 10\nt;b 30\n"]), merge(["t;a 30\nt;b 10\n"]));
        let Ok(Drawn::Flame(flame)) = draw_difference(&before, &after, "title") else {
            panic!("not drawn")
        };
        assert!(flame.svg.contains("a (30 samples, 75.00%; +50.00%)"), "{}", flame.svg);
        assert!(!flame.svg.contains("<script") && !flame.svg.contains("onload"));
        let none = merge([""]);
        assert_eq!(draw_difference(&none, &after, "title").unwrap(), Drawn::Empty);
        assert_eq!(draw_difference(&after, &none, "title").unwrap(), Drawn::Empty);
    }

    #[test]
    fn names_of_functions_stay_text() {
        let text = "</script><img onerror=x>\"';<b>&[k] 3\n";
        let Ok(Drawn::Flame(flame)) = draw_difference(&merge([text]), &merge([text]), "t") else {
            panic!("not drawn")
        };
        assert!(!flame.svg.contains("<img") && !flame.svg.contains("</script"));
    }
}
