//! The report as Markdown: whatever a process calls itself, the document keeps its shape.

mod report_fixture;

use std::sync::Arc;

use proptest::prelude::*;
use report_fixture as fixture;
use stallscope::profile::stacks::{Space, StackFrame, ThreadStack, ThreadStacks};
use stallscope::report::markdown;
use stallscope::watch::event::{Event, Incident};
use stallscope_probes::Reading;

/// The kinds of lines in their order, without what they say: a row of a table by its cells.
fn shape(document: &str) -> Vec<String> {
    let mut shape = Vec::new();
    let mut fence: Option<String> = None;
    for line in document.lines() {
        if let Some(end) = &fence {
            if line == end {
                fence = None;
                shape.push(String::from("end of fence"));
            }
            continue;
        }
        let text = literal_gone(line);
        assert!(!text.contains(['<', '[', ']', '~', '$']), "not escaped: {line}");
        assert!(!text.contains("://") && !text.contains("www."), "a link: {line}");
        let ticks = line.chars().take_while(|char| *char == '`').count();
        if ticks >= 3 {
            fence = Some("`".repeat(ticks));
            shape.push(String::from("fence"));
        } else if line.starts_with('|') {
            shape.push(format!("row of {}", text.matches('|').count()));
        } else {
            let begin = text.split(' ').next().unwrap_or_default();
            let is_mark = begin.chars().all(|char| "#-+=.)0123456789".contains(char));
            shape.push(if is_mark { begin.to_owned() } else { String::from("text") });
        }
    }
    assert_eq!(fence, None, "a fence is open");
    shape.dedup();
    shape
}

/// A line with a letter for whatever is escaped, and without the comments that part mentions.
fn literal_gone(line: &str) -> String {
    let line = line.replace("@<!-- -->", "");
    assert!(!line.contains('@'), "a mention: {line}");
    let mut chars = line.chars();
    let mut text = String::new();
    while let Some(char) = chars.next() {
        text.push(if char == '\\' { chars.next().map_or(char, |_| 'e') } else { char });
    }
    text
}

/// A short run with `text` wherever a process or a damaged recording can put it.
fn with(text: &str) -> Incident {
    let mut incident = fixture::sq_not_flushed();
    incident.models = incident.models.iter().step_by(26).cloned().collect();
    let own = || text.to_owned();
    (incident.target.comm, incident.target.cmdline) = (own(), own());
    (incident.environment.kernel, incident.losses) = (own(), vec![own()]);
    for event in &mut incident.events {
        if let Event::Verdict(verdict) = event {
            (verdict.summary, verdict.next) = (own(), vec![own()]);
            verdict.evidence.iter_mut().for_each(|item| item.signal = own());
            verdict.ruled_out.iter_mut().for_each(|item| item.because = own());
        }
    }
    for model in incident.models.iter_mut().map(Arc::make_mut) {
        if let Reading::Got(threads) = &mut model.threads {
            let mut two: Vec<_> = threads.iter().take(2).cloned().collect();
            for thread in two.iter_mut().map(Arc::make_mut) {
                (thread.comm, thread.wchan) = (own(), Reading::Got(own()));
                thread.kernel_stack = Reading::Got(vec![own()]);
            }
            *threads = two.into();
        }
    }
    for window in &mut incident.profiles {
        window.folded = format!("{text};inner;{text} 3\n");
        window.notes = vec![own()];
    }
    let frame = StackFrame {
        function: own(),
        module: Some(own()),
        place: Some(own()),
        space: Space::User,
        inlined: true,
        guessed: true,
    };
    incident.stacks = vec![ThreadStacks {
        at_ns: fixture::BEGIN_NS + 20 * fixture::S,
        threads: vec![ThreadStack {
            tid: 4242,
            name: own(),
            state: 'S',
            syscall: Some(own()),
            waited_ms: Some(5),
            frames: vec![frame],
            how: own(),
        }],
        notes: vec![own()],
    }];
    incident
}

#[test]
fn hostile_text_stays_text() {
    let benign = shape(&markdown(&with("benign")));
    assert!(benign.iter().any(|line| line == "fence"), "{benign:#?}");
    let cases = [
        "</script><b>",
        "[here](https://evil.example)",
        "![x](http://evil.example/x.png)",
        "a|b|c",
        "a\nb\n\n# heading",
        "```\n# out of the fence",
        "`````",
        "@everyone www.evil.example",
        "~~gone~~ **bold** __bold__ $x$",
        "- item",
        "1. item",
        "---",
        "\\",
        "\u{1b}[2J\u{202e}",
    ];
    for text in cases {
        let document = markdown(&with(text));
        assert_eq!(shape(&document), benign, "{text:?}");
        let commands = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
        assert!(!document.contains(commands), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_text_stays_text(
        text in "(<|>|\\||`|```|\\[|\\]|\\(|\\*|_|#|~|!|&|@|://|www\\.|\\\\|\n|-|1\\.|[[:word:]]|.| ){0,24}"
    ) {
        // An empty name makes no frame of its own, and one that ends in digits is another one.
        let text = format!("x{text}x");
        let benign = shape(&markdown(&with("benign")));
        prop_assert_eq!(shape(&markdown(&with(&text))), benign);
    }
}

#[test]
fn equal_stacks_are_shown_once_with_their_threads() {
    let mut incident = fixture::runtime_blocked();
    let model = Arc::make_mut(incident.models.last_mut().unwrap());
    let mut clones = model.threads.got().unwrap().to_vec();
    for (tid, thread) in (5_000..).zip(clones.iter_mut().map(Arc::make_mut)) {
        thread.tid = tid;
        thread.kernel_stack = Reading::Got(vec![String::from("futex_wait_queue")]);
    }
    model.threads = Reading::Got(clones.into());
    let document = markdown(&incident);
    let heads: Vec<&str> = document.lines().filter(|line| line.starts_with("5000 ")).collect();
    assert_eq!(
        heads,
        ["5000 tokio-uring, 5001 rdk:main, 5002 rdk:broker1, 5003 kafka-poll, 5004 profiler:"]
    );
    assert_eq!(document.matches("\nfutex_wait_queue\n").count(), 1);
}
