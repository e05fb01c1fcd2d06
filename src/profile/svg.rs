//! A flamegraph as a file of its own: an SVG that zooms and searches in any browser.

use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::colours;
use super::flame::{FlameError, Unit};
use super::folded::{Folded, in_words};
use super::stacks::Kind;

/// Stacks drawn; the lighter ones are summed up.
pub const STACKS_MAX: usize = 10_000;

/// Draws `folded`; the same stacks always give the same bytes.
///
/// # Errors
/// When there is no sample: an empty picture looks like a fault of the tool.
pub fn draw(
    folded: &Folded,
    kind: Kind,
    title: &str,
    subtitle: &str,
) -> Result<Vec<u8>, FlameError> {
    // The same colours and words as in the report.
    let lines: Vec<String> = folded.lines(STACKS_MAX).iter().map(|line| in_words(line)).collect();
    let mut palette = colours::of(&lines);
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.subtitle = Some(subtitle.to_owned());
    options.palette_map = Some(&mut palette);
    options.deterministic = true;
    options.min_width = 0.05;
    let unit = Unit::of(kind, folded.samples);
    unit.name.clone_into(&mut options.count_name);
    options.factor = unit.factor;
    options.name_type = String::new();
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(|source| FlameError::Render { samples: folded.samples, source })?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::folded::merge;

    #[test]
    fn frames_have_the_colours_of_the_report_and_marks_are_words() {
        let svg = draw(&merge(["main;read_[k] 5\n"]), Kind::Cpu, "title", "sub").expect("drawn");
        let svg = String::from_utf8(svg).expect("text");
        assert!(svg.contains("read [kernel] ("), "{svg}");
    }

    #[test]
    fn a_file_of_its_own_has_its_script_and_its_unit() {
        let svg = draw(&merge(["main;run;poll 5\n"]), Kind::OffCpu, "title", "sub").expect("drawn");
        let svg = String::from_utf8(svg).expect("text");
        for part in ["<?xml", "<script", "poll (5 µs, 100.00%)", "title", "sub"] {
            assert!(svg.contains(part), "{part}");
        }
    }
}
