//! Parsers for argument values that several commands share.

use std::time::Duration;

/// Parses `500ms`, `30s`, `1m30s`, `2h`; a bare number is refused, since its unit would be a guess.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let explain = || format!("'{text}' is not a duration: write it like 500ms, 30s or 1m30s");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| explain())?;
    let duration = Duration::try_from(parsed).map_err(|_| explain())?;
    if duration.is_zero() { Err(explain()) } else { Ok(duration) }
}

/// Parses a share of one core, `1%` or `0.5`, into millionths.
///
/// # Errors
/// A sentence that says what a share looks like.
pub fn budget_ppm(text: &str) -> Result<u32, String> {
    const PPM_PER_PERCENT: f64 = 10_000.0;
    let explain = || {
        format!(
            "'{text}' is no share of one core: write it like 1% or 0.5%, between 0.01% and 100%"
        )
    };
    let percent: f64 =
        text.strip_suffix('%').unwrap_or(text).trim().parse().map_err(|_| explain())?;
    if (0.01..=100.0).contains(&percent) {
        Ok((percent * PPM_PER_PERCENT).round() as u32)
    } else {
        Err(explain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_percent_of_one_core() {
        let cases = [
            ("1%", Some(10_000)),
            ("1", Some(10_000)),
            ("0.25%", Some(2_500)),
            ("100%", Some(1_000_000)),
            ("0", None),
            ("101%", None),
            ("NaN", None),
            ("-1%", None),
            ("much", None),
            ("", None),
        ];
        for (text, ppm) in cases {
            assert_eq!(budget_ppm(text).ok(), ppm, "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_a_size() {
        let cases = [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("30", None),
            ("", None),
            ("0s", None),
            ("-5s", None),
            ("soon", None),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }
}
