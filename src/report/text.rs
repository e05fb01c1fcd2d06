//! Numbers, times and names as a reader wants them.

use stallscope_probes::Why;

use crate::profile::printable::printable;

/// Characters shown of a name or sentence that stems from the process.
pub(super) const TEXT_CHARS_MAX: usize = 400;
/// Characters shown of a command line.
pub(super) const CMDLINE_CHARS_MAX: usize = 2_000;

/// Text from the process, made safe to look at; HTML escaping comes on top, where HTML is written.
pub(super) fn shown(text: &str) -> String {
    printable(text, TEXT_CHARS_MAX)
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A measured number: whole ones grouped, others with as many decimals as they deserve.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return String::from("not a number");
    }
    if size >= 1e15 {
        return format!("{value:.3e}");
    }
    let sign = if value < 0.0 { "−" } else { "" };
    if value.fract() == 0.0 || size >= 1_000.0 {
        format!("{sign}{}", count(size.round() as u64))
    } else if size >= 100.0 {
        format!("{sign}{size:.0}")
    } else if size >= 10.0 {
        format!("{sign}{size:.1}")
    } else {
        format!("{sign}{size:.2}")
    }
}

/// `85 ms`, `3.25 s`, `2 min 05 s`, `1 h 02 min`.
pub(super) fn duration_ms(ms: f64) -> String {
    if !ms.is_finite() || ms < 0.0 {
        return String::from("an unknown time");
    }
    if ms < 10.0 && ms.fract() != 0.0 {
        return format!("{ms:.1} ms");
    }
    if ms < 1_000.0 {
        return format!("{ms:.0} ms");
    }
    let seconds = ms / 1_000.0;
    if seconds < 10.0 {
        return format!("{seconds:.2} s");
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3_600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60)
    }
}

/// As [`duration_ms`], of nanoseconds.
pub(super) fn duration_ns(ns: u64) -> String {
    duration_ms(ns as f64 / 1e6)
}

/// `at_ns` relative to `zero_ns`: `+0.085 s`, `−3.250 s`.
pub(super) fn offset(at_ns: u64, zero_ns: u64) -> String {
    let (sign, ns) =
        if at_ns >= zero_ns { ('+', at_ns - zero_ns) } else { ('−', zero_ns - at_ns) };
    let ms = (ns + 500_000) / 1_000_000;
    format!("{sign}{}.{:03} s", count(ms / 1_000), ms % 1_000)
}

/// `1 tick`, `2 ticks`.
pub(super) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A class of absence in words.
pub(super) const fn why(why: Why) -> &'static str {
    match why {
        Why::NotPermitted => "not permitted",
        Why::Gone => "gone",
        Why::Unsupported => "not available here",
        Why::NotSampled => "not read in this tick",
        Why::Locked => "left out by the kernel (lock held)",
        Why::Malformed => "not understood",
        Why::NoPrevious => "without an earlier one",
        Why::Restarted => "counter restarted",
        Why::Failed => "failed",
    }
}

/// A sentence ends once.
pub(super) fn sentence(text: &str) -> String {
    let text = shown(text.trim());
    if text.is_empty() || text.ends_with(['.', '!', '?', ']']) { text } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        let numbers =
            [(0.0, "0"), (0.126, "0.13"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1,235")];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(-3.0), "−3");
        assert_eq!(number(f64::NAN), "not a number");
        let durations = [
            (0.0, "0 ms"),
            (0.25, "0.2 ms"),
            (84.6, "85 ms"),
            (3_254.0, "3.25 s"),
            (59_900.0, "59.9 s"),
            (59_990.0, "1 min 00 s"),
            (125_000.0, "2 min 05 s"),
            (3_720_000.0, "1 h 02 min"),
            (-1.0, "an unknown time"),
        ];
        for (ms, text) in durations {
            assert_eq!(duration_ms(ms), text);
        }
        assert_eq!(offset(1_085_000_000, 1_000_000_000), "+0.085 s");
        assert_eq!(offset(0, 3_250_000_000), "−3.250 s");
        assert_eq!(offset(4_000_000_000_000, 0), "+4,000.000 s");
    }
}
