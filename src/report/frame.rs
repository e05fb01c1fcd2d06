//! What every page of ours has around its content: the head with its policy, the list of sections,
//! the sections, the foot.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// One page.
pub(crate) struct Frame<'a> {
    /// Title of the document.
    pub title: &'a str,
    /// Its `Content-Security-Policy`.
    pub policy: &'a str,
    /// Its style sheet.
    pub style: &'a str,
    /// What kind of page it is.
    pub kind: &'a str,
    /// What comes before the sections.
    pub lead: Markup,
    /// Id, title and body of each; the first is what "skip" skips to.
    pub sections: &'a [(&'a str, &'a str, Markup)],
    /// What that one is called within a sentence.
    pub first: &'a str,
    /// What comes at the very end: scripts.
    pub tail: Markup,
    /// Which version or versions wrote it.
    pub version: &'a str,
}

impl Frame<'_> {
    /// The whole document.
    pub fn document(&self) -> String {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(self.policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    title { (self.title) }
                    style { (PreEscaped(self.style)) }
                }
                body { (self.body()) }
            }
        }
        .into_string()
    }

    fn body(&self) -> Markup {
        let first = self.sections.first().map_or("", |(id, ..)| id);
        html! {
            a.skip href=(format!("#{first}")) { "Skip to the " (self.first) }
            main {
                p.kind { (self.kind) }
                (self.lead)
                nav aria-label="Sections" {
                    ul { @for (id, title, _) in self.sections { li { a href=(format!("#{id}")) { (short(title)) } } } }
                }
                @for (id, title, body) in self.sections {
                    section id=(id) aria-labelledby=(format!("h-{id}")) {
                        h2 id=(format!("h-{id}")) { (title) }
                        (body)
                    }
                }
            }
            footer { "Written by stallscope " (self.version) ". This file needs no network and asks for none." }
            (self.tail)
        }
    }
}

/// Titles as they stand in the list of sections.
fn short(title: &str) -> &str {
    title.split_once(',').map_or(title, |(head, _)| head)
}
