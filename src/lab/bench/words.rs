//! Figures in words, the same in every form. Pure.

use std::fmt::Write as _;

use stallscope_probes::Reading;

use super::record::RunRecord;
use super::stats::Spread;
use super::summary::{Figure, Summary};
use crate::profile::printable::printable;
use crate::report::number;

/// Characters shown of a sentence.
const TEXT_CHARS_MAX: usize = 400;
/// Characters shown of a command.
const COMMAND_CHARS_MAX: usize = 2_000;
/// What stands for a value that is not there.
pub(super) const NO_VALUE: &str = "–";

/// Text that may be hostile, made harmless for terminals; HTML and Markdown escape it besides.
pub(super) fn shown(text: &str) -> String {
    printable(text, TEXT_CHARS_MAX)
}

/// As [`shown`], of a command.
pub(super) fn shown_command(text: &str) -> String {
    printable(text, COMMAND_CHARS_MAX)
}

/// A value in its figure's unit.
pub(super) fn value(figure: &Figure, value: f64) -> String {
    number(value / figure.shown_by)
}

/// `1,234 (1,200–1,250)`; of one round the value alone.
pub(super) fn spread(figure: &Figure, reading: &Reading<Spread>) -> String {
    match reading {
        Reading::Got(spread) if spread.rounds < 2 => value(figure, spread.median),
        Reading::Got(spread) => format!(
            "{} ({}–{})",
            value(figure, spread.median),
            value(figure, spread.min),
            value(figure, spread.max)
        ),
        Reading::Absent(_) => NO_VALUE.to_owned(),
    }
}

/// `× 0.98 (0.96–1.01)`.
pub(super) fn ratio(ratio: Option<&Spread>) -> String {
    match ratio {
        None => NO_VALUE.to_owned(),
        Some(spread) if spread.rounds < 2 => format!("× {:.2}", spread.median),
        Some(spread) => format!("× {:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max),
    }
}

/// What became of the records of a row.
pub(super) fn records(records: Option<(u64, u64)>) -> String {
    match records {
        None => NO_VALUE.to_owned(),
        Some((acknowledged, in_kafka)) if in_kafka < acknowledged => {
            format!("{} LOST of {acknowledged}", acknowledged - in_kafka)
        }
        Some((acknowledged, _)) => format!("all {} in Kafka", number(acknowledged as f64)),
    }
}

/// One run in one line.
pub(super) fn run_line(label: &str, record: &RunRecord) -> String {
    let mut line = shown(label);
    // Writing to a String cannot fail.
    if let Some(run) = record.measured() {
        let _ = write!(line, ": {}/s", number(run.load.rate));
        if let Some(us) = run.cpu_us_per_request.got() {
            let _ = write!(line, ", {} µs CPU per request", number(*us));
        }
        if let Some(rate) = run.saturation.as_ref().and_then(|found| found.rate_per_s) {
            let _ = write!(line, ", carries {}/s", number(rate as f64));
        }
    }
    for problem in record.problems() {
        let _ = write!(line, "; {}", shown(&problem));
    }
    line
}

/// A verdict in a few words.
pub(super) fn title(summary: &Summary) -> String {
    let (cells, rounds) = (summary.rows.len(), summary.plan.rounds);
    let plural =
        |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", plural(cells as u64, "cell"), plural(u64::from(rounds), "round"))
}

/// What is wrong with the study as a whole; nothing when it is fine.
pub(super) fn verdict(summary: &Summary) -> String {
    let lost: u64 = summary
        .rows
        .iter()
        .filter_map(|row| row.records)
        .map(|(acknowledged, in_kafka)| acknowledged.saturating_sub(in_kafka))
        .sum();
    let errors: u64 = summary.rows.iter().map(|row| row.errors).sum();
    let failed: u32 = summary.rows.iter().map(|row| row.failed).sum();
    let mut said = Vec::new();
    if lost > 0 {
        said.push(format!("{lost} acknowledged events lost"));
    }
    if errors > 0 {
        said.push(format!("{errors} errors"));
    }
    if failed > 0 {
        said.push(format!("{failed} runs failed"));
    }
    if summary.missing > 0 {
        said.push(format!("{} runs missing", summary.missing));
    }
    if said.is_empty() && !summary.is_fine() {
        said.push(String::from("something does not add up"));
    }
    match (said.is_empty(), summary.rows.iter().any(|row| row.records.is_some())) {
        (false, _) => said.join(", "),
        (true, true) => String::from("no errors, every acknowledged event is in Kafka"),
        (true, false) => String::from("no errors"),
    }
}

/// How a run goes, in sentences.
pub(super) fn method(summary: &Summary) -> Vec<String> {
    let plan = &summary.plan;
    let mut said = vec![
        format!(
            "Runs take turns: in each of {} rounds every cell is run once, in the order of the table (A B A B …). \
             What the machine does meanwhile befalls neighbours alike; ratios are taken within a round, and \
             their median is told. In brackets: least and greatest of all rounds.",
            plan.rounds
        ),
        format!(
            "A run: a new server process; a few first requests; {}{} s of warm-up; {} s of measured load in a closed \
             loop; SIGTERM. The load generator and the server share the machine.",
            if plan.idle_connections > 0 { "connections held open; " } else { "" },
            number(plan.warm_up_ms as f64 / 1e3),
            number(plan.time_ms as f64 / 1e3),
        ),
        String::from(
            "CPU per request: user and system time of the server's process group during the measured load and until \
             its last record was delivered, divided by the responses. With Kafka embedded the broker's time is in \
             it. It is read in clock ticks of 10 ms.",
        ),
        String::from(
            "Latencies are those of whole responses in the closed loop, in which a slow server is asked less: \
             they compare servers under equal connections, not at an equal rate.",
        ),
        String::from(
            "Records: requests answered 2xx, in all loads of a run, against the records that a consumer finds in \
             the topic: by the partitions' offsets, and on brokers of one's own by reading every record.",
        ),
    ];
    if plan.idle_connections > 0 {
        said.push(format!(
            "Memory per connection: growth of the resident memory, counted page by page, while up to {} kept \
             connections are open and each is used about once, divided by their number.",
            plan.idle_connections
        ));
    }
    if let Some(saturation) = plan.saturation {
        said.push(format!(
            "Highest rate in time: open loop, {} s for each rate, up by 1.4 until one is too high, then halving to 4 %. \
             Carried is a rate of which 98 % is reached with a p99 under {} ms (from the instant at which a \
             request was due) and without an error; one missed narrowly is tried twice.",
            number(saturation.step_ms as f64 / 1e3),
            number(saturation.p99_max_us as f64 / 1e3)
        ));
    }
    said
}

/// Where and when: name, value.
pub(super) fn machine(summary: &Summary) -> Vec<(&'static str, String)> {
    let machine = &summary.machine;
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    let cpu = machine.cpu.as_deref().unwrap_or("unknown CPU");
    let cpus = machine.cpus.map_or_else(|| String::from("?"), |count| count.to_string());
    let load =
        machine.load_average.map_or_else(String::new, |load| format!(", load average {load:.2}"));
    let build = summary.plan.build.get(..12).unwrap_or_default();
    vec![
        ("Machine", format!("{cpus} × {}, {} GiB{load}", shown(cpu), number(gib))),
        ("Kernel", shown(&machine.kernel)),
        ("Date", shown(&machine.date)),
        (
            "Build",
            format!(
                "stallscope {} ({}, {build}), librdkafka {}",
                shown(&machine.version),
                if machine.is_release { "release" } else { "debug" },
                shown(&machine.librdkafka)
            ),
        ),
        ("Command", shown_command(&machine.command)),
    ]
}
