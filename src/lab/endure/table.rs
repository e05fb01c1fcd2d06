//! Soaks of servers as text and as Markdown. Pure.

use std::fmt::Write as _;

use super::judge::Outcome;
use super::record::{Endured, Figures};
use crate::lab::table::rows;

/// Columns: what they are called, and how they are had.
type Column = (&'static str, fn(&Figures) -> Option<String>);
const COLUMNS: [Column; 9] = [
    ("answers/s", |figures| Some(format!("{:.0}", figures.responses_per_s))),
    ("silence, s", |figures| Some(format!("{:.1}", figures.silence_s?))),
    ("acknowledged", |figures| Some(figures.told.acknowledged.to_string())),
    ("delivered", |figures| Some(figures.end?.delivered.to_string())),
    ("refused", |figures| Some(figures.told.refused.to_string())),
    ("RSS, MiB", |figures| {
        let memory = figures.memory?;
        Some(format!("{:.1} → {:.1}", memory.first_kib / 1024.0, memory.last_kib / 1024.0))
    }),
    ("change", |figures| Some(format!("{:+.1} %", figures.memory?.change * 100.0))),
    ("fds", |figures| Some(format!("{} → {}", figures.fds_before?, figures.fds_after?))),
    ("CPU, cores", |figures| Some(format!("{:.2}", figures.cpu_cores?))),
];

fn cells(one: &Endured) -> Vec<String> {
    let result = match (one.is_fine(), one.is_broken()) {
        (true, _) => "fine",
        (false, true) => "BROKEN",
        (false, false) => "not judged",
    };
    let mut cells = vec![one.stack.clone(), result.to_owned()];
    cells.extend(COLUMNS.map(|(_, value)| {
        one.figures.as_ref().and_then(value).unwrap_or_else(|| String::from("-"))
    }));
    cells
}

fn heads() -> Vec<String> {
    let heads = ["stack", "result"].into_iter().chain(COLUMNS.map(|(name, _)| name));
    heads.map(str::to_owned).collect()
}

/// What a reader has to know besides the figures.
fn sentences(one: &Endured) -> Vec<String> {
    let wrong = one.findings.iter().filter(|finding| finding.outcome != Outcome::Held);
    let wrong = wrong.map(|finding| {
        format!("{}: {}: {}: {}", one.stack, finding.rule, finding.outcome.word(), finding.why)
    });
    let error = one.error.iter().map(|error| format!("{}: {error}", one.stack));
    error.chain(wrong).collect()
}

/// A table, and a sentence for whatever did not hold.
pub fn text(all: &[Endured]) -> String {
    let mut text = String::new();
    let mut table = vec![heads()];
    table.extend(all.iter().map(cells));
    rows(&mut text, &table, 2);
    for sentence in all.iter().flat_map(sentences) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{sentence}");
    }
    text
}

/// The same with every rule and its figures.
pub fn markdown(all: &[Endured]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = String::from("# A soak of the servers\n\n");
    let heads = heads();
    text += &line(&heads);
    text += &line(&vec![String::from("---"); heads.len()]);
    for one in all {
        text += &line(&cells(one));
    }
    for one in all {
        let _ = write!(text, "\n## {}\n\n", one.stack);
        if let Some(error) = &one.error {
            let _ = writeln!(text, "Not soaked to the end: {error}\n");
        }
        if let Some(figures) = &one.figures {
            let (time, warm_up) = (figures.time_s, figures.warm_up_s);
            let server = &figures.server;
            let _ = write!(text, "`{server}`, {time:.0} s of load, {warm_up:.0} s warm-up");
            if let (Some(usual), Some(most)) = (figures.waited_for_cpu, figures.waited_for_cpu_max)
            {
                let (usual, most) = (usual * 100.0, most * 100.0);
                let _ = write!(
                    text,
                    "; its main thread waited for a CPU {usual:.0} % of the time, {most:.0} % at worst"
                );
            }
            text.push_str("\n\n");
        }
        for finding in &one.findings {
            let (rule, word) = (finding.rule, finding.outcome.word());
            let _ = writeln!(text, "- {rule}: {word}: {}", finding.why);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::judge::{End, Seen, Told};
    use super::super::series::Point;
    use super::*;

    fn all() -> Vec<Endured> {
        let point = |second| Point {
            at_s: f64::from(second),
            rss_kib: Some(51_200.0),
            cpu_cores: Some(0.5),
            waited_for_cpu: Some(f64::from(second) / 100.0),
            ..Point::default()
        };
        let told = Told { requests: 600, responses: 600, acknowledged: 590, ..Told::default() };
        let told = Told { refused: 10, ..told };
        let seen = Seen {
            time_s: 60.0,
            warm_up_s: 10.0,
            rss_change_max: None,
            has_broker: true,
            is_broker_full: false,
            onsets: 0,
            verdicts: Vec::new(),
            told,
            silence_s: Ok(0.1),
            end: Ok(End { accepted: 590, delivered: 590, failed: 0 }),
            exit: Some(0),
            points: (0..60).map(point).collect(),
            rss_absent: None,
            fds_before: Ok(20),
            fds_after: Ok(20),
        };
        let server = String::from("serve tokio");
        let leaky =
            Seen { fds_after: Ok(84), silence_s: Err(String::from("no page")), ..seen.clone() };
        vec![
            Endured::of("tokio", server.clone(), seen),
            Endured::of("tokio-hyper", server, leaky),
            Endured::failed("tokio-uring", String::from("io_uring is forbidden | here")),
        ]
    }

    #[test]
    fn a_table_says_what_did_not_hold() {
        insta::assert_snapshot!(text(&all()));
    }

    #[test]
    fn a_page_has_every_rule() {
        insta::assert_snapshot!(markdown(&all()));
    }
}
