//! Sums over runs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::record::{HEALTHY, Outcome, RunRecord, Way, WayRecord};

/// What stands in the place of a cause where none was named.
pub const NOTHING: &str = "nothing";
/// Notes and reasons kept of one scenario: beyond, they repeat themselves.
const NOTES_MAX: usize = 8;

/// How often each outcome came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// [`Outcome::Right`].
    pub right: u32,
    /// [`Outcome::Misdated`].
    pub misdated: u32,
    /// [`Outcome::Unknown`].
    pub unknown: u32,
    /// [`Outcome::Wrong`].
    pub wrong: u32,
    /// [`Outcome::Missed`].
    pub missed: u32,
    /// [`Outcome::FalseAlarm`].
    pub false_alarm: u32,
    /// [`Outcome::NotRun`].
    pub not_run: u32,
    /// [`Outcome::Broken`].
    pub broken: u32,
}

impl Counts {
    const fn add(&mut self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Right => &mut self.right,
            Outcome::Misdated => &mut self.misdated,
            Outcome::Unknown => &mut self.unknown,
            Outcome::Wrong { .. } => &mut self.wrong,
            Outcome::Missed => &mut self.missed,
            Outcome::FalseAlarm => &mut self.false_alarm,
            Outcome::NotRun { .. } => &mut self.not_run,
            Outcome::Broken { .. } => &mut self.broken,
        };
        *count += 1;
    }

    /// Runs in which the watcher was put to the test.
    pub const fn judged(&self) -> u32 {
        self.right + self.misdated + self.unknown + self.wrong + self.missed + self.false_alarm
    }
}

/// The runs of one scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScenarioRow {
    /// Its name.
    pub scenario: String,
    /// What had to be found.
    pub expected: String,
    /// Watched from before the fault.
    pub before: Counts,
    /// Watched from after it.
    pub after: Counts,
    /// Why something was not right, each sentence once.
    pub notes: Vec<String>,
}

/// The runs of one cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CauseRow {
    /// Its id.
    pub cause: String,
    /// How far the onset was from the truth, ms, without sign; watched from before.
    pub onset_error_ms: Option<Spread>,
    /// From the fault to the first verdict that names it, ms; watched from before.
    pub delay_before_ms: Option<Spread>,
    /// From the beginning of the watch to that verdict, ms; watched from after.
    pub delay_after_ms: Option<Spread>,
    /// What that may take: 500 ms and what the definition takes, least and most of its scenarios, ms.
    pub allowed_ms: (f64, f64),
    /// How many were named within that, both ways.
    pub in_time: u32,
    /// Of how many.
    pub named: u32,
}

/// Median and 95th percentile, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half are at most this.
    pub median: f64,
    /// 95 in 100 are at most this.
    pub p95: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { median: at(0.5)?, p95: at(0.95)? })
    }
}

/// How often each cause was named for each: rows are what had to be found, columns what was named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// What was named, in order: causes, `unknown`, `nothing`.
    pub columns: Vec<String>,
    /// For each expected cause a count per column.
    pub rows: Vec<(String, Vec<u32>)>,
}

impl Confusion {
    fn of(cells: &BTreeMap<(String, String), u32>) -> Self {
        // Causes by name, then what is no cause.
        let order = |name: &String| {
            let place = match name.as_str() {
                HEALTHY => 1,
                "unknown" => 2,
                NOTHING => 3,
                _ => 0,
            };
            (place, name.clone())
        };
        let sorted = |names: BTreeSet<&String>| {
            let mut names: Vec<String> = names.into_iter().cloned().collect();
            names.sort_by_key(order);
            names
        };
        let expected = sorted(cells.keys().map(|(expected, _)| expected).collect());
        let columns = sorted(cells.keys().map(|(_, named)| named).collect());
        let rows = expected
            .into_iter()
            .map(|row| {
                let count = |column: &String| {
                    cells.get(&(row.clone(), column.clone())).copied().unwrap_or_default()
                };
                let counts = columns.iter().map(count).collect();
                (row, counts)
            })
            .collect();
        Self { columns, rows }
    }

    /// Whether this is where a row's counts belong.
    pub fn is_right(expected: &str, column: &str) -> bool {
        expected == column || (expected == HEALTHY && column == NOTHING)
    }
}

/// Everything a matrix has to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Version of stallscope; of several, all.
    pub versions: Vec<String>,
    /// Runs, whether or not they could be judged.
    pub runs: u32,
    /// Both ways, all scenarios.
    pub total: Counts,
    /// By scenario, in order of name.
    pub scenarios: Vec<ScenarioRow>,
    /// Both ways together.
    pub confusion: Confusion,
    /// By cause, in order of name.
    pub causes: Vec<CauseRow>,
    /// How long healthy processes were watched, s: healthy scenarios, and others until the fault.
    pub healthy_s: f64,
    /// Onsets given in that time.
    pub false_alarms: u32,
    /// How often a verdict changed its mind on the same stall.
    pub flips: u32,
    /// Runs planned that did not take place, and why, one sentence each.
    pub left_out: Vec<String>,
}

impl Summary {
    /// The sums over `records`.
    pub fn of(records: &[RunRecord]) -> Self {
        let mut summary = Self { runs: records.len() as u32, ..Self::default() };
        let mut versions = BTreeSet::new();
        let mut scenarios: BTreeMap<&str, ScenarioRow> = BTreeMap::new();
        let mut causes: BTreeMap<&str, Figures> = BTreeMap::new();
        let mut cells: BTreeMap<(String, String), u32> = BTreeMap::new();
        for record in records {
            versions.insert(record.version.clone());
            let row = scenarios.entry(&record.scenario).or_insert_with(|| ScenarioRow {
                scenario: record.scenario.clone(),
                expected: record.expected.clone(),
                ..ScenarioRow::default()
            });
            for way in &record.ways {
                summary.total.add(&way.outcome);
                match way.way {
                    Way::Before => row.before.add(&way.outcome),
                    Way::After => row.after.add(&way.outcome),
                }
                note(&mut row.notes, way);
                if !way.outcome.is_judged() {
                    continue;
                }
                summary.healthy_s += way.healthy_s;
                summary.false_alarms += way.alarms;
                summary.flips += way.flips;
                *cells.entry((record.expected.clone(), column(way))).or_default() += 1;
                if record.expected != HEALTHY {
                    causes.entry(&record.expected).or_default().add(record, way);
                }
            }
        }
        summary.versions = versions.into_iter().collect();
        summary.scenarios = scenarios.into_values().collect();
        summary.confusion = Confusion::of(&cells);
        summary.causes = causes.into_iter().map(|(cause, figures)| figures.row(cause)).collect();
        summary
    }

    /// False alarms in an hour of healthy watching; `None` before anything healthy was watched.
    pub fn false_alarms_per_h(&self) -> Option<f64> {
        (self.healthy_s > 0.0).then(|| f64::from(self.false_alarms) * 3_600.0 / self.healthy_s)
    }

    /// Whether every run was right, or could not be run here.
    pub const fn is_fine(&self) -> bool {
        let Counts { right: _, not_run: _, misdated, unknown, wrong, missed, false_alarm, broken } =
            self.total;
        misdated + unknown + wrong + missed + false_alarm + broken == 0
    }
}

/// What was named: what counts against the watcher where it said several things.
fn column(way: &WayRecord) -> String {
    match &way.outcome {
        Outcome::Wrong { cause } => cause.clone(),
        Outcome::Unknown => String::from("unknown"),
        _ => way.named.clone().unwrap_or_else(|| String::from(NOTHING)),
    }
}

fn note(notes: &mut Vec<String>, way: &WayRecord) {
    let why = match &way.outcome {
        Outcome::NotRun { why } => Some(format!("not run: {why}")),
        Outcome::Broken { why } => Some(format!("{}: broken: {why}", way.way.id())),
        Outcome::Right => None,
        outcome => Some(format!("{}: {}", way.way.id(), outcome.id())),
    };
    let more = way.notes.iter().map(|note| format!("{}: {note}", way.way.id()));
    for sentence in why.into_iter().chain(more) {
        if notes.len() < NOTES_MAX && !notes.contains(&sentence) {
            notes.push(sentence);
        }
    }
}

#[derive(Debug, Default)]
struct Figures {
    onset_error_ms: Vec<f64>,
    delay_before_ms: Vec<f64>,
    delay_after_ms: Vec<f64>,
    allowed_ms: Option<(f64, f64)>,
    in_time: u32,
    named: u32,
}

impl Figures {
    fn add(&mut self, record: &RunRecord, way: &WayRecord) {
        let own_ms = super::judge::NAMED_WITHIN.as_secs_f64() * 1e3;
        let ms = own_ms + record.definition_ms;
        let (least, most) = self.allowed_ms.unwrap_or((ms, ms));
        self.allowed_ms = Some((least.min(ms), most.max(ms)));
        self.onset_error_ms.extend(way.onset_error_ms.map(f64::abs));
        match way.way {
            Way::Before => self.delay_before_ms.extend(way.delay_ms),
            Way::After => self.delay_after_ms.extend(way.delay_ms),
        }
        self.named += u32::from(way.in_time.is_some());
        self.in_time += u32::from(way.in_time == Some(true));
    }

    fn row(self, cause: &str) -> CauseRow {
        CauseRow {
            cause: cause.to_owned(),
            onset_error_ms: Spread::of(self.onset_error_ms),
            delay_before_ms: Spread::of(self.delay_before_ms),
            delay_after_ms: Spread::of(self.delay_after_ms),
            allowed_ms: self.allowed_ms.unwrap_or_default(),
            in_time: self.in_time,
            named: self.named,
        }
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
pub(in crate::lab) mod tests;
