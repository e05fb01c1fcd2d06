//! A study: servers against each other, under conditions that are crossed with each other, in runs
//! that take turns.
//!
//! ```text
//! plan       what is compared: axes, cells; what each is started with
//! order      which run comes when, which are over already
//! search     the next rate of a search for the highest one a server carries
//! stats      medians with spread, ratios within a round
//! record     what came of one run
//! summary    what came of all of them, cell by cell
//! words, table, page, plots, json     the summary as Markdown, as a page, as data
//!                        (all above: pure; below: processes, files, brokers)
//! machine    where it all took place
//! kafka      topics, and what is in them
//! usage      CPU time and memory of a server's process group
//! stage, run     one run
//! study      all runs: kept one by one, gone on with after an end
//! ```

mod axes;
mod json;
mod kafka;
mod machine;
mod order;
mod page;
pub mod plan;
mod plots;
pub mod record;
mod run;
pub mod search;
mod stage;
mod stats;
pub mod study;
pub mod summary;
mod table;
mod usage;
mod words;

pub use machine::{Machine, build_hash};
pub use plan::Plan;
pub use study::{Progress, Study};
pub use summary::Summary;

/// The study as Markdown.
pub fn markdown(summary: &Summary) -> String {
    table::markdown(summary)
}

/// The study as one page that opens from disk without a network.
pub fn html(summary: &Summary) -> Vec<u8> {
    page::page(summary)
}

/// The study as one JSON object.
pub fn json(summary: &Summary) -> serde_json::Value {
    json::json(summary)
}

/// One run in one line.
pub fn run_line(label: &str, record: &record::RunRecord) -> String {
    words::run_line(label, record)
}
