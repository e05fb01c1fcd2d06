//! What every output says in the same words. Text from the process is passed on as it came: whoever
//! shows it makes it harmless.

use super::event::Anchor;
use crate::diagnose::verdict::{Link, Part, Verdict};

/// What can no longer be known, one sentence each: never nothing for a stall that was there at the
/// first look, unless the server itself recorded its beginning (which then lies before that look).
pub fn unknowable(verdict: &Verdict, anchor: Anchor) -> Vec<&str> {
    let dated = verdict.onset_ns.is_some_and(|onset_ns| onset_ns < anchor.mono_ns);
    if verdict.unknowable.is_empty() && verdict.before_watch && !dated {
        return vec!["when it began: it was so when watching began"];
    }
    verdict.unknowable.iter().map(String::as_str).collect()
}

/// The chain in one sentence, oldest first: `First … (12:00:01.000), then … (12:00:02.000).` `None`
/// without one.
pub fn chain(verdict: &Verdict, anchor: Anchor) -> Option<String> {
    let told = |(at, link): (usize, &Link)| {
        let order = if at == 0 { "First" } else { "then" };
        let what = link.what.trim_end_matches('.');
        format!("{order} {what} ({})", anchor.clock_time(link.at_ns))
    };
    let links: Vec<String> = verdict.chain.iter().enumerate().map(told).collect();
    (!links.is_empty()).then(|| format!("{}.", links.join(", ")))
}

/// The part of an event in a stall, in one word.
pub const fn part(part: Part) -> &'static str {
    match part {
        Part::Cause => "cause",
        Part::Consequence => "consequence",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::world::{Kind, Phase, run};

    const ANCHOR: Anchor = Anchor { mono_ns: 5_000, real_ns: 0 };

    fn stalled() -> Verdict {
        let kind = Kind { ring: true, page: true, rights: true };
        run(kind, &[(Phase::Busy, 60), (Phase::Yield, 60)]).verdicts.pop().unwrap()
    }

    #[test]
    fn a_stall_that_was_there_at_the_first_look_says_what_cannot_be_known() {
        let since = |onset_ns, before_watch| Verdict {
            onset_ns,
            before_watch,
            unknowable: Vec::new(),
            ..stalled()
        };
        let said = |verdict: &Verdict| unknowable(verdict, ANCHOR).join("|");
        let words = "when it began: it was so when watching began";
        assert_eq!(said(&since(Some(5_001), true)), words);
        assert_eq!(said(&since(None, true)), words);
        assert_eq!(said(&since(Some(4_000), true)), "", "the server recorded it");
        assert_eq!(said(&since(Some(5_001), false)), "");
        let own = vec![String::from("which task"), String::from("when")];
        let named = Verdict { unknowable: own, ..since(Some(5_001), true) };
        assert_eq!(said(&named), "which task|when", "the diagnosis knows better");
    }

    #[test]
    fn a_chain_is_told_in_its_order() {
        let link = |at_ns, what: &str| Link { at_ns, what: what.into(), part: Part::Cause };
        let mut verdict = Verdict { chain: Vec::new(), ..stalled() };
        assert_eq!(chain(&verdict, ANCHOR), None);
        verdict.chain = vec![link(5_000, "the ring filled up."), link(2_000_005_000, "it slept")];
        assert_eq!(
            chain(&verdict, ANCHOR).unwrap(),
            "First the ring filled up (00:00:00.000), then it slept (00:00:02.000)."
        );
    }
}
