//! `--config FILE`: thresholds of one's own, as TOML. What the file does not name keeps its
//! default; what it names and nobody knows is refused.
//!
//! ```toml
//! [detect]
//! accept_hold_ms = 2000
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::detect::thresholds::Thresholds;

/// A file that is longer is none that somebody wrote for this.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What can be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// When something is a stall, and what is foretold.
    pub detect: Thresholds,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("the configuration {path} has {bytes} bytes; at most {FILE_BYTES_MAX} are read")]
    Long {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no TOML, or names what does not exist.
    #[error("the configuration {path} is not valid: {message}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

/// Reads a configuration.
///
/// # Errors
/// When the file cannot be read, is no TOML, names an unknown key, or holds a value that makes no
/// sense.
#[expect(clippy::disallowed_methods, reason = "this is where the file is read")]
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::Long { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let invalid = |message| ConfigError::Invalid { path: path.to_owned(), message };
    parse(&text).map_err(invalid)
}

fn parse(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| {
        // One line: where, and what.
        let line = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or(text);
            before.matches('\n').count() + 1
        });
        let message = error.message().replace('\n', ", ");
        line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
    })?;
    config.detect.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_set_and_the_rest_stays() {
        let config = parse("[detect]\naccept_hold_ms = 2000\n").unwrap();
        let expected = Thresholds { accept_hold_ms: 2_000, ..Thresholds::default() };
        assert_eq!(config.detect, expected);
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_nobody_knows_is_refused_with_its_place() {
        for (text, words) in [
            ("[detect]\naccept_hold = 2000\n", "accept_hold"),
            ("[detcet]\n", "detcet"),
            ("[detect]\naccept_hold_ms = \"2s\"\n", "invalid type"),
            ("[detect]\naccept_hold_ms = -1\n", "line 2: invalid value"),
            ("[detect]\nports_full_ratio = 98.0\n", "between 0.01 and 1"),
            ("[detect]\n\naccept", "line 3"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
