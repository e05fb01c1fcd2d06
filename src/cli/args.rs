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

#[cfg(test)]
mod tests {
    use super::*;

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
