//! The rules by which a soak is judged. Pure. `docs/soak.md` says them in words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::series::{Point, median, slope};

/// Longest time without an answer while there is load, s.
pub const SILENCE_MAX_S: f64 = 1.0;
/// Most that memory may change, as a share, when it was looked at for [`LONG_S`] or longer.
pub const RSS_CHANGE_MAX: f64 = 0.05;
/// The same for shorter looks, in which the heap of a server that has just begun still settles:
/// they see what leaks with each request, and nothing slow.
pub const RSS_CHANGE_SHORT_MAX: f64 = 0.25;
/// What the broker inside a server keeps at most, KiB: 5 MiB of each of 4 partitions. In a short
/// look it may still be filling.
pub const BROKER_KIB: f64 = 20.0 * 1024.0;
/// From when on memory must be flat, s after warm-up.
pub const LONG_S: f64 = 600.0;
/// Fewest points that a tenth must have.
const TENTH_MIN: usize = 1;
/// Fewest points after warm-up, and the least share of them at which memory must have been read.
const POINTS_MIN: usize = 10;
const READ_SHARE_MIN: f64 = 0.9;
/// Answers that a client may get: an event was taken, or there was no room for it.
const REFUSED: &str = "503";
/// Different errors named in a sentence.
const NAMED_MAX: usize = 4;

/// What clients were told, by all loads together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Requests begun.
    pub requests: u64,
    /// Whole responses.
    pub responses: u64,
    /// Of those, with a status from 200 to 299: events acknowledged.
    pub acknowledged: u64,
    /// Of those, 503: events for which there was no room.
    pub refused: u64,
    /// Requests under way when the loads ended.
    pub unfinished: u64,
    /// Everything else that happened, by kind, with how often.
    pub errors: BTreeMap<String, u64>,
}

/// The part of a load's result that is used.
#[derive(Debug, Deserialize)]
struct LoadResult {
    requests: u64,
    responses: u64,
    accepted_2xx: u64,
    unfinished: u64,
    responses_by_status: BTreeMap<String, u64>,
    errors: Vec<LoadError>,
}

#[derive(Debug, Deserialize)]
struct LoadError {
    kind: String,
    count: u64,
}

impl Told {
    /// Adds the result of one `stallscope load --json`.
    ///
    /// # Errors
    /// When it is none.
    pub fn add(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let load: LoadResult = serde_json::from_slice(json)?;
        self.requests += load.requests;
        self.responses += load.responses;
        self.acknowledged += load.accepted_2xx;
        self.refused += load.responses_by_status.get(REFUSED).copied().unwrap_or_default();
        self.unfinished += load.unfinished;
        for error in load.errors {
            if error.kind != format!("http_{REFUSED}") {
                *self.errors.entry(error.kind).or_default() += error.count;
            }
        }
        Ok(())
    }

    /// Requests of which no client knows what became of them: under way at the end, or broken off.
    pub const fn unknown(&self) -> u64 {
        self.requests.saturating_sub(self.responses)
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Events taken.
    pub accepted: u64,
    /// Events that the broker acknowledged.
    pub delivered: u64,
    /// Events given up.
    pub failed: u64,
}

/// What was seen of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// How long there was load, and how much of that was warm-up, s.
    pub time_s: f64,
    /// See [`Self::time_s`].
    pub warm_up_s: f64,
    /// Most that memory may change, as a share; `None`: by the time looked at.
    pub rss_change_max: Option<f64>,
    /// Whether the broker is inside the process.
    pub has_broker: bool,
    /// Whether that was full at the end of warm-up.
    pub is_broker_full: bool,
    /// Onsets that the watcher gave.
    pub onsets: u32,
    /// Verdicts on stalls that it gave.
    pub verdicts: Vec<String>,
    /// What clients were told.
    pub told: Told,
    /// Longest time without a response, s, or why it is not known.
    pub silence_s: Result<f64, String>,
    /// The server's own last words, or why there are none.
    pub end: Result<End, String>,
    /// Its exit status; `None` when a signal ended it.
    pub exit: Option<i32>,
    /// What was sampled.
    pub points: Vec<Point>,
    /// Why memory could not be read, the last time that was so.
    pub rss_absent: Option<String>,
    /// Open fds before the load, or why they are not known.
    pub fds_before: Result<u64, String>,
    /// Open fds once they had settled after the load.
    pub fds_after: Result<u64, String>,
}

/// What came of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It held.
    Held,
    /// It did not.
    Broken,
    /// Too little is known.
    NotJudged,
}

impl Outcome {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "BROKEN",
            Self::NotJudged => "not judged",
        }
    }
}

/// One rule and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// The figures, in a sentence.
    pub why: String,
}

/// How memory went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Median over the first tenth after warm-up, KiB.
    pub first_kib: f64,
    /// Median over the last tenth, KiB.
    pub last_kib: f64,
    /// From the one to the other, as a share of the first.
    pub change: f64,
    /// Slope of the line through all points after warm-up, KiB a minute.
    pub slope_kib_per_min: f64,
    /// What that comes to over the time looked at, as a share of the first.
    pub drift: f64,
    /// The time looked at, s.
    pub over_s: f64,
}

/// One rule: what came of it, in figures.
type Rule = fn(&Seen) -> (Outcome, String);

/// All rules.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let rules: [(&'static str, Rule); 5] = [
        ("stalls", stalls),
        ("answers", answers),
        ("events", events),
        ("memory", memory_flat),
        ("fds", fds),
    ];
    let judged = rules.into_iter().map(|(rule, judge)| {
        let (outcome, why) = judge(seen);
        Finding { rule, outcome, why }
    });
    judged.collect()
}

fn held_if(holds: bool) -> Outcome {
    if holds { Outcome::Held } else { Outcome::Broken }
}

fn stalls(seen: &Seen) -> (Outcome, String) {
    let mut why = format!("{} onsets, {} verdicts on a stall", seen.onsets, seen.verdicts.len());
    if !seen.verdicts.is_empty() {
        let named = seen.verdicts.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
        why = format!("{why}: {}", named.join(", "));
    }
    (held_if(seen.onsets == 0 && seen.verdicts.is_empty()), why)
}

fn answers(seen: &Seen) -> (Outcome, String) {
    let told = &seen.told;
    if told.responses == 0 {
        return (Outcome::Broken, String::from("no request was answered"));
    }
    if !told.errors.is_empty() {
        let named = told.errors.iter().take(NAMED_MAX);
        let named: Vec<String> = named.map(|(kind, count)| format!("{kind} {count}")).collect();
        return (Outcome::Broken, format!("clients met errors: {}", named.join(", ")));
    }
    match &seen.silence_s {
        Ok(silence_s) => (
            held_if(*silence_s < SILENCE_MAX_S),
            format!("longest silence {silence_s:.1} s, {:.0} answers a second", per_second(seen)),
        ),
        Err(why) => (Outcome::NotJudged, why.clone()),
    }
}

/// Responses a second, over the whole load.
pub fn per_second(seen: &Seen) -> f64 {
    if seen.time_s > 0.0 { seen.told.responses as f64 / seen.time_s } else { 0.0 }
}

/// What a client was told is taken is delivered; and nothing was taken that nobody asked for.
fn events(seen: &Seen) -> (Outcome, String) {
    let end = match &seen.end {
        Ok(end) => end,
        Err(why) => return (Outcome::Broken, why.clone()),
    };
    let told = &seen.told;
    let (acknowledged, unknown) = (told.acknowledged, told.unknown());
    let all = format!(
        "{acknowledged} acknowledged, {} accepted, {} delivered, {} failed",
        end.accepted, end.delivered, end.failed
    );
    let broken = |what: &str| (Outcome::Broken, format!("{what}: {all}"));
    if acknowledged > end.delivered {
        return broken("acknowledged events are lost");
    }
    if end.delivered != end.accepted || end.failed != 0 {
        return broken("accepted events are not delivered");
    }
    if end.accepted > acknowledged + unknown {
        return broken(&format!("only {unknown} requests have no known end"));
    }
    if seen.exit != Some(0) {
        return broken("the exit status is not 0");
    }
    if acknowledged == 0 {
        return broken("no event was acknowledged");
    }
    (Outcome::Held, all)
}

/// How memory went after warm-up, or why that is not known.
pub fn memory(seen: &Seen) -> Result<Memory, String> {
    let after = |point: &&Point| point.at_s >= seen.warm_up_s && point.at_s <= seen.time_s;
    let looks = seen.points.iter().filter(after).count();
    let read: Vec<(f64, f64)> = seen
        .points
        .iter()
        .filter(after)
        .filter_map(|point| point.rss_kib.map(|rss| (point.at_s, rss)))
        .collect();
    if (read.len() as f64) < looks as f64 * READ_SHARE_MIN {
        let why = seen.rss_absent.as_deref().unwrap_or("the process was gone");
        return Err(format!("memory was read {} times of {looks}: {why}", read.len()));
    }
    if read.len() < POINTS_MIN {
        return Err(format!("memory was read {} times only after warm-up", read.len()));
    }
    let over_s = seen.time_s - seen.warm_up_s;
    let tenth = (read.len() / 10).max(TENTH_MIN);
    let level = |points: &[(f64, f64)]| {
        median(&mut points.iter().map(|point| point.1).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (first_kib, last_kib) = (level(&read[..tenth]), level(&read[read.len() - tenth..]));
    let slope = slope(&read).ok_or("memory was read at one instant only")?;
    if first_kib <= 0.0 {
        return Err(String::from("memory was said to be none"));
    }
    Ok(Memory {
        first_kib,
        last_kib,
        change: last_kib / first_kib - 1.0,
        slope_kib_per_min: slope * 60.0,
        drift: slope * over_s / first_kib,
        over_s,
    })
}

/// Most that memory may change from `first_kib`, as a share, and that in words.
fn change_max(seen: &Seen, first_kib: f64) -> (f64, String) {
    let is_long = seen.time_s - seen.warm_up_s >= LONG_S;
    let share = match seen.rss_change_max {
        Some(asked) => return (asked, format!("{:.0} %", asked * 100.0)),
        None if is_long => RSS_CHANGE_MAX,
        None => RSS_CHANGE_SHORT_MAX,
    };
    let percent = share * 100.0;
    // In a short look it may fill up again: its partitions are not equally full.
    if seen.has_broker && !(is_long && seen.is_broker_full) {
        let mib = BROKER_KIB / 1024.0;
        let most = format!("{percent:.0} % and the {mib:.0} MiB that the broker inside may take");
        return (share + BROKER_KIB / first_kib, most);
    }
    (share, format!("{percent:.0} %"))
}

fn memory_flat(seen: &Seen) -> (Outcome, String) {
    let memory = match memory(seen) {
        Ok(memory) => memory,
        Err(why) => return (Outcome::NotJudged, why),
    };
    let (most, words) = change_max(seen, memory.first_kib);
    let why = format!(
        "{:.1} to {:.1} MiB ({:+.1} %), {:+.0} KiB a minute ({:+.1} % in all); at most {words}",
        memory.first_kib / 1024.0,
        memory.last_kib / 1024.0,
        memory.change * 100.0,
        memory.slope_kib_per_min,
        memory.drift * 100.0,
    );
    (held_if(memory.change.abs() <= most && memory.drift.abs() <= most), why)
}

fn fds(seen: &Seen) -> (Outcome, String) {
    match (&seen.fds_before, &seen.fds_after) {
        (Ok(before), Ok(after)) => {
            (held_if(after <= before), format!("{before} before the load, {after} after it"))
        }
        (Err(why), _) | (_, Err(why)) => (Outcome::NotJudged, why.clone()),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
