//! Puts the panels on the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::{App, Extent, Extents, Page, Pane};
use super::layout::{self, Area};
use super::panels;
use super::theme::Theme;

impl From<Area> for Rect {
    fn from(area: Area) -> Self {
        Self::new(area.x, area.y, area.width, area.height)
    }
}

/// Draws `app` over the whole of `buffer` and tells how much each pane holds, so that scrolling
/// knows its bounds ([`super::app::Message::Drawn`]).
pub fn draw(buffer: &mut Buffer, app: &App, theme: Theme) -> Extents {
    let area = buffer.area;
    let mut extents = Extents::default();
    let Some(areas) = layout::areas(area.width, area.height) else {
        panels::too_small::draw(buffer, area, theme);
        return extents;
    };
    panels::header::draw(buffer, areas.header.into(), app, theme);
    panels::footer::draw(buffer, areas.footer.into(), app, theme);
    if let Some(page) = app.page() {
        extents.set(Pane::Page, draw_page(buffer, areas.page.into(), app, page, theme));
        return extents;
    }
    panels::banner::draw(buffer, areas.banner.into(), app, theme);
    panels::limits::draw(buffer, areas.limits.into(), app, theme);
    panels::throughput::draw(buffer, areas.throughput.into(), app, theme);
    let accept = panels::accept::draw(buffer, areas.accept.into(), app, theme);
    let rings = panels::rings::draw(buffer, areas.rings.into(), app, theme);
    if let Some(outside) = areas.outside {
        panels::outside::draw(buffer, outside.into(), app, theme);
    }
    let threads = panels::threads::draw(buffer, areas.threads.into(), app, theme);
    let log = panels::log::draw(buffer, areas.log.into(), app, theme);
    for (pane, extent) in
        [(Pane::Accept, accept), (Pane::Rings, rings), (Pane::Threads, threads), (Pane::Log, log)]
    {
        extents.set(pane, extent);
    }
    extents
}

fn draw_page(buffer: &mut Buffer, area: Rect, app: &App, page: Page, theme: Theme) -> Extent {
    let (title, lines) = match page {
        Page::Help => ("Keys", panels::help::lines(app, area.width, theme)),
        Page::Verdict => ("Verdict", panels::detail::lines(app, area.width, theme)),
        Page::Absent => {
            ("Evidence and conditions", panels::conditions::lines(app, area.width, theme))
        }
    };
    panels::page(buffer, area, title, &lines, app.offset(Pane::Page), theme)
}
