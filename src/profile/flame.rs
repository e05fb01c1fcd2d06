//! Folded stacks to a flamegraph: the SVG without its script, and the script by itself, so that a
//! page can forbid every script but that one.

use inferno::flamegraph::color::{BackgroundColor, MultiPalette};
use inferno::flamegraph::{Options, Palette, TextTruncateDirection, from_lines};

use super::folded::Folded;

/// Largest SVG, bytes.
pub const SVG_BYTES_MAX: usize = 400_000;
/// Stacks drawn; the lighter ones are summed up.
pub const STACKS_MAX: usize = 3_000;
/// Narrowest frame drawn, percent of the width: tried in this order until the SVG fits.
const WIDTH_PERCENT_MIN: [f64; 4] = [0.1, 0.5, 2.0, 8.0];

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
    #[error("the flamegraph is larger than {SVG_BYTES_MAX} bytes even without narrow frames")]
    TooLarge,
    /// The renderer's output is not what this version expects.
    #[error("the flamegraph renderer's output has no {0}")]
    Shape(&'static str),
}

/// Draws a flamegraph; the same stacks always give the same bytes.
pub fn draw(folded: &Folded, title: &str) -> Result<Drawn, FlameError> {
    if folded.samples == 0 {
        return Ok(Drawn::Empty);
    }
    let lines = folded.lines(STACKS_MAX);
    for width_percent_min in WIDTH_PERCENT_MIN {
        let svg = render(&lines, title, width_percent_min)
            .map_err(|source| FlameError::Render { samples: folded.samples, source })?;
        let flame = take_apart(&svg, width_percent_min)?;
        if flame.svg.len() <= SVG_BYTES_MAX {
            return Ok(Drawn::Flame(flame));
        }
    }
    Err(FlameError::TooLarge)
}

fn render(lines: &[String], title: &str, width_percent_min: f64) -> std::io::Result<String> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.colors = Palette::Multi(MultiPalette::Rust);
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

/// Cuts the script, the style sheet and the load handler out of the renderer's SVG. All of them
/// stand before the first frame, so names of functions cannot be mistaken for them.
pub(crate) fn take_apart(svg: &str, width_percent_min: f64) -> Result<Flame, FlameError> {
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
        match draw(&merge([text]), "title").expect("drawn") {
            Drawn::Flame(flame) => flame,
            Drawn::Empty => panic!("no sample in {text:?}"),
        }
    }

    #[test]
    fn no_sample_is_stated_rather_than_drawn() {
        assert_eq!(draw(&merge([""]), "title").expect("drawn"), Drawn::Empty);
        assert_eq!(draw(&merge(["nonsense"]), "title").expect("drawn"), Drawn::Empty);
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
    fn a_wide_profile_loses_narrow_frames_and_keeps_within_the_bound() {
        let line = |n: usize| format!("main;{};leaf{n}x 1", "f".repeat(1 + n % 150));
        let text = (0..40_000).map(line).collect::<Vec<_>>().join("\n");
        let flame = flame(&text);
        assert!(flame.svg.len() <= SVG_BYTES_MAX);
        assert!(flame.svg.contains("(other stacks)"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn names_of_functions_stay_text(name in "(</script>|<img onerror=x>|\"|'|&|_\\[k\\]|.){1,12}") {
            let text = format!("{name};{name} 1\n");
            if let Ok(Drawn::Flame(flame)) = draw(&merge([text.as_str()]), "title") {
                prop_assert!(!flame.svg.contains("<img") && !flame.svg.contains("</script"));
            }
        }
    }
}
