//! Opens reports from disk in headless chromium: no console message, no breach of the page's own
//! policy, a time line that zooms, flamegraphs that draw, zoom and search, in light and dark, narrow
//! and on paper.
//!
//! Needs `chromium` and `chromedriver` (Debian: `apt-get install chromium chromium-driver`). In CI
//! their absence is a failure, elsewhere it is printed.

#![expect(clippy::disallowed_methods, reason = "a test that writes files and waits for a browser")]

mod browser;
mod report_fixture;

use std::path::Path;

use browser::{Browser, ENTER, in_browser};
use report_fixture::poison::poisoned;
use serde_json::{Value, json};
use stallscope::report::html;
use stallscope::watch::event::Incident;

/// Writes a report and opens it.
fn open(browser: &Browser<'_>, folder: &Path, name: &str, incident: &Incident) {
    let path = folder.join(format!("{name}.html"));
    std::fs::write(&path, html(incident)).expect("written");
    browser.open(&path);
}

/// Nothing wider than the window, nothing said on the console, nothing asked for.
fn assert_sound(browser: &Browser<'_>, name: &str) {
    let wide = "return document.documentElement.scrollWidth - innerWidth";
    assert!(browser.script(wide).as_i64().is_some_and(|px| px <= 0), "{name} is too wide");
    let asked = "return performance.getEntriesByType('resource').map(entry => entry.name)";
    assert_eq!(browser.script(asked), json!([]), "{name} asks for something");
    let console = browser.console();
    assert!(console.is_empty(), "{name}: {console:#?}");
}

#[test]
fn every_report_opens_from_disk_in_silence_and_draws_its_charts() {
    in_browser(|browser, folder| {
        for (name, incident) in report_fixture::all() {
            browser.resize(1_280, 1_000);
            open(browser, folder, name, &incident);
            let styled = "getComputedStyle(document.querySelector('h1')).fontSize !== '2em' && \
                          getComputedStyle(document.querySelector('main')).maxWidth === '1160px'";
            browser.wait(styled);
            let flat = "return [...document.querySelectorAll('path.line')].filter(p => \
                        p.getAttribute('d') && !(p.getBoundingClientRect().width > 0)).length";
            assert_eq!(browser.script(flat), 0, "{name}: a line has no extent");
            let panels = browser.script(
                "return [...document.querySelectorAll('.panel:has(iframe)')].map(p => p.id)",
            );
            for panel in panels.as_array().expect("a list").iter().filter_map(Value::as_str) {
                browser.script(&format!("document.getElementById('tab-{panel}')?.click()"));
                browser.enter_frame(&format!("#{panel} iframe"));
                browser.wait("document.querySelectorAll('#frames g[tabindex]').length > 3");
                browser.wait(
                    "[...document.querySelectorAll('#frames text')].some(t => t.textContent.length > 9)",
                );
                browser.leave_frame();
            }
            assert_sound(browser, name);
            browser.resize(360, 800);
            assert_sound(browser, &format!("{name} on a narrow screen"));
        }
    });
}

#[test]
fn the_time_line_zooms_by_button_key_wheel_and_drag_and_says_so() {
    in_browser(|browser, folder| {
        browser.resize(1_280, 1_000);
        open(browser, folder, "zoom", &report_fixture::sq_not_flushed());
        browser.wait("document.getElementById('shown').textContent.startsWith('The whole run: 2')");
        let path = "document.querySelector('figure.lane path.line').getAttribute('d')";
        let points = format!("{path}.split(/[ML]/).length");
        let tick = "document.getElementById('ticks').textContent";
        browser.script(&format!("window.before = {{ d: {path}, points: {points}, tick: {tick} }}"));

        // Around the onset: every lane is drawn anew, marks move along, the stall fills its part.
        browser.act(&browser.element("[data-do=onset]"), "click", &json!({}));
        browser.wait("document.getElementById('shown').textContent.startsWith('10.0 s of 2')");
        browser.wait(&format!(
            "{path} !== before.d && {points} < before.points && {tick} !== before.tick"
        ));
        let onset =
            "parseFloat(document.querySelector('figure.lane line.m-onset').getAttribute('x1'))";
        browser.wait(&format!("Math.abs({onset} - 50) < 1"));
        let redrawn = "[...document.querySelectorAll('figure.lane')].every(lane => \
                       Math.abs(parseFloat(lane.querySelector('line.m-onset').getAttribute('x1')) - 50) < 1)";
        browser.wait(redrawn);

        // Keys: in, along, all.
        browser.script("document.getElementById('lanes').focus()");
        browser.keys("+");
        browser.wait("document.getElementById('shown').textContent.startsWith('5.00 s of 2')");
        browser.keys("\u{e014}");
        browser.wait(&format!("Math.abs({onset} - 30) < 1"));
        browser.wait("document.getElementById('said').textContent.startsWith('5.00 s of 2')");
        browser.keys("0");
        browser.wait("document.getElementById('shown').textContent.startsWith('The whole run')");
        browser.wait(&format!("{path} === before.d || {points} === before.points"));

        // A drag over a lane picks a stretch: a quarter of the plot is a quarter of the run.
        browser.script("document.getElementById('lanes').scrollIntoView()");
        let plot = browser.script(
            "const r = document.querySelector('figure.lane svg.plot').getBoundingClientRect();\
             return [r.left, r.top, r.width, r.height]",
        );
        let at = |n: usize| plot[n].as_f64().expect("a number");
        let (left, y, width) = (at(0), (at(1) + at(3) / 2.0) as i64, at(2));
        let mouse = |kind: &str, x: f64, button: &str| {
            let buttons = u8::from(button == "left");
            let params = json!({ "type": kind, "x": x as i64, "y": y, "button": button,
                "buttons": buttons, "clickCount": buttons });
            browser.devtools("Input.dispatchMouseEvent", &params);
        };
        mouse("mousePressed", left + width * 0.25, "left");
        mouse("mouseMoved", left + width * 0.4, "left");
        mouse("mouseMoved", left + width * 0.5, "left");
        mouse("mouseReleased", left + width * 0.5, "left");
        browser.wait("/^6\\.\\d+ s of 2/.test(document.getElementById('shown').textContent)");

        // The cursor reads all lanes; a wheel over a lane scrolls the page, with Ctrl it zooms.
        mouse("mouseMoved", left + width * 0.3, "none");
        browser.wait("/UTC$/.test(document.getElementById('instant').textContent)");
        browser.wait("[...document.querySelectorAll('.figures')].every(f => !f.textContent.startsWith('max'))");
        let wheel = |modifiers: u8| {
            let params = json!({ "type": "mouseWheel", "x": (left + width * 0.3) as i64, "y": y,
                "deltaX": 0, "deltaY": -400, "modifiers": modifiers });
            browser.devtools("Input.dispatchMouseEvent", &params);
        };
        browser.script(
            "window.shown = document.getElementById('shown').textContent; window.scrolled = scrollY",
        );
        wheel(0);
        browser.wait("document.getElementById('shown').textContent === shown");
        browser.wait("scrollY < scrolled");
        browser.script("document.getElementById('lanes').scrollIntoView()");
        wheel(2);
        browser.wait("document.getElementById('shown').textContent !== shown");
        assert_sound(browser, "zoomed");
    });
}

#[test]
fn tabs_show_one_flamegraph_at_a_time_by_pointer_and_by_keyboard() {
    in_browser(|browser, folder| {
        browser.resize(1_280, 1_000);
        open(browser, folder, "tabs", &report_fixture::sq_not_flushed());
        let shown = "[...document.querySelectorAll('.panel')]\
                     .filter(p => getComputedStyle(p).visibility === 'visible').map(p => p.id).join()";
        browser.wait(&format!("{shown} === 'flame-stalled'"));
        browser.act(&browser.element("a[href='#flame-difference']"), "click", &json!({}));
        browser.wait(&format!("{shown} === 'flame-difference'"));
        browser.wait("document.activeElement.getAttribute('aria-selected') === 'true'");
        browser.keys("\u{e014}");
        browser.wait(&format!("{shown} === 'flame-onset'"));
        browser.keys("\u{e011}");
        browser.wait(&format!("{shown} === 'flame-stalled'"));
        browser.keys("\u{e010}");
        browser.wait(&format!("{shown} === 'flame-off-onset'"));
        browser.wait("document.querySelectorAll('[role=tab][tabindex=\"0\"]').length === 1");

        // What only the stall has is marked in the drawing.
        browser.enter_frame("#flame-difference iframe");
        browser.wait(
            "[...document.querySelectorAll('#frames .only title')]\
                      .some(t => t.textContent.includes('always_ready'))",
        );
        browser.leave_frame();
        // Where nothing burns CPU, what waits is shown first.
        open(browser, folder, "blocked", &report_fixture::runtime_blocked());
        browser.wait(&format!("{shown} === 'flame-off'"));
        assert_sound(browser, "tabs");
    });
}

#[test]
fn hostile_names_stay_text_where_a_browser_reads_them() {
    in_browser(|browser, folder| {
        let long = "x".repeat(10_000);
        let texts =
            ["</script><img src=x onerror=window.owned=1>", "\u{1b}]0;owned\u{7}\u{202e}", &long];
        for text in texts {
            open(browser, folder, "hostile", &poisoned(text));
            browser.wait("document.querySelector('#lanes.live')");
            assert_eq!(browser.script("return window.owned || null"), Value::Null);
            assert_eq!(browser.script("return document.querySelectorAll('img').length"), 0);
            browser.resize(390, 800);
            assert_sound(browser, text.get(..20).unwrap_or(text));
            browser.resize(1_280, 1_000);
        }
    });
}

#[test]
fn on_paper_there_are_no_controls_and_nothing_is_folded_away() {
    in_browser(|browser, folder| {
        browser.emulate("print", "light");
        browser.resize(794, 1_123);
        open(browser, folder, "print", &report_fixture::sq_not_flushed());
        let hidden = "[...document.querySelectorAll('.tools, .tabs, nav, .skip')]\
                      .every(e => getComputedStyle(e).display === 'none')";
        browser.wait(hidden);
        browser.wait(
            "[...document.querySelectorAll('.panel')].every(p => \
                      getComputedStyle(p).visibility === 'visible' && p.offsetHeight > 100)",
        );
        browser.wait(
            "[...document.querySelectorAll('details > :not(summary)')].every(e => \
                      e.checkVisibility() && e.offsetHeight > 0)",
        );
        assert_sound(browser, "on paper");
    });
}

/// Least contrast of all text, as WCAG 2.2 (1.4.3) computes it, with where it is.
const CONTRAST: &str = r"
    const rgba = c => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const over = (top, below) => {
        const a = top.length > 3 ? top[3] : 1;
        return [0, 1, 2].map(n => top[n] * a + below[n] * (1 - a));
    };
    const light = c => {
        const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = e => e ? over(rgba(getComputedStyle(e).backgroundColor), paper(e.parentElement)) : [255, 255, 255];
    const bad = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.textContent.trim() || e.closest('script, style, iframe, .skip') || !e.checkVisibility()) continue;
        const css = getComputedStyle(e), below = paper(e instanceof SVGElement ? e.closest('div') : e);
        const [a, b] = [light(over(rgba(e instanceof SVGElement ? css.fill : css.color), below)), light(below)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const size = parseFloat(css.fontSize), large = size >= 24 || size >= 18.66 && css.fontWeight >= 700;
        if (ratio < (large ? 3 : 4.5)) bad.push([walk.currentNode.textContent.slice(0, 30), e.className.baseVal ?? e.className, ratio]);
    }
    return bad";

#[test]
fn text_stands_out_in_light_and_in_dark() {
    in_browser(|browser, folder| {
        for scheme in ["light", "dark"] {
            browser.emulate("screen", scheme);
            for (name, incident) in report_fixture::all() {
                open(browser, folder, name, &incident);
                let bad = browser.script(CONTRAST);
                assert_eq!(bad, json!([]), "{name} in {scheme}");
            }
        }
        let paper = "return getComputedStyle(document.body).backgroundColor";
        assert_eq!(browser.script(paper), "rgb(19, 22, 25)", "dark is dark");
    });
}

/// Writes the pictures of the documentation into the folder that `STALLSCOPE_SCREENSHOTS` names.
#[test]
#[ignore = "writes pictures; asked for by STALLSCOPE_SCREENSHOTS"]
fn pictures_of_a_report() {
    let folder = std::env::var_os("STALLSCOPE_SCREENSHOTS").expect("STALLSCOPE_SCREENSHOTS=DIR");
    let folder = Path::new(&folder);
    in_browser(|browser, scratch| {
        let shots = [
            ("report-light", "screen", "light", 1_200, 1_500),
            ("report-dark", "screen", "dark", 1_200, 1_500),
            ("report-narrow", "screen", "light", 390, 1_600),
            ("report-print", "print", "light", 794, 1_123),
        ];
        for (name, medium, scheme, width, height) in shots {
            browser.emulate(medium, scheme);
            browser.resize(width, height);
            open(browser, scratch, name, &report_fixture::sq_not_flushed());
            browser.picture(&folder.join(format!("{name}.png")));
        }
    });
}

#[test]
fn flamegraphs_zoom_and_search_by_pointer_and_by_keyboard() {
    in_browser(|browser, folder| {
        open(browser, folder, "search", &report_fixture::sq_not_flushed());
        browser.enter_frame("#flame-stalled iframe");
        browser.wait("document.querySelector('#frames g[tabindex]')");

        // Search: the tasks that keep the runtime awake are most of the stalled profile.
        let term = browser.element("#term");
        browser.act(&term, "value", &json!({ "text": format!("always_ready{ENTER}") }));
        browser.wait("document.getElementById('said').textContent.startsWith('Matched: 8')");
        browser.act(&browser.element("#clear"), "click", &json!({}));
        browser.wait("document.getElementById('said').textContent === ''");
        browser.act(&term, "value", &json!({ "text": format!("(unclosed{ENTER}") }));
        browser.wait("document.getElementById('said').textContent.startsWith('Not a regular')");

        // Zoom by keyboard, back by the button.
        let hidden = "document.querySelectorAll('#frames g.hide').length";
        browser.script(
            "[...document.querySelectorAll('#frames g[tabindex]')]\
             .find(g => g.getAttribute('aria-label').includes('tokio: yield')).focus()",
        );
        browser.keys(ENTER);
        browser.wait(&format!("{hidden} > 0"));
        browser.act(&browser.element("#reset"), "click", &json!({}));
        browser.wait(&format!("{hidden} === 0"));

        // Zoom by pointer.
        browser.script(
            "[...document.querySelectorAll('#frames g')]\
             .find(g => g.querySelector('title').textContent.includes('tokio: yield'))\
             .querySelector('rect').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
        );
        browser.wait(&format!("{hidden} > 0"));
        let console = browser.console();
        assert!(console.is_empty(), "{console:#?}");
    });
}

#[test]
fn the_policy_of_the_page_stops_what_escaping_would_miss() {
    in_browser(|browser, folder| {
        let page = String::from_utf8(html(&report_fixture::sq_not_flushed())).expect("UTF-8");
        // As if escaping had failed: a script, a handler and a remote image in the page.
        let holed = page.replacen(
            "<main>",
            "<main><script>window.owned = 1</script>\
             <img src=\"http://127.0.0.1:9/x.png\" onerror=\"window.owned = 2\">",
            1,
        );
        assert_ne!(page, holed);
        let path = folder.join("holed.html");
        std::fs::write(&path, holed).expect("written");
        browser.open(&path);
        assert_eq!(browser.script("return window.owned || null"), Value::Null);
        let refused = browser
            .console()
            .iter()
            .filter(|entry| entry["message"].to_string().contains("Content Security Policy"))
            .count();
        assert!(refused >= 2, "the browser refused {refused} of them");
    });
}
