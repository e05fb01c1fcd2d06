//! What watching costs, in words.

use stallscope_probes::Reading;

use super::super::units;
use crate::model::{WatcherModel, probe_name};

/// A share of a core: small ones to a tenth of a per cent.
fn cpu(ratio: &Reading<f64>) -> String {
    match ratio.got() {
        Some(ratio) if ratio.is_finite() => format!("{:.1} %", ratio * 100.0),
        _ => String::from("? %"),
    }
}

fn pace(watcher: &WatcherModel) -> Option<String> {
    let hz = watcher.ticks_per_s()?;
    Some(if watcher.slowed() {
        let hz = if hz < 9.95 { format!("{hz:.1}") } else { format!("{hz:.0}") };
        format!("slowed to {hz} Hz")
    } else {
        format!("every {}", units::span_ms(watcher.interval_ms))
    })
}

/// One line, the longest words first.
pub fn short(watcher: &WatcherModel) -> Vec<String> {
    let cpu = cpu(&watcher.cpu_ratio);
    let memory = watcher.rss_bytes.map_or(String::new(), |rss| format!(", {}", units::bytes(rss)));
    let short = format!("watcher {cpu} CPU{memory}");
    let Some(pace) = pace(watcher) else { return vec![short] };
    if watcher.slowed() {
        return vec![
            format!("{short}, {pace} by the budget"),
            format!("{short}, {pace}"),
            format!("watcher {cpu}, {pace}"),
            format!("{cpu}, {pace}"),
        ];
    }
    let shorter = format!("watcher {cpu}{memory}");
    vec![format!("{short}, {pace}"), short, shorter, format!("watcher {cpu}")]
}

/// All that is known of it, one sentence each.
pub fn sentences(watcher: &WatcherModel) -> Vec<String> {
    let budget = if watcher.budget_ratio > 0.0 {
        format!("budget {:.1} %", watcher.budget_ratio * 100.0)
    } else {
        String::from("no budget")
    };
    let all = cpu(&watcher.cpu_ratio);
    let sampling = cpu(&watcher.sampling_cpu_ratio);
    let mut said =
        vec![format!("CPU {all} of a core ({budget}), of which the sampling thread {sampling}")];
    let memory = watcher.rss_bytes.map_or_else(|| String::from("absent"), units::bytes);
    let fds = watcher.open_fds.map_or_else(|| String::from("absent"), |fds| fds.to_string());
    said.push(format!("resident memory {memory}, open fds {fds}"));
    if let Some(pace) = pace(watcher) {
        let asked = units::span_ms(watcher.interval_asked_ms);
        let why = if watcher.slowed() { " by the budget" } else { "" };
        said.push(format!(
            "one tick {pace}{why} (asked for: every {asked}), {} ticks missed",
            watcher.ticks_missed
        ));
    }
    said.extend(watcher.costs.iter().map(|cost| {
        format!(
            "{}: {} a read, every {}",
            probe_name(cost.probe),
            units::span_ns(cost.cost_ns),
            units::span_ns(cost.every_ns)
        )
    }));
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixtures;

    #[test]
    fn the_words_for_what_watching_costs() {
        let calm = fixtures::healthy(1).watcher;
        assert_eq!(
            short(&calm),
            [
                "watcher 0.8 % CPU, 9.0 MiB, every 100 ms",
                "watcher 0.8 % CPU, 9.0 MiB",
                "watcher 0.8 %, 9.0 MiB",
                "watcher 0.8 %"
            ]
        );
        let slowed = WatcherModel { interval_ms: 200.0, ..calm.clone() };
        assert_eq!(short(&slowed)[0], "watcher 0.8 % CPU, 9.0 MiB, slowed to 5.0 Hz by the budget");
        assert_eq!(short(&slowed)[3], "0.8 %, slowed to 5.0 Hz");
        let unread = WatcherModel {
            cpu_ratio: Reading::absent(stallscope_probes::Why::NoPrevious, ""),
            rss_bytes: None,
            interval_ms: 0.0,
            ..calm
        };
        assert_eq!(short(&unread), ["watcher ? % CPU"]);
    }
}
