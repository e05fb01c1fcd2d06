//! The layers as `docs/architecture.md` draws them, checked against the sources and the dependency
//! trees: which module may know which, who may ask for the time, where `unsafe` may stand. And that
//! each cause has its page.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test reads the sources, and fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// For each layer, the layers it may name. `cli`, `lab`, `servers`, `kit` and `load` are doors and
/// rooms of their own: nobody below them may name them.
const MAY_NAME: [(&str, &[&str]); 7] = [
    ("model", &["model"]),
    ("detect", &["model", "detect"]),
    ("diagnose", &["model", "detect", "diagnose"]),
    ("profile", &["profile"]),
    ("watch", &["model", "detect", "diagnose", "profile", "watch"]),
    ("report", &["model", "detect", "diagnose", "profile", "watch", "report"]),
    ("tui", &["model", "detect", "diagnose", "watch", "tui"]),
];

const LAYERS: [&str; 12] = [
    "cli", "detect", "diagnose", "kit", "lab", "load", "model", "profile", "report", "servers",
    "tui", "watch",
];

/// What asks for the time, beside `now_ns()` of `watch`.
const CLOCKS: [&str; 7] = [
    "Instant::now",
    "SystemTime::now",
    "clock_gettime",
    "Timestamp::now",
    "Zoned::now",
    ".elapsed()",
    "now_ns()",
];

/// Where a clock may be asked, with the reason. An entry that is not needed is refused too.
const MAY_ASK: [(&str, &str); 9] = [
    ("src/watch/", "stamps every read, and paces them"),
    ("src/cli/diagnose.rs", "keeps its promise of three seconds, in the time of `watch`"),
    ("src/cli/watch.rs", "dates the end line, in the time of `watch`"),
    ("src/cli/load.rs", "shows how long the load has run"),
    ("src/tui/run.rs", "paces the frames of a real terminal"),
    ("src/servers/", "a server has timeouts of its own"),
    ("src/kit/", "dates beats and profiles inside the server"),
    ("src/load/", "measures latencies"),
    ("src/lab/", "waits for processes it started"),
];

/// Longest Rust file, lines.
const LINES_MAX: usize = 600;

#[derive(Debug)]
struct Source {
    /// From the root of the project, with `/`.
    path: String,
    text: String,
    /// Without comments and the contents of literals.
    code: String,
}

/// Every file of the project whose name ends so, `target` and hidden folders left out.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(entry.path());
                }
            } else if name.ends_with(ending) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = code_of(&text);
        let path = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
        Source { path, text, code }
    };
    let sources: Vec<Source> = files(".rs").into_iter().map(read).collect();
    assert!(sources.len() > 100, "the sources were not found: {}", sources.len());
    sources
}

/// `text` without comments, and with its string and character literals emptied.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            literal_bytes(rest, code.chars().next_back())
        };
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

/// Length of the string or character literal that `rest` begins with; 0 if it begins with none.
fn literal_bytes(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
    let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
    if let Some(hashes) = hashes.filter(|hashes| !in_word && rest[1 + hashes..].starts_with('"')) {
        let close = format!("\"{}", "#".repeat(hashes));
        let begin = 2 + hashes;
        return rest[begin..].find(&close).map_or(rest.len(), |end| begin + end + close.len());
    }
    let quote = match rest.chars().next() {
        Some('"') => '"',
        // 'x' and '\n' are characters, 'a in `&'a str` is a lifetime.
        Some('\'') if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => '\'',
        _ => return 0,
    };
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* b */ // c\n\"d\\\"e\" r#\"f\"g\"# '\\'' 'h' <'i> br\"j\" k";
    let words: Vec<String> = code_of(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "<'i>", "br", "k"]);
}

/// The modules that `code` names from the root of the crate. `depth`: how far the file's own
/// module is from the root, for `super::super::…`.
fn named_layers(code: &str, depth: usize) -> BTreeSet<String> {
    let code: String = code.chars().filter(|letter| !letter.is_whitespace()).collect();
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        named.extend(first_names(&code[at + "crate::".len()..]));
    }
    let up = "super::".repeat(depth);
    for (at, _) in code.match_indices(&up) {
        named.extend(first_names(code[at..].trim_start_matches("super::")));
    }
    named.retain(|name| LAYERS.contains(&name.as_str()));
    named
}

/// The first name of a path, or the first names of a `{group, of::paths}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut names = Vec::new();
    let mut level = 0_u32;
    let mut begins = true;
    for (at, letter) in group.char_indices() {
        if begins && level == 0 {
            names.push(word(&group[at..]));
        }
        begins = letter == ',';
        match letter {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            _ => {}
        }
    }
    names
}

#[test]
fn names_are_found_in_paths_and_groups() {
    let named = |code, depth| named_layers(code, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(named("use crate::watch::event;", 1), ["watch"]);
    assert_eq!(named("use crate::{tui::{report, x}, model};", 1), ["model", "tui"]);
    assert_eq!(named("use super::super::load::x;", 2), ["load"]);
    assert_eq!(named("use super::load::x;", 2), Vec::<String>::new());
}

#[test]
fn each_layer_names_only_what_lies_below_it() {
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(inside) = source.path.strip_prefix("src/") else { continue };
        let parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        let Some((layer, may)) = MAY_NAME.iter().find(|(layer, _)| *layer == parts[0]) else {
            continue;
        };
        *seen.entry(*layer).or_insert(0) += 1;
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
        for name in named_layers(&source.code, depth) {
            if !may.contains(&name.as_str()) {
                wrong.push(format!("{} names crate::{name}", source.path));
            }
        }
        // What the servers are made of is nothing to those who watch them.
        for word in ["rdkafka", "tokio", "pprof"] {
            if source.code.contains(&format!("{word}::")) {
                wrong.push(format!("{} names {word}", source.path));
            }
        }
    }
    assert_eq!(seen.len(), MAY_NAME.len(), "a layer was not found: {seen:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_edges_ask_for_the_time() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.path.starts_with("src/") && !source.path.starts_with("probes/src/") {
            continue;
        }
        // A method of that name tells the time of what is shown, and asks no clock.
        let code = source.code.replace(".now_ns()", "").replace("fn now_ns()", "");
        let Some(clock) = CLOCKS.into_iter().find(|clock| code.contains(clock)) else { continue };
        match MAY_ASK.iter().find(|(place, _)| source.path.starts_with(place)) {
            Some((place, _)) => {
                used.insert(*place);
            }
            None => wrong.push(format!("{} asks {clock}", source.path)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let unused: Vec<_> = MAY_ASK.iter().filter(|(place, _)| !used.contains(place)).collect();
    assert!(unused.is_empty(), "permissions that nobody needs: {unused:#?}");
}

/// Within `watch` one file reads the clock; the others call it.
#[test]
fn the_watch_has_one_clock() {
    let clocks = &CLOCKS[..CLOCKS.len() - 1];
    let asks = |source: &Source| clocks.iter().any(|clock| source.code.contains(clock));
    let askers: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("src/watch/") && asks(source))
        .map(|source| source.path)
        .collect();
    assert_eq!(askers, ["src/watch/clock.rs"]);
}

#[test]
fn unsafe_stands_in_the_probes_alone() {
    let is_unsafe = |code: &str| {
        code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .any(|word| word == "unsafe")
    };
    let (mut inside, mut outside) = (0, Vec::new());
    for source in sources().into_iter().filter(|source| is_unsafe(&source.code)) {
        if source.path.starts_with("probes/") {
            inside += 1;
        } else {
            outside.push(source.path);
        }
    }
    // glommio takes over a listening socket only by an `unsafe` function.
    assert_eq!(outside, ["src/servers/glommio_tcp.rs"]);
    assert!(inside > 0, "the search finds nothing at all");
}

#[test]
fn files_stay_short() {
    let long: Vec<(String, usize)> = sources()
        .into_iter()
        .map(|source| (source.path, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:?}");
}

#[test]
fn every_fixture_says_where_it_came_from() {
    let inside = |path: &Path| path.components().any(|part| part.as_os_str() == "fixtures");
    let folders: BTreeSet<PathBuf> = files("")
        .into_iter()
        .filter(|path| inside(path.strip_prefix(ROOT).unwrap()))
        .map(|path| path.parent().unwrap().to_owned())
        .collect();
    assert!(folders.len() >= 10, "the fixtures were not found: {folders:?}");
    let without: Vec<&PathBuf> =
        folders.iter().filter(|folder| !folder.join("ORIGIN.md").is_file()).collect();
    assert!(without.is_empty(), "no ORIGIN.md: {without:#?}");
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(args)
        .args(["--offline", "--locked"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Names of what `package` is built from, `edges` of the tree.
fn tree(package: &str, edges: &str, more: &[&str]) -> BTreeSet<String> {
    let args = ["tree", "-p", package, "-e", edges, "--prefix", "none", "-f", "{p}"];
    let printed = cargo(&[&args, more].concat());
    printed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn among(tree: &BTreeSet<String>, names: &[&str]) -> Vec<String> {
    tree.iter().filter(|name| names.contains(&name.as_str())).cloned().collect()
}

const SERVER_SIDE: [&str; 9] = [
    "tokio",
    "tokio-uring",
    "rdkafka",
    "rdkafka-sys",
    "pprof",
    "console-subscriber",
    "glommio",
    "hdrhistogram",
    "io-uring",
];
/// What builds or finds C libraries.
const C_BUILDERS: [&str; 5] = ["cc", "cmake", "bindgen", "pkg-config", "vcpkg"];

#[test]
fn the_probes_and_the_watcher_alone_stay_light() {
    let probes = tree("stallscope-probes", "normal,build", &[]);
    assert!(probes.contains("rustix"), "{probes:?}");
    let watcher = tree("stallscope", "normal,build", &["--no-default-features"]);
    assert!(watcher.is_superset(&probes), "{watcher:?}");
    for tree in [&probes, &watcher] {
        assert_eq!(among(tree, &SERVER_SIDE), [""; 0]);
        assert_eq!(among(tree, &C_BUILDERS), [""; 0]);
    }
    // The same questions find something where there is something.
    let whole = tree("stallscope", "normal,build", &[]);
    assert_eq!(among(&whole, &SERVER_SIDE).len(), SERVER_SIDE.len(), "{whole:?}");
    assert!(!among(&whole, &C_BUILDERS).is_empty(), "{whole:?}");
}

/// A package says by `links` that it links a native library.
#[test]
fn the_watcher_alone_links_no_c_library() {
    // What other platforms need was not downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let args = ["metadata", "--format-version", "1", "--filter-platform", &platform];
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&args)).unwrap();
    let linking: Vec<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["links"].is_string())
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert!(linking.contains(&"rdkafka-sys"), "{linking:?}");
    let watcher = tree("stallscope", "normal,build", &["--no-default-features"]);
    assert_eq!(among(&watcher, &linking), [""; 0]);
}

/// Who is woken at 3 a.m. follows the name of a cause to its page.
#[test]
fn every_cause_has_a_page_that_the_list_leads_to() {
    let docs = Path::new(ROOT).join("docs");
    let list = std::fs::read_to_string(docs.join("causes.md")).unwrap();
    for cause in stallscope::diagnose::verdict::Cause::STALLS {
        let page = format!("causes/{}.md", cause.id());
        assert!(docs.join(&page).is_file(), "{page} is missing");
        assert!(list.contains(&page), "docs/causes.md does not lead to {page}");
    }
}
