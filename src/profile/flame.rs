//! Folded stacks to a flamegraph: the SVG without its script, and the script by itself, so that a
//! page can forbid every script but that one.

use inferno::flamegraph::color::BackgroundColor;
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::colours;
use super::diff::{self, ONLY_MARK};
use super::folded::{Folded, in_words};
use super::stacks::Kind;

/// Largest SVG, bytes; a caller may want it smaller.
pub const SVG_BYTES_MAX: usize = 400_000;
/// Stacks drawn; the lighter ones are summed up.
pub const STACKS_MAX: usize = 3_000;
/// Narrowest frame drawn, percent of the width: tried in this order until the SVG fits.
const WIDTH_PERCENT_MIN: [f64; 6] = [0.1, 0.25, 0.5, 1.0, 2.0, 8.0];
/// Time in all from which counts of microseconds are shown as milliseconds.
const SHOWN_AS_MS_FROM_US: u64 = 20_000;

const SCRIPT_BEGIN: &str = "<script type=\"text/ecmascript\">";
const SCRIPT_END: &str = "</script>";

/// A flamegraph in parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Flame {
    /// The `<svg>` element: no script, no style, no handler, no declaration before it. Its ids
    /// (`frames`, `details`, `matched`, …) are the same in every flamegraph: one per document.
    pub svg: String,
    /// The script that zooms and searches. The same for every flamegraph. Call `init()` to start.
    pub script: String,
    /// Height of the drawing, px.
    pub height_px: u32,
    /// Frames narrower than this share of the width are left out, percent.
    pub width_percent_min: f64,
}

/// What came of drawing.
#[derive(Debug, Clone, PartialEq)]
pub enum Drawn {
    /// A flamegraph.
    Flame(Flame),
    /// There was no sample: say so in words, an empty picture looks like a fault of the tool.
    Empty,
}

/// Why there is no flamegraph.
#[derive(Debug, thiserror::Error)]
pub enum FlameError {
    /// The renderer refused.
    #[error("the flamegraph could not be drawn from {samples} samples: {source}")]
    Render {
        /// Samples given to it.
        samples: u64,
        /// Its reason.
        source: std::io::Error,
    },
    /// Too large, even with narrow frames left out.
    #[error("the flamegraph is larger than {bytes_max} bytes even without narrow frames")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// The renderer's output is not what this version expects.
    #[error("the flamegraph renderer's output has no {0}")]
    Shape(&'static str),
}

/// How counts are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    /// Its name, as it stands after a number.
    pub name: &'static str,
    /// What a count is multiplied with.
    pub factor: f64,
}

impl Unit {
    /// The unit for counts of this kind that add up to `total`.
    pub const fn of(kind: Kind, total: u64) -> Self {
        match kind {
            Kind::Cpu => Self { name: "samples", factor: 1.0 },
            Kind::OffCpu | Kind::Wall if total < SHOWN_AS_MS_FROM_US => {
                Self { name: "µs", factor: 1.0 }
            }
            Kind::OffCpu | Kind::Wall => Self { name: "ms", factor: 1e-3 },
        }
    }
}

/// Draws a flamegraph of at most `bytes_max` ([`SVG_BYTES_MAX`] at the outside); the same stacks
/// always give the same bytes.
pub fn draw(folded: &Folded, kind: Kind, bytes_max: usize) -> Result<Drawn, FlameError> {
    if folded.samples == 0 {
        return Ok(Drawn::Empty);
    }
    let unit = Unit::of(kind, folded.samples);
    fit(&folded.lines(STACKS_MAX), folded.samples, unit, bytes_max)
}

/// Draws what `after` has more (red) and less (blue) than `before`, as wide as it is in `after`. A
/// frame that `before` has not gets the class `only`.
pub fn draw_difference(
    before: &Folded,
    after: &Folded,
    kind: Kind,
    bytes_max: usize,
) -> Result<Drawn, FlameError> {
    if before.samples == 0 || after.samples == 0 {
        return Ok(Drawn::Empty);
    }
    // The renderer's shares of a difference are wrong with a factor.
    let unit = Unit { factor: 1.0, ..Unit::of(kind, 0) };
    let drawn = fit(&diff::lines(before, after, STACKS_MAX), after.samples, unit, bytes_max)?;
    Ok(match drawn {
        Drawn::Flame(mut flame) => {
            // A name cannot look like this: the renderer escapes `<`, and `diff` takes off the mark.
            let plain = format!("<g><title>{ONLY_MARK} ");
            flame.svg = flame.svg.replace(&plain, &plain.replacen("<g>", "<g class=\"only\">", 1));
            Drawn::Flame(flame)
        }
        Drawn::Empty => Drawn::Empty,
    })
}

/// Leaves out narrow frames until the drawing is small enough.
fn fit(lines: &[String], samples: u64, unit: Unit, bytes_max: usize) -> Result<Drawn, FlameError> {
    let bytes_max = bytes_max.min(SVG_BYTES_MAX);
    for width_percent_min in WIDTH_PERCENT_MIN {
        let svg = render(lines, unit, width_percent_min)
            .map_err(|source| FlameError::Render { samples, source })?;
        let flame = take_apart(&svg, width_percent_min)?;
        if flame.svg.len() <= bytes_max {
            return Ok(Drawn::Flame(flame));
        }
    }
    Err(FlameError::TooLarge { bytes_max })
}

fn render(lines: &[String], unit: Unit, width_percent_min: f64) -> std::io::Result<String> {
    // The renderer takes some marks off, unread.
    let lines: Vec<String> = lines.iter().map(|line| in_words(line)).collect();
    let mut palette = colours::of(&lines);
    let mut options = Options::default();
    // What it shows is said by the page around it.
    options.title = String::from(" ");
    options.palette_map = Some(&mut palette);
    options.bgcolors = Some(BackgroundColor::Flat((255, 255, 255).into()));
    options.deterministic = true;
    options.min_width = width_percent_min;
    options.count_name = String::from(unit.name);
    options.factor = unit.factor;
    options.name_type = String::new();
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    String::from_utf8(svg).map_err(std::io::Error::other)
}

/// Cuts the script, the style sheet and the load handler out of the renderer's SVG. All of them
/// stand before the first frame, so names of functions cannot be mistaken for them.
fn take_apart(svg: &str, width_percent_min: f64) -> Result<Flame, FlameError> {
    let start = svg.find("<svg ").ok_or(FlameError::Shape("svg element"))?;
    let svg = svg.get(start..).ok_or(FlameError::Shape("svg element"))?;
    let (svg, script) =
        cut(svg, SCRIPT_BEGIN, SCRIPT_END).ok_or(FlameError::Shape("script element"))?;
    let (svg, _style) =
        cut(&svg, "<style type=\"text/css\">", "</style>").ok_or(FlameError::Shape("style"))?;
    let svg = svg.replacen(" onload=\"init(evt)\"", "", 1);
    let height_px = svg
        .split_once(" height=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .and_then(|(height, _)| height.parse().ok())
        .ok_or(FlameError::Shape("height"))?;
    let script = script.replace("<![CDATA[", "").replace("]]>", "");
    Ok(Flame { svg, script, height_px, width_percent_min })
}

/// The text without the first `begin … end`, and what stood between.
fn cut(text: &str, begin: &str, end: &str) -> Option<(String, String)> {
    let (before, rest) = text.split_once(begin)?;
    let (inside, after) = rest.split_once(end)?;
    Some((format!("{before}{after}"), inside.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::folded::merge;

    fn flame(text: &str) -> Flame {
        match draw(&merge([text]), Kind::Cpu, SVG_BYTES_MAX).expect("drawn") {
            Drawn::Flame(flame) => flame,
            Drawn::Empty => panic!("no sample in {text:?}"),
        }
    }

    #[test]
    fn no_sample_is_stated_rather_than_drawn() {
        for text in ["", "nonsense"] {
            let drawn = draw(&merge([text]), Kind::Cpu, SVG_BYTES_MAX).expect("drawn");
            assert_eq!(drawn, Drawn::Empty);
        }
    }

    #[test]
    fn the_parts_are_apart() {
        let flame = flame("main;run;poll 5\nmain;run;park 3\n");
        assert!(flame.svg.starts_with("<svg ") && flame.svg.ends_with("</svg>"));
        for gone in ["<script", "<style", "onload", "<!DOCTYPE", "<?xml"] {
            assert!(!flame.svg.contains(gone), "{gone}");
        }
        assert!(flame.svg.contains("poll (5 samples, 62.50%)"), "{}", flame.svg);
        assert!(
            flame.script.contains("function zoom(") && flame.script.contains("function search(")
        );
        assert!(!flame.script.contains("CDATA"));
        assert!(flame.height_px > 16 * 4);
    }

    #[test]
    fn the_same_stacks_give_the_same_bytes_and_every_script_is_the_same() {
        let a = flame("main;run;poll 5\nmain;park 3\n");
        assert_eq!(a, flame("main;park 3\nmain;run;poll 2\nmain;run;poll 3\n"));
        assert_eq!(a.script, flame("other 1\n").script);
    }

    #[test]
    fn waits_are_shown_in_a_unit_that_fits_them() {
        for (us, shown) in
            [(1_500, "poll (1,500 µs, 100.00%)"), (2_500_000, "poll (2,500 ms, 100.00%)")]
        {
            let drawn =
                draw(&merge([format!("main;poll {us}").as_str()]), Kind::OffCpu, SVG_BYTES_MAX);
            let Ok(Drawn::Flame(flame)) = drawn else { panic!("not drawn: {drawn:?}") };
            assert!(flame.svg.contains(shown), "{}", flame.svg);
        }
    }

    #[test]
    fn a_difference_marks_what_only_the_stall_has() {
        let (before, after) =
            (merge(["main;run;poll 30\n"]), merge(["main;run;poll 10\nmain;run;spin 30\n"]));
        let drawn = draw_difference(&before, &after, Kind::Cpu, SVG_BYTES_MAX);
        let Ok(Drawn::Flame(flame)) = drawn else { panic!("not drawn: {drawn:?}") };
        assert_eq!(flame.svg.matches("<g class=\"only\"><title>★ spin (30 samples").count(), 1);
        assert!(
            flame.svg.contains("<g><title>poll (10 samples, 25.00%; -75.00%)"),
            "{}",
            flame.svg
        );
        let nothing = draw_difference(&before, &merge([""]), Kind::Cpu, SVG_BYTES_MAX);
        assert_eq!(nothing.expect("drawn"), Drawn::Empty);
    }

    #[test]
    fn a_wide_profile_loses_narrow_frames_and_keeps_within_the_bound() {
        let line = |n: usize| format!("main;{};leaf{n}x 1", "f".repeat(1 + n % 150));
        let text = (0..40_000).map(line).collect::<Vec<_>>().join("\n");
        let flame = flame(&text);
        assert!(flame.svg.len() <= SVG_BYTES_MAX);
        assert!(flame.svg.contains("(other stacks)"));
        assert!(matches!(
            draw(&merge([text.as_str()]), Kind::Cpu, 500),
            Err(FlameError::TooLarge { bytes_max: 500 })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn names_of_functions_stay_text(name in "(</script>|<img onerror=x>|\"|'|&|_\\[k\\]|.){1,12}") {
            let text = format!("{name};{name} 1\n");
            if let Ok(Drawn::Flame(flame)) = draw(&merge([text.as_str()]), Kind::Cpu, SVG_BYTES_MAX) {
                prop_assert!(!flame.svg.contains("<img") && !flame.svg.contains("</script"));
            }
        }
    }
}
