//! The numbers behind the lanes, for the page's script to draw a part of the run larger: every tick
//! around the onset, thinned out elsewhere. Numbers only, so there is no text in it to escape.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::chart::{self, Axis, COLUMNS, Point};
use super::facts::{Episode, Facts};

/// Ticks kept of each lane beyond the thinned ones: a minute at 50 ms, and half of another.
const DETAIL_TICKS_MAX: usize = 1_800;
/// Time around an onset, a detection or a recovery in which every tick is kept, ns to either side.
const DETAIL_NS: u64 = 30_000_000_000;
/// Columns that the lines of one lane share when they are thinned out.
const LANE_COLUMNS: usize = 960;
/// Least columns of one line.
const COLUMNS_MIN: usize = 160;
/// Gaps kept per lane.
const GAPS_MAX: usize = 200;

/// One lane as it is drawn.
pub(super) struct Lane<'a> {
    /// Points per line, holes marked.
    pub lines: Vec<&'a [Point]>,
    /// Where none of them has a reading, ns.
    pub gaps: &'a [(u64, u64)],
    /// Upper edge of the scale.
    pub top: f64,
}

/// The data block, JSON: instants in ms relative to the onset (or the begin), as differences.
pub(super) fn json(facts: &Facts<'_>, axis: &Axis, lanes: &[Lane<'_>]) -> String {
    let zero_ns = facts.zero_ns();
    let mut text = String::with_capacity(1 << 16);
    let detected_ns = facts.episode().and_then(Episode::detected_ns).unwrap_or(zero_ns);
    let _ = write!(
        text,
        "{{\"zero\":{},\"begin\":{},\"end\":{},\"onset\":{},\"detected\":{},\"lanes\":[",
        facts.incident.anchor.real_ns_at(zero_ns) / 1_000_000,
        offset_ms(axis.begin_ns, zero_ns),
        offset_ms(axis.end_ns, zero_ns),
        facts.episode().is_some(),
        offset_ms(detected_ns, zero_ns),
    );
    let near = near(facts);
    for (n, lane) in lanes.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { "," });
        push_lane(&mut text, lane, axis, zero_ns, &near);
    }
    text.push_str("]}");
    text
}

/// Milliseconds from `zero_ns`, rounded.
pub(super) fn offset_ms(at_ns: u64, zero_ns: u64) -> i64 {
    let ns = i128::from(at_ns) - i128::from(zero_ns);
    i64::try_from((ns + 500_000).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// Stretches of which every tick is kept: those of the stall that the report is about come first.
fn near(facts: &Facts<'_>) -> Vec<(u64, u64)> {
    let instants = |episode: &Episode<'_>| {
        [episode.begin_ns(), episode.detected_ns(), episode.recovered.map(|(at_ns, _)| at_ns)]
    };
    facts
        .episode()
        .into_iter()
        .chain(&facts.episodes)
        .flat_map(instants)
        .flatten()
        .map(|at_ns| (at_ns.saturating_sub(DETAIL_NS), at_ns.saturating_add(DETAIL_NS)))
        .collect()
}

fn push_lane(text: &mut String, lane: &Lane<'_>, axis: &Axis, zero_ns: u64, near: &[(u64, u64)]) {
    let kept = kept(lane, axis, near);
    let _ = write!(text, "{{\"top\":");
    push_number(text, lane.top);
    text.push_str(",\"x\":[");
    let mut last = 0;
    for (n, at_ns) in kept.iter().enumerate() {
        let ms = offset_ms(*at_ns, zero_ns);
        let _ = write!(text, "{}{}", if n == 0 { "" } else { "," }, ms - last);
        last = ms;
    }
    text.push_str("],\"y\":[");
    for (n, line) in lane.lines.iter().enumerate() {
        text.push_str(if n == 0 { "[" } else { ",[" });
        let mut next = line.iter().peekable();
        for (n, at_ns) in kept.iter().enumerate() {
            while next.next_if(|point| point.0 < *at_ns).is_some() {}
            let value = next.peek().filter(|point| point.0 == *at_ns).and_then(|point| point.1);
            text.push_str(if n == 0 { "" } else { "," });
            match value {
                Some(value) => push_number(text, value),
                None => text.push_str("null"),
            }
        }
        text.push(']');
    }
    text.push_str("],\"gaps\":[");
    for (n, (begin_ns, end_ns)) in kept_gaps(lane.gaps, axis, zero_ns).into_iter().enumerate() {
        let (begin, end) = (offset_ms(begin_ns, zero_ns), offset_ms(end_ns, zero_ns));
        let _ = write!(text, "{}[{begin},{end}]", if n == 0 { "" } else { "," });
    }
    text.push_str("]}");
}

/// Of more gaps than are kept, those that are seen in the whole run, and then the nearest to the onset.
fn kept_gaps(gaps: &[(u64, u64)], axis: &Axis, zero_ns: u64) -> Vec<(u64, u64)> {
    let mut kept = gaps.to_vec();
    if kept.len() > GAPS_MAX {
        let seen = |gap: &(u64, u64)| axis.at(gap.1) - axis.at(gap.0) >= 1.0 / COLUMNS as f64;
        kept.sort_by_key(|gap| (!seen(gap), gap.0.abs_diff(zero_ns)));
        kept.truncate(GAPS_MAX);
        kept.sort_unstable();
    }
    kept
}

/// The instants of a lane: what thinning leaves of each line, and the detail.
fn kept(lane: &Lane<'_>, axis: &Axis, near: &[(u64, u64)]) -> BTreeSet<u64> {
    let columns = (LANE_COLUMNS / lane.lines.len().max(1)).max(COLUMNS_MIN);
    let mut detail: BTreeSet<u64> = BTreeSet::new();
    for (from_ns, to_ns) in near {
        for line in &lane.lines {
            let begin = line.partition_point(|point| point.0 < *from_ns);
            let within = line.iter().skip(begin).take_while(|point| point.0 <= *to_ns);
            for point in within {
                if detail.len() < DETAIL_TICKS_MAX {
                    detail.insert(point.0);
                }
            }
        }
    }
    for line in &lane.lines {
        detail.extend(chart::thin(line, axis, columns).into_iter().map(|point| point.0));
    }
    detail
}

/// Whole numbers as they are, others to four digits that count.
fn push_number(text: &mut String, value: f64) {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let _ = write!(text, "{value:.0}");
        return;
    }
    let decimals = (3 - value.abs().log10().floor() as i64).clamp(0, 6) as usize;
    let _ = write!(text, "{value:.decimals$}");
    if decimals > 0 {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn numbers_keep_four_digits_and_whole_ones_all() {
        let cases = [
            (0.0, "0"),
            (28_232.0, "28232"),
            (0.123_456, "0.1235"),
            (9_414.7, "9415"),
            (99.95, "99.95"),
            (-3.5, "-3.5"),
            (1e-9, "0"),
        ];
        for (value, expected) in cases {
            let mut text = String::new();
            push_number(&mut text, value);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn of_many_gaps_the_wide_and_the_near_ones_are_kept() {
        let axis = Axis { begin_ns: 0, end_ns: 1_000_000, hole_ns: 1 };
        let mut gaps: Vec<(u64, u64)> = (0..1_000).map(|n| (n * 1_000, n * 1_000 + 10)).collect();
        gaps[3].1 += 3_000;
        let kept = kept_gaps(&gaps, &axis, 500_000);
        assert_eq!(kept.len(), GAPS_MAX);
        assert_eq!(kept[0], gaps[3], "wide, and far away");
        assert!(kept[1..].iter().all(|gap| gap.0.abs_diff(500_000) <= 100_000));
        assert!(kept.is_sorted());
    }

    #[test]
    fn every_tick_is_kept_near_the_onset_and_absent_readings_stay_absent() {
        let ms = 1_000_000;
        let axis = Axis { begin_ns: 0, end_ns: 400_000 * ms, hole_ns: 1_000 * ms };
        let value = |n: u64| (n % 40 != 1).then_some((n % 5) as f64);
        let line: Vec<Point> = (0..8_000).map(|n| (n * 50 * ms, value(n))).collect();
        let other: Vec<Point> = line.iter().skip(7_000).copied().collect();
        let lane = Lane { lines: vec![&line, &other], gaps: &[(0, ms)], top: 5.0 };
        let mut text = String::new();
        let zero_ns = 200_000 * ms;
        let near = [(zero_ns - 10_000 * ms, zero_ns + 10_000 * ms)];
        push_lane(&mut text, &lane, &axis, zero_ns, &near);
        let lane: Value = serde_json::from_str(&text).expect("JSON");
        let mut at = 0;
        let instants: Vec<i64> = lane["x"]
            .as_array()
            .expect("instants")
            .iter()
            .map(|step| {
                at += step.as_i64().expect("whole");
                at
            })
            .collect();
        let of = |ms| instants.iter().position(|at| *at == ms);
        for tick in -200..=200 {
            let index = of(tick * 50).expect("every tick within ten seconds");
            let expected = value((tick + 4_000) as u64);
            assert_eq!(lane["y"][0][index], json!(expected.map(|value| value as i64)));
            assert_eq!(lane["y"][1][index], Value::Null, "not there yet");
        }
        assert!(instants.len() < 4_000, "thinned elsewhere: {}", instants.len());
        assert!(instants.is_sorted());
        assert_eq!(lane["gaps"], json!([[-200_000, -199_999]]));
    }
}
