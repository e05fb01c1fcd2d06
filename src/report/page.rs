//! The page: its sections in order, its style, and the policy that forbids everything else.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::facts::Facts;
use super::frame::Frame;
use super::{chain, charts, flames, method, resources, rings, tables, threads, verdict};

const STYLE: &str = include_str!("style.css");
/// Zoom and readout of the time line, tabs of the flamegraphs.
const SCRIPT: &str = include_str!("page.js");

/// The whole document.
pub(super) fn assemble(facts: &Facts<'_>) -> String {
    let flames = flames::draw(facts);
    let policy = policy(flames.script.as_deref());
    let sections: [(&str, &str, Markup); 11] = [
        ("charts", "Time line", charts::draw(facts)),
        ("timeline", "What happened when", tables::timeline(facts)),
        ("evidence", "Evidence", tables::evidence(facts)),
        ("ruled-out", "Ruled out", tables::ruled_out(facts)),
        ("next", "Next steps", tables::next(facts)),
        ("threads", "Threads", threads::draw(facts)),
        ("rings", "io_uring", rings::draw(facts)),
        ("resources", "Resources", resources::draw(facts)),
        ("profiles", "Flamegraphs", flames.body),
        ("environment", "Environment", method::environment(facts)),
        ("method", "How this was measured, and what it could not see", method::method(facts)),
    ];
    Frame {
        title: &verdict::title(facts),
        policy: &policy,
        style: STYLE,
        kind: "stallscope post-mortem",
        lead: html! { (verdict::band(facts)) (chain::draw(facts)) },
        sections: &sections,
        first: "time line",
        tail: html! { script { (PreEscaped(SCRIPT)) } },
        version: &super::text::shown(&facts.incident.environment.version),
    }
    .document()
}

/// Nothing remote, no form, no script but the page's own and the flamegraphs', no style but these two.
/// Data blocks are no scripts. A `srcdoc` frame inherits the policy of the page around it (HTML
/// standard, "policy container").
fn policy(flames: Option<&str>) -> String {
    let flames = flames.map_or_else(String::new, |script| format!(" {}", hash(script)));
    format!(
        "default-src 'none'; script-src {}{flames}; style-src {} {}; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE),
        hash(flames::STYLE),
    )
}

/// A hash source of CSP level 2: base64 of the SHA-256 of an element's text.
pub(super) fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    format!("'sha256-{}'", base64(&digest))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            if n <= chunk.len() {
                let index = (bits >> (18 - 6 * n)) & 0x3f;
                let _ = write!(text, "{}", char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, encoded) in cases {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_hash_source_is_that_of_the_standard() {
        // The example of CSP level 3, section 8.2.
        assert_eq!(
            hash("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }

    #[test]
    fn styles_and_script_hold_nothing_that_html_would_end_or_rewrite() {
        for text in [STYLE, flames::STYLE, SCRIPT] {
            assert!(!text.contains("</") && !text.contains('\r'));
            assert_eq!(text.matches("url(").count(), text.matches("url(#").count());
        }
    }
}
