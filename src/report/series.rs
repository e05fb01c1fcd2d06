//! What the charts show: one line per thing measured, with every absent reading kept as a gap.

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_probes::{Absence, Reading};

use super::absences::Absences;
use super::chart::Point;
use super::lanes::{SPECS, Spec};
use crate::model::Model;
use crate::watch::event::Incident;

/// Lines followed per chart.
const SERIES_MAX: usize = 64;
/// Lines drawn per chart: the ones that reach highest.
pub(super) const SERIES_DRAWN_MAX: usize = 6;

/// One line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series {
    pub label: String,
    pub points: Vec<Point>,
}

impl Series {
    /// Greatest and last reading.
    pub fn max_and_last(&self) -> Option<(f64, f64)> {
        let mut got = self.points.iter().filter_map(|point| point.1);
        let first = got.next()?;
        Some(got.fold((first, first), |(max, _), value| (max.max(value), value)))
    }
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    pub title: &'static str,
    pub unit: &'static str,
    /// What to look for, one sentence.
    pub hint: &'static str,
    pub series: Vec<Series>,
    /// Lines that are not drawn, because there are too many.
    pub undrawn: usize,
    /// The limit that the values may not pass: last reading.
    pub limit: Option<(String, f64)>,
    /// Why it was absent when it was.
    pub absences: Absences,
    /// What to say when there is nothing to draw and no reason was given.
    pub none: &'static str,
}

/// The charts, in the order in which they are shown.
pub(super) fn panels(incident: &Incident) -> Vec<Panel> {
    SPECS.iter().map(|spec| panel(spec, &incident.models)).collect()
}

fn panel(spec: &Spec, models: &[Arc<Model>]) -> Panel {
    let mut lines: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    let mut absences = Absences::default();
    let mut limit = None;
    for model in models {
        limit = (spec.limit)(model).or(limit);
        let row = match (spec.read)(model) {
            Reading::Got(row) => row,
            Reading::Absent(absence) => {
                absences.add(spec.title, &absence);
                Vec::new()
            }
        };
        add_row(&mut lines, model.at_ns, row, |absence| absences.add(spec.title, absence));
    }
    let mut series: Vec<Series> =
        lines.into_iter().map(|(label, points)| Series { label, points }).collect();
    let reach = |series: &Series| series.max_and_last().map_or(f64::NEG_INFINITY, |(max, _)| max);
    series.sort_by(|a, b| reach(b).total_cmp(&reach(a)));
    let undrawn = series.len().saturating_sub(SERIES_DRAWN_MAX);
    series.truncate(SERIES_DRAWN_MAX);
    let Spec { title, unit, hint, none, .. } = *spec;
    Panel { title, unit, hint, series, undrawn, limit, absences, none }
}

/// Adds one tick to every line; lines that it does not mention get a gap.
fn add_row(
    lines: &mut BTreeMap<String, Vec<Point>>,
    at_ns: u64,
    row: Vec<(String, Reading<f64>)>,
    mut absent: impl FnMut(&Absence),
) {
    for (label, reading) in row {
        if let Some(absence) = reading.absence() {
            absent(absence);
        }
        let value = reading.got().copied().filter(|value| value.is_finite());
        if let Some(points) = lines.get_mut(&label) {
            points.push((at_ns, value));
        } else if lines.len() < SERIES_MAX {
            lines.insert(label, vec![(at_ns, value)]);
        }
    }
    for points in lines.values_mut() {
        if points.last().is_some_and(|last| last.0 != at_ns) {
            points.push((at_ns, None));
        }
    }
}
