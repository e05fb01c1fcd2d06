//! `--config FILE`: thresholds of one's own, as TOML. What the file does not name keeps its
//! default; what it names and nobody knows is refused.
//!
//! ```toml
//! [detect]
//! accept_hold_ms = 2000
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{detect, diagnose};

/// A file that is longer is none that somebody wrote for this.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What can be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// When something is a stall, and what is foretold.
    pub detect: detect::thresholds::Thresholds,
    /// From where on a reading counts as evidence for a cause.
    pub diagnose: diagnose::thresholds::Thresholds,
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
    config.check()?;
    Ok(config)
}

impl Config {
    /// What is wrong with these values, as a sentence.
    fn check(&self) -> Result<(), String> {
        self.detect.check()?;
        self.diagnose.check()
    }
}

/// Thresholds as a text by name, so that a recording keeps its meaning when one is added.
pub mod as_text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Config;

    /// Writes them.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn serialize<S: Serializer>(config: &Config, to: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(config).map_err(S::Error::custom)?.serialize(to)
    }

    /// Reads them; what is not named keeps its default.
    ///
    /// # Errors
    /// When a name is unknown, or a value makes no sense.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Config, D::Error> {
        let text = String::deserialize(from)?;
        let config: Config = serde_json::from_str(&text).map_err(D::Error::custom)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_set_and_the_rest_stays() {
        let config = parse("[detect]\naccept_hold_ms = 2000\n").unwrap();
        let mut expected = Config::default();
        expected.detect.accept_hold_ms = 2_000;
        assert_eq!(config, expected);
        let config = parse("[diagnose]\nkafka_owed_ms_min = 3000\n").unwrap();
        let mut expected = Config::default();
        expected.diagnose.kafka_owed_ms_min = 3_000;
        assert_eq!(config, expected);
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_nobody_knows_is_refused_with_its_place() {
        for (text, words) in [
            ("[detect]\naccept_hold = 2000\n", "accept_hold"),
            ("[detcet]\n", "detcet"),
            ("[diagnose]\nkafka_owed = 2000\n", "kafka_owed"),
            ("[diagnose]\nblocked_share_min = 90.0\n", "between 0.01 and 1"),
            ("[detect]\naccept_hold_ms = \"2s\"\n", "invalid type"),
            ("[detect]\naccept_hold_ms = -1\n", "line 2: invalid value"),
            ("[detect]\nports_full_ratio = 98.0\n", "between 0.01 and 1"),
            ("[detect]\n\naccept", "line 3"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn every_key_stands_in_the_docs_with_its_default() {
        let docs = include_str!("../../docs/config.md");
        let defaults = serde_json::to_value(Config::default()).unwrap();
        for (section, keys) in defaults.as_object().unwrap() {
            let table = docs.split(&format!("| key in `[{section}]` |")).nth(1).unwrap();
            for (key, value) in keys.as_object().unwrap() {
                let row = format!("| `{key}` | {value} |");
                assert!(table.contains(&row), "{section}: {row}");
            }
        }
    }

    #[test]
    fn a_recording_keeps_them_by_name() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Kept(#[serde(with = "as_text")] Config);
        let mut config = Config::default();
        config.diagnose.kafka_owed_ms_min = 3_000;
        let bytes = postcard::to_stdvec(&Kept(config)).unwrap();
        assert_eq!(postcard::from_bytes::<Kept>(&bytes).unwrap(), Kept(config));
        let kept = |text: &str| postcard::from_bytes::<Kept>(&postcard::to_stdvec(text).unwrap());
        // One that was added since has its default.
        let fewer = kept(r#"{"diagnose": {"kafka_owed_ms_min": 3000}}"#);
        assert_eq!(fewer.unwrap(), Kept(config));
        for text in
            ["", "{\"detekt\": {}}", r#"{"detect": {"accept_hold_ms": 18446744073709551615}}"#]
        {
            assert!(kept(text).is_err(), "{text}");
        }
    }
}
