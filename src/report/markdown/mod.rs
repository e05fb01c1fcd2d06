//! The report as Markdown (GitHub's): good enough to paste into an issue or a post-mortem.
//!
//! Text from the process is printable first and then escaped, or stands in a fence that it cannot
//! close.

pub(super) mod measured;
mod method;
mod seen;
mod story;
pub(crate) mod text;

use std::fmt::Write as _;

use super::facts::Facts;
use super::paragraph::paragraph;
use super::verdict;

/// The whole document.
pub(super) fn assemble(facts: &Facts<'_>) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# {}\n\n{}",
        text::escaped(&verdict::title(facts)),
        text::escaped(&paragraph(facts))
    );
    story::write(&mut out, facts);
    measured::figures(&mut out, facts);
    seen::threads(&mut out, facts);
    seen::stacks(&mut out, facts);
    measured::profiles(&mut out, facts);
    seen::rings(&mut out, facts);
    seen::resources(&mut out, facts);
    method::write(&mut out, facts);
    out
}
