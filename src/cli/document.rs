//! Documents made of recordings: in which form, and where to.
#![expect(clippy::disallowed_methods, reason = "this is where documents are written")]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The form of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One self-contained page: opens from disk, without a network
    Html,
    /// Markdown, to be pasted into an issue or a post-mortem
    Md,
    /// One JSON object, for programs
    Json,
}

impl Format {
    /// What names of such files end in.
    const fn ending(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Md => "md",
            Self::Json => "json",
        }
    }

    fn by_ending(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "html" | "htm" => Some(Self::Html),
            "md" | "markdown" => Some(Self::Md),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What the user said about form and place.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// The form; default: by the ending of -o FILE, else html
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Where to write it, - for stdout; default: html beside the recording, md and json to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Where a document goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// To the next program, or to be read.
    Stdout,
    /// Into a file.
    File(PathBuf),
}

impl Output {
    /// The form.
    pub fn format(&self) -> Format {
        let by_ending = || Format::by_ending(self.output.as_deref()?);
        self.format.or_else(by_ending).unwrap_or(Format::Html)
    }

    /// The place; `beside` is the file's name where none is given. It is none of `inputs`.
    ///
    /// # Errors
    /// When a recording would be overwritten.
    pub fn place(&self, beside: &Path, inputs: &[&Path]) -> anyhow::Result<Place> {
        let path = match &self.output {
            Some(path) if path.as_os_str() == OsStr::new("-") => return Ok(Place::Stdout),
            Some(path) => path.clone(),
            None if self.format() == Format::Html => beside.with_added_extension("html"),
            None => return Ok(Place::Stdout),
        };
        let is_input = |input: &&Path| **input == path || is_same_file(input, &path);
        anyhow::ensure!(
            !inputs.iter().any(is_input),
            "{} would be overwritten by its own {}: name another file with -o",
            path.display(),
            self.format().ending()
        );
        Ok(Place::File(path))
    }
}

/// Whether both exist and are one.
fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// Writes it. Whoever reads stdout may stop reading: that is no error.
///
/// # Errors
/// When it cannot be written.
pub fn write(place: &Place, bytes: &[u8]) -> anyhow::Result<()> {
    match place {
        Place::File(path) => {
            std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
        }
        Place::Stdout => {
            let mut stdout = std::io::stdout().lock();
            match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Err(error).context("cannot write to stdout")
                }
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(format: Option<Format>, output: Option<&str>) -> Output {
        Output { format, output: output.map(PathBuf::from) }
    }

    #[test]
    fn form_and_place_follow_from_what_was_said() {
        use Format::{Html, Json, Md};
        let file = |name: &str| Place::File(PathBuf::from(name));
        let cases = [
            (None, None, Html, file("run.html")),
            (Some(Html), Some("-"), Html, Place::Stdout),
            (Some(Json), None, Json, Place::Stdout),
            (Some(Md), None, Md, Place::Stdout),
            (None, Some("x.json"), Json, file("x.json")),
            (None, Some("x.MD"), Md, file("x.MD")),
            (None, Some("x"), Html, file("x")),
            (Some(Md), Some("x.json"), Md, file("x.json")),
        ];
        for (format, output, form, place) in cases {
            let args = args(format, output);
            let found = args.place(Path::new("run"), &[Path::new("run.stallrec")]).unwrap();
            assert_eq!((args.format(), found), (form, place), "{format:?} {output:?}");
        }
    }

    #[test]
    fn no_recording_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "x").unwrap();
        let other = folder.path().join("./a.json");
        for output in [&path, &other] {
            let args = args(None, output.to_str());
            let error = args.place(Path::new("run"), &[Path::new("b"), &path]).unwrap_err();
            assert!(error.to_string().contains("would be overwritten"), "{error}");
        }
    }
}
