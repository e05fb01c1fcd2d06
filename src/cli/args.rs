//! Parsers for argument values that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use stallscope_probes::active::{PATH_BYTES_MAX, is_path};
use stallscope_probes::sample::ActiveHow;

use crate::watch::active::{EVERY_MIN, Plan};
use crate::watch::config::{self, Config};
use crate::watch::session::Session;

/// The active probe, shared by `watch` and `diagnose`.
#[derive(Debug, clap::Args)]
pub struct ProbeArgs {
    /// Also connect to the server now and then, as a client does
    #[arg(long, value_name = "HOW", value_enum)]
    probe: Option<How>,
    /// Time between two such connections, at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = probe_every)]
    #[arg(requires = "probe")]
    probe_every: Duration,
    /// What `--probe http` asks for [default: /]
    #[arg(long, value_name = "PATH", value_parser = probe_path, requires = "probe")]
    probe_path: Option<String>,
}

/// What such a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// Connect, and close
    Tcp,
    /// Connect, send a GET request, wait for the first byte of the answer
    Http,
}

/// Thresholds of the user's own.
#[derive(Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Thresholds of your own, as TOML (docs/config.md); unknown keys are refused
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whether stacks are caught while watching.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// With --record, where it is permitted
    #[default]
    Auto,
    /// Always; an error where it is not permitted
    On,
    /// Never
    Off,
}

/// Catching stacks, for the profiles around an onset.
#[derive(Debug, clap::Args)]
pub struct ProfileArgs {
    /// Catch stacks, so that the recording has profiles of before, around and after an onset
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    profile: When,
    /// Samples a second of the target's CPU time for that, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = PROFILE_HZ, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    profile_hz: u32,
}

/// Not 100, so as not to march in step with a timer.
pub const PROFILE_HZ: u32 = 99;

impl ProfileArgs {
    /// Begins to catch stacks, if that was asked for.
    ///
    /// # Errors
    /// When it was asked for and is not permitted.
    pub fn begin(&self, session: &mut Session, recording: bool) -> anyhow::Result<()> {
        match self.profile {
            When::Off => return Ok(()),
            When::Auto if !recording => return Ok(()),
            When::Auto | When::On => {}
        }
        match session.catch_stacks(self.profile_hz) {
            Ok(()) => Ok(()),
            Err(absence) if self.profile == When::On => Err(anyhow::anyhow!(absence.detail)),
            Err(absence) => {
                session.note_limit(format!("profiles: {}", absence.detail));
                Ok(())
            }
        }
    }
}

impl ConfigArgs {
    /// The thresholds of the file, or the defaults.
    ///
    /// # Errors
    /// When the file cannot be read, or says what nobody knows.
    pub fn load(&self) -> anyhow::Result<Config> {
        Ok(self.config.as_deref().map(config::load).transpose()?.unwrap_or_default())
    }
}

impl ProbeArgs {
    /// What was asked for, at the port by which the target was named, if it was; `None` when nothing
    /// was.
    ///
    /// # Errors
    /// When a path is given and no request is made.
    pub fn plan(&self, port: Option<u16>) -> Result<Option<Plan>, clap::Error> {
        let Some(how) = self.probe else { return Ok(None) };
        if how == How::Tcp && self.probe_path.is_some() {
            let sentence = "--probe-path goes with --probe http: --probe tcp asks for nothing\n";
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, sentence));
        }
        Ok(Some(Plan {
            how: match how {
                How::Tcp => ActiveHow::Tcp,
                How::Http => ActiveHow::Http,
            },
            every: self.probe_every,
            path: self.probe_path.clone().unwrap_or_else(|| String::from("/")),
            port,
        }))
    }
}

fn probe_every(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if every >= EVERY_MIN {
        Ok(every)
    } else {
        Err(format!("{text} is too often: connections begin at least 100ms apart"))
    }
}

fn probe_path(text: &str) -> Result<String, String> {
    if is_path(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a path begins with / and has at most {PATH_BYTES_MAX} visible ASCII characters"
        ))
    }
}

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
