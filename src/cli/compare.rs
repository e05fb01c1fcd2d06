//! `stallscope compare`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::EXIT_OK;
use super::document::{self, Format, Place};
use crate::report::compare::{self, Labels};
use crate::watch::event::Incident;
use crate::watch::replay;

/// Compare two recordings: before with after, one runtime with another.
///
/// Healthy time is compared with healthy time and stalls with stalls: medians with quartiles and
/// ratios, lines over time, differential flamegraphs; and what makes the comparison unfair. Markdown
/// and JSON go to stdout where no file is named.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first recording (`watch --record FILE`): before
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second recording: after
    #[arg(value_name = "B")]
    b: PathBuf,
    /// What the first is called; default: its file's name
    #[arg(long, value_name = "NAME")]
    label_a: Option<String>,
    /// What the second is called; default: its file's name
    #[arg(long, value_name = "NAME")]
    label_b: Option<String>,
    #[command(flatten)]
    document: document::Output,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (a, b) = (load(&args.a)?, load(&args.b)?);
    let labels = labels(args);
    let beside = args.a.with_file_name(format!("{}-{}", stem(&args.a), stem(&args.b)));
    let place = args.document.place(&beside, &[&args.a, &args.b])?;
    let bytes = match args.document.format() {
        Format::Html => compare::html(&a, &b, &labels),
        Format::Md => compare::markdown(&a, &b, &labels).into_bytes(),
        Format::Json => compare::json(&a, &b, &labels),
    };
    document::write(&place, &bytes)?;
    if let Place::File(path) = &place {
        println!("{}", compare::summary(&a, &b, &labels));
        println!("comparison: {}", path.display());
    }
    Ok(ExitCode::from(EXIT_OK))
}

fn load(path: &Path) -> anyhow::Result<Incident> {
    replay::load(path).with_context(|| format!("cannot read {}", path.display()))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The names given, or those of the files; two that are the same are told apart.
fn labels(args: &Args) -> Labels {
    let (stem_a, stem_b) = (stem(&args.a), stem(&args.b));
    let a = args.label_a.clone().unwrap_or(stem_a);
    let b = args.label_b.clone().unwrap_or(stem_b);
    if a == b { Labels { a: format!("{a} (A)"), b: format!("{b} (B)") } } else { Labels { a, b } }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_runs_have_different_names() {
        let cases: [(&[&str], &str, &str); 4] = [
            (&["old.stallrec", "new.stallrec"], "old", "new"),
            (&["x/run.stallrec", "y/run.stallrec"], "run (A)", "run (B)"),
            (&["a", "b", "--label-a", "tokio"], "tokio", "b"),
            (&["a", "b", "--label-a", "b"], "b (A)", "b (B)"),
        ];
        for (line, a, b) in cases {
            let cli = Cli::parse_from([&["compare"], line].concat());
            let labels = labels(&cli.args);
            assert_eq!((labels.a.as_str(), labels.b.as_str()), (a, b), "{line:?}");
        }
    }
}
