//! Numbers as people read them: each with its unit, none wider than it must be.

/// A count, exact up to six digits.
pub fn count(value: u64) -> String {
    match value {
        0..1_000_000 => value.to_string(),
        1_000_000..1_000_000_000 => format!("{:.2}M", value as f64 / 1e6),
        _ => format!("{:.2}G", value as f64 / 1e9),
    }
}

/// A rate per second, at most eight characters wide.
pub fn rate(per_s: f64) -> String {
    let size = per_s.abs();
    if !size.is_finite() {
        return String::from("no number");
    }
    if per_s == 0.0 {
        String::from("0/s")
    } else if size < 9.95 {
        format!("{per_s:.1}/s")
    } else if size < 9_999.5 {
        format!("{per_s:.0}/s")
    } else if size < 999_950.0 {
        format!("{:.1}k/s", per_s / 1e3)
    } else {
        format!("{:.1}M/s", per_s / 1e6)
    }
}

/// A share from 0 to 1 (or above) in per cent.
pub fn percent(ratio: f64) -> String {
    if !ratio.is_finite() {
        return String::from("no number");
    }
    // "100 %" is reserved for full, "0 %" for nothing.
    if ratio > 0.0 && ratio < 0.005 {
        return String::from("<1 %");
    }
    if (0.995..1.0).contains(&ratio) {
        return String::from("99 %");
    }
    format!("{:.0} %", ratio * 100.0)
}

/// Memory.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64;
    let mut unit = "B";
    for next in UNITS {
        if scaled < 1023.95 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    if scaled < 9.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// A length of time given in milliseconds.
pub fn span_ms(ms: f64) -> String {
    if !ms.is_finite() {
        return String::from("no number");
    }
    if ms == 0.0 {
        return String::from("0 ms");
    }
    if ms < 9.95 {
        return format!("{ms:.1} ms");
    }
    if ms < 999.5 {
        return format!("{ms:.0} ms");
    }
    if ms < 59_950.0 {
        return format!("{:.1} s", ms / 1e3);
    }
    let seconds = (ms / 1e3).round() as u64;
    if seconds < 3600 {
        return format!("{} min {:02} s", seconds / 60, seconds % 60);
    }
    format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60)
}

/// A length of time given in nanoseconds.
pub fn span_ns(ns: u64) -> String {
    span_ms(ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rates_shares_sizes_and_spans() {
        assert_eq!(count(999_999), "999999");
        assert_eq!(count(1_234_567), "1.23M");
        assert_eq!(count(u64::MAX), "18446744073.71G");
        let rates = [
            (0.0, "0/s"),
            (0.04, "0.0/s"),
            (9.94, "9.9/s"),
            (9.96, "10/s"),
            (9_999.4, "9999/s"),
            (9_999.6, "10.0k/s"),
            (999_960.0, "1.0M/s"),
            (f64::NAN, "no number"),
        ];
        for (value, text) in rates {
            assert_eq!(rate(value), text, "{value}");
        }
        let shares = [
            (0.0, "0 %"),
            (0.001, "<1 %"),
            (0.499, "50 %"),
            (0.999, "99 %"),
            (1.0, "100 %"),
            (1.5, "150 %"),
        ];
        for (value, text) in shares {
            assert_eq!(percent(value), text, "{value}");
        }
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (34 << 20, "34 MiB"),
            (1 << 60, "1048576 TiB"),
        ];
        for (value, text) in sizes {
            assert_eq!(bytes(value), text, "{value}");
        }
        let spans = [
            (0.0, "0 ms"),
            (0.2, "0.2 ms"),
            (340.0, "340 ms"),
            (999.7, "1.0 s"),
            (4_810.0, "4.8 s"),
            (59_960.0, "1 min 00 s"),
            (125_000.0, "2 min 05 s"),
            (3_600_000.0, "1 h 00 min"),
        ];
        for (value, text) in spans {
            assert_eq!(span_ms(value), text, "{value}");
        }
    }
}
