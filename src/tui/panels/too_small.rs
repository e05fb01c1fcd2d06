//! What a screen says on which nothing could be read.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::layout::{COLUMNS_MIN, ROWS_MIN};
use super::super::text;
use super::super::theme::Theme;
use super::put;

/// Draws it.
pub fn draw(buffer: &mut Buffer, area: Rect, theme: Theme) {
    let sentence = format!(
        "Too small: stallscope needs {COLUMNS_MIN} columns by {ROWS_MIN} rows and has {} by {}. \
         Enlarge the terminal, or press q to leave.",
        area.width, area.height
    );
    let rows = usize::from(area.height);
    let lines: Vec<_> = text::wrap(&sentence, usize::from(area.width), rows)
        .into_iter()
        .map(|line| Line::styled(line, theme.warn()))
        .collect();
    put(buffer, area, &lines, 0);
}
