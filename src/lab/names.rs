//! Names as they are typed: patterns, and what was perhaps meant. Pure.

/// Likeness from which a name may be what was meant (Jaro and Winkler, 0 to 1): the value that clap
/// takes for its own suggestions is 0.7, with many false ones among names that share their words.
const LIKENESS_MIN: f64 = 0.8;
/// How much less alike than the best a suggestion may be.
const LIKENESS_SPAN: f64 = 0.08;
/// Suggestions given at most.
const NEAR_MAX: usize = 3;

/// Whether `name` fits `pattern`, in which `*` stands for any letters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place is the best: it leaves most to what follows.
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(tail)
}

/// A sentence that says that there is no such `what`, and which there are that look like it.
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut near: Vec<(f64, &str)> = known
        .map(|other| {
            let contained = !name.is_empty() && (other.contains(name) || name.contains(other));
            let likeness = strsim::jaro_winkler(name, other);
            (if contained { likeness.max(LIKENESS_MIN) } else { likeness }, other)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    // Names of one family are all alike: what is much less so than the best is not meant.
    let best = near.first().map_or(1.0, |(likeness, _)| *likeness);
    near.retain(|(likeness, _)| *likeness > best - LIKENESS_SPAN);
    let near: Vec<&str> = near.into_iter().take(NEAR_MAX).map(|(_, other)| other).collect();
    if near.is_empty() {
        return format!("there is no {what} '{name}'; `stallscope lab list` has them all");
    }
    format!("there is no {what} '{name}'; did you mean {}?", near.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_letters() {
        let cases = [
            ("kafka-slow", "kafka-slow", true),
            ("kafka-slow", "kafka-slower", false),
            ("kafka-*", "kafka-slow", true),
            ("kafka-*", "no-kafka-slow", false),
            ("*", "anything", true),
            ("*slow", "kafka-slow", true),
            ("*slow", "slow-kafka", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("", "x", false),
        ];
        for (pattern, name, fits) in cases {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn what_was_meant_is_suggested() {
        let known = ["sq-not-flushed", "fd-exhausted", "kafka-slow", "kafka-queue-full"];
        let said = |name| unknown("scenario", name, known.into_iter());
        assert_eq!(
            said("sq-not-flush"),
            "there is no scenario 'sq-not-flush'; did you mean sq-not-flushed?"
        );
        assert!(said("kafka-slo").contains("did you mean kafka-slow"), "{}", said("kafka-slo"));
        assert!(said("exhausted").contains("fd-exhausted"));
        assert!(said("zzz").contains("lab list") && said("").contains("lab list"));
    }
}
