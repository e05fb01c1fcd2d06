//! A flamegraph as a file of its own: an SVG that zooms and searches in any browser.

use inferno::flamegraph::color::MultiPalette;
use inferno::flamegraph::{Options, Palette, TextTruncateDirection, from_lines};

use super::flame::FlameError;
use super::folded::Folded;
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
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.subtitle = Some(subtitle.to_owned());
    options.colors = Palette::Multi(MultiPalette::Rust);
    options.deterministic = true;
    options.min_width = 0.05;
    kind.unit().clone_into(&mut options.count_name);
    options.name_type = String::new();
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    from_lines(&mut options, folded.lines(STACKS_MAX).iter().map(String::as_str), &mut svg)
        .map_err(|source| FlameError::Render { samples: folded.samples, source })?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::folded::merge;

    #[test]
    fn a_file_of_its_own_has_its_script_and_its_unit() {
        let svg = draw(&merge(["main;run;poll 5\n"]), Kind::OffCpu, "title", "sub").expect("drawn");
        let svg = String::from_utf8(svg).expect("text");
        for part in ["<?xml", "<script", "poll (5 µs, 100.00%)", "title", "sub"] {
            assert!(svg.contains(part), "{part}");
        }
    }
}
