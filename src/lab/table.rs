//! The matrix as text. Pure.

use std::fmt::Write as _;

use super::catalogue::{Expected, Need, Place, Scenario, Victim};
use super::record::{HEALTHY, Outcome, RunRecord};
use super::tally::{Confusion, Counts, Spread, Summary};

/// Rows of equal columns, two spaces apart; numbers to the right.
pub(super) fn rows(table: &mut String, rows: &[Vec<String>], left: usize) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = width.saturating_sub(cell.chars().count());
            let (before, after) = if column < left { (0, gap) } else { (gap, 0) };
            // Writing to a String cannot fail.
            let _ = write!(line, "{:before$}{cell}{:after$}  ", "", "");
        }
        let _ = writeln!(table, "{}", line.trim_end());
    }
}

fn cells(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// `stallscope lab list`.
pub fn list<'a>(scenarios: impl Iterator<Item = &'a Scenario>) -> String {
    let mut table = String::new();
    let mut all = vec![cells(&["scenario", "expected", "place", "needs", "what happens"])];
    for scenario in scenarios {
        all.push(vec![
            scenario.name.to_owned(),
            expected(scenario.expected).to_owned(),
            place(scenario.place).to_owned(),
            needs(scenario.needs),
            scenario.what.to_owned(),
        ]);
    }
    rows(&mut table, &all, usize::MAX);
    table
}

/// Id of what must be found.
pub const fn expected(expected: Expected) -> &'static str {
    match expected {
        Expected::Stall(cause) => cause.id(),
        Expected::Healthy => HEALTHY,
    }
}

/// Where it runs, in a word.
pub const fn place(place: Place) -> &'static str {
    match place {
        Place::Host => "host",
        Place::Netns(_) => "namespace",
    }
}

/// What runs, in words.
pub fn victim(victim: Victim) -> String {
    match victim {
        Victim::Lab(name) => format!("lab-victim {name}"),
        Victim::Serve(arguments) => format!("serve {}", arguments.join(" ")),
    }
}

/// What it takes, in words.
pub fn needs(needs: &[Need]) -> String {
    let words: Vec<String> = needs.iter().map(|need| one_need(*need)).collect();
    if words.is_empty() { String::from("-") } else { words.join(", ") }
}

/// One thing it takes, in words.
pub fn one_need(need: Need) -> String {
    match need {
        Need::Root => String::from("root"),
        Need::Cgroup(controller) => format!("cgroup {controller}"),
        Need::HostChange(what) => format!("to change {what}"),
        Need::Program(program, _) => program.to_owned(),
        Need::Conntrack => String::from("conntrack"),
    }
}

/// One run, a few lines.
pub fn run(record: &RunRecord) -> String {
    let mut text = String::new();
    for way in &record.ways {
        let _ = write!(text, "{} {}, {}: ", record.scenario, record.rep, way.way.id());
        let _ = match &way.outcome {
            Outcome::Wrong { cause } => write!(text, "wrong, {cause} was named"),
            Outcome::NotRun { why } => write!(text, "not run: {why}"),
            Outcome::Broken { why } => write!(text, "broken: {why}"),
            outcome => write!(text, "{}", outcome.id()),
        };
        if let (Some(named), Some(confidence)) = (&way.named, &way.confidence) {
            let _ = write!(text, "; named {named} ({confidence})");
        }
        if let Some(error_ms) = way.onset_error_ms {
            let _ = write!(text, "; onset {error_ms:+.0} ms from the truth");
        }
        if let Some(delay_ms) = way.delay_ms {
            let late = if way.in_time == Some(false) { ", late" } else { "" };
            let _ = write!(text, "; named after {delay_ms:.0} ms{late}");
        }
        text.push('\n');
        for note in &way.notes {
            let _ = writeln!(text, "  {note}");
        }
    }
    text
}

/// `stallscope lab matrix`.
pub fn summary(summary: &Summary) -> String {
    let mut text = String::new();
    scenarios(&mut text, summary);
    confusion(&mut text, &summary.confusion);
    causes(&mut text, summary);
    health(&mut text, summary);
    for left_out in &summary.left_out {
        let _ = writeln!(text, "left out: {left_out}");
    }
    text
}

/// Columns of counts: what they are called, and how they are had.
type Column = (&'static str, fn(&Counts) -> u32);

/// The columns of [`Counts`], in order.
pub const COLUMNS: [Column; 8] = [
    ("right", |counts| counts.right),
    ("misdated", |counts| counts.misdated),
    ("unknown", |counts| counts.unknown),
    ("wrong", |counts| counts.wrong),
    ("missed", |counts| counts.missed),
    ("false alarm", |counts| counts.false_alarm),
    ("not run", |counts| counts.not_run),
    ("broken", |counts| counts.broken),
];

fn scenarios(text: &mut String, summary: &Summary) {
    let mut table = vec![cells(&["scenario", "expected", "watched from"])];
    table[0].extend(COLUMNS.map(|(name, _)| name.to_owned()));
    for row in &summary.scenarios {
        let mut name = row.scenario.as_str();
        let mut expected = row.expected.as_str();
        for (way, counts) in [("before", &row.before), ("after", &row.after)] {
            let mut line = cells(&[name, expected, way]);
            line.extend(COLUMNS.map(|(_, count)| zero_as_dot(count(counts))));
            table.push(line);
            (name, expected) = ("", "");
        }
    }
    let mut total = cells(&["all", "", ""]);
    total.extend(COLUMNS.map(|(_, count)| zero_as_dot(count(&summary.total))));
    table.push(total);
    rows(text, &table, 3);
    for row in &summary.scenarios {
        for note in &row.notes {
            let _ = writeln!(text, "{}, {note}", row.scenario);
        }
    }
    text.push('\n');
}

fn zero_as_dot(count: u32) -> String {
    if count == 0 { String::from(".") } else { count.to_string() }
}

fn confusion(text: &mut String, confusion: &Confusion) {
    let _ = writeln!(
        text,
        "expected (rows) and named (columns by number, the right one in brackets), both ways"
    );
    let mut table = vec![cells(&[""])];
    table[0].extend((1..=confusion.columns.len()).map(|number| number.to_string()));
    for (expected, counts) in &confusion.rows {
        let mut line = vec![expected.clone()];
        line.extend(confusion.columns.iter().zip(counts).map(|(column, count)| {
            let own = Confusion::is_right(expected, column);
            if own { format!("[{count}]") } else { zero_as_dot(*count) }
        }));
        table.push(line);
    }
    rows(text, &table, 1);
    for (number, name) in confusion.columns.iter().enumerate() {
        let _ = writeln!(text, "{:>4}  {name}", number + 1);
    }
    text.push('\n');
}

fn causes(text: &mut String, summary: &Summary) {
    let _ = writeln!(text, "ms, median / 95th percentile; watched from before, and from after");
    let head = ["cause", "onset error", "named, before", "named, after", "allowed", "in time"];
    let mut table = vec![cells(&head)];
    for row in &summary.causes {
        table.push(vec![
            row.cause.clone(),
            spread(row.onset_error_ms),
            spread(row.delay_before_ms),
            spread(row.delay_after_ms),
            allowed(row.allowed_ms),
            format!("{} of {}", row.in_time, row.named),
        ]);
    }
    rows(text, &table, 1);
    text.push('\n');
}

/// Median and 95th percentile, or that there are none.
pub fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(|| String::from("-"), |it| format!("{:.0} / {:.0}", it.median, it.p95))
}

/// What a verdict may take: one number, or least and most where scenarios differ.
pub fn allowed((least_ms, most_ms): (f64, f64)) -> String {
    if most_ms > least_ms {
        format!("{least_ms:.0} to {most_ms:.0}")
    } else {
        format!("{most_ms:.0}")
    }
}

fn health(text: &mut String, summary: &Summary) {
    let _ = writeln!(
        text,
        "{} runs; {} false alarms in {:.1} min of healthy watching{}; {} verdicts changed",
        summary.runs,
        summary.false_alarms,
        summary.healthy_s / 60.0,
        summary
            .false_alarms_per_h()
            .map_or_else(String::new, |rate| format!(" ({rate:.1} an hour)")),
        summary.flips
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::catalogue;
    use crate::lab::tally::tests::mixed;

    #[test]
    fn tables_line_up() {
        let text = super::summary(&Summary::of(&mixed()));
        insta::assert_snapshot!(text, @r"
        scenario  expected        watched from  right  misdated  unknown  wrong  missed  false alarm  not run  broken
        b         fd-exhausted    before            .         .        .      .       .            .        .       1
                                  after             .         .        .      .       .            .        .       .
        c         conntrack-full  before            .         .        .      .       .            .        1       .
                                  after             .         .        .      .       .            .        .       .
        kafka-a   kafka-slow      before            1         .        .      1       .            .        .       .
                                  after             1         .        1      .       1            .        .       .
        twin      healthy         before            .         .        .      .       .            1        .       .
                                  after             1         .        .      .       .            .        .       .
        all                                         3         .        1      1       1            1        1       1
        b, before: broken: the victim died
        c, not run: the victim died
        kafka-a, after: said unknown (possible): <b>
        kafka-a, before: wrong
        kafka-a, after: missed
        kafka-a, after: unknown
        twin, before: false-alarm

        expected (rows) and named (columns by number, the right one in brackets), both ways
                    1    2  3    4
        kafka-slow  1  [2]  1    1
        healthy     .    .  1  [1]
           1  kafka-queue-full
           2  kafka-slow
           3  unknown
           4  nothing

        ms, median / 95th percentile; watched from before, and from after
        cause       onset error  named, before  named, after  allowed  in time
        kafka-slow      40 / 40      900 / 900   1600 / 1600     1500   1 of 2

        7 runs; 2 false alarms in 60.0 min of healthy watching (2.0 an hour); 1 verdicts changed
        ");
    }

    #[test]
    fn a_run_says_what_came_of_it() {
        let text: String = mixed().iter().map(run).collect();
        insta::assert_snapshot!(text, @r"
        kafka-a 0, before: right; onset -40 ms from the truth; named after 900 ms
        kafka-a 0, after: right; named after 1600 ms, late
          said unknown (possible): <b>
        kafka-a 0, before: wrong, kafka-queue-full was named
        kafka-a 0, after: missed
        kafka-a 0, after: unknown
        twin 0, before: false-alarm
        twin 0, after: right
        b 0, before: broken: the victim died
        c 0, before: not run: the victim died
        ");
    }

    #[test]
    fn every_scenario_is_listed() {
        let text = list(catalogue::all());
        assert_eq!(text.lines().count(), 1 + catalogue::all().count());
    }
}
