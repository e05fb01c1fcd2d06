//! Where each panel goes, in integer columns and rows. Knows no terminal library.

/// Columns below which the screen says that it is too small.
pub const COLUMNS_MIN: u16 = 80;
/// Rows below which it says so.
pub const ROWS_MIN: u16 = 24;

/// Columns from which the four middle panels stand side by side.
const SIDE_BY_SIDE_COLUMNS: u16 = 164;
/// Columns between two panels.
const GAP: u16 = 1;
/// Rows of the two lines at the top.
const HEADER_ROWS: u16 = 2;
/// Rows of the line at the bottom.
const FOOTER_ROWS: u16 = 1;

/// A rectangle of the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Area {
    /// Columns from the left.
    pub x: u16,
    /// Rows from the top.
    pub y: u16,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The place of every panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// Who, where, how late.
    pub header: Area,
    /// What is the matter.
    pub banner: Area,
    /// Fds, ports, the process.
    pub limits: Area,
    /// Accept queues.
    pub accept: Area,
    /// Rings.
    pub rings: Area,
    /// Rates of the heartbeat.
    pub throughput: Area,
    /// Threads.
    pub threads: Area,
    /// Connections to others, throttling, pressure; where there is room.
    pub outside: Option<Area>,
    /// Events.
    pub log: Area,
    /// Keys.
    pub footer: Area,
    /// A page over all but header and footer.
    pub page: Area,
}

/// The areas for a screen of this size; `None` when it is too small.
pub fn areas(columns: u16, rows: u16) -> Option<Areas> {
    if columns < COLUMNS_MIN || rows < ROWS_MIN {
        return None;
    }
    let full = |y, height| Area { x: 0, y, width: columns, height };
    let banner = full(HEADER_ROWS, banner_rows(rows));
    let side_by_side = columns >= SIDE_BY_SIDE_COLUMNS;
    let grid = full(banner.y + banner.height, grid_rows(rows, side_by_side));
    let [limits, accept, rings, throughput] =
        if side_by_side { in_a_row(grid) } else { two_by_two(grid) };
    let below = grid.y + grid.height;
    let left = rows - below - FOOTER_ROWS;
    let log_rows = (left / 3).max(3);
    let outside_rows = outside_rows(rows);
    let threads_rows = left - log_rows - outside_rows;
    Some(Areas {
        header: full(0, HEADER_ROWS),
        banner,
        limits,
        accept,
        rings,
        throughput,
        threads: full(below, threads_rows),
        outside: (outside_rows > 0).then(|| full(below + threads_rows, outside_rows)),
        log: full(below + left - log_rows, log_rows),
        footer: full(rows - FOOTER_ROWS, FOOTER_ROWS),
        page: full(HEADER_ROWS, rows - HEADER_ROWS - FOOTER_ROWS),
    })
}

/// The bar, its summary and the strongest evidence.
const fn banner_rows(rows: u16) -> u16 {
    match rows {
        0..30 => 4,
        30..45 => 7,
        _ => 9,
    }
}

/// A title, a line for the process as a whole, and some connections.
const fn outside_rows(rows: u16) -> u16 {
    match rows {
        0..36 => 0,
        36..45 => 4,
        _ => 7,
    }
}

const fn grid_rows(rows: u16, side_by_side: bool) -> u16 {
    match (rows, side_by_side) {
        (0..30, false) => 9,
        (30..36, false) => 11,
        (36..45, false) => 13,
        (_, false) => 16,
        (0..30, true) => 6,
        (30..45, true) => 8,
        (_, true) => 12,
    }
}

/// Limits over accept queues on the left, rings over throughput on the right.
const fn two_by_two(grid: Area) -> [Area; 4] {
    let left = (grid.width - GAP) / 2;
    let right = grid.width - GAP - left;
    let right_x = grid.x + left + GAP;
    // Three resources, and one ring: as many rows as these need; the rest goes below them.
    let upper = if grid.height < 13 { 4 } else { 6 };
    let lower = grid.height - upper;
    [
        Area { x: grid.x, y: grid.y, width: left, height: upper },
        Area { x: grid.x, y: grid.y + upper, width: left, height: lower },
        Area { x: right_x, y: grid.y, width: right, height: upper },
        Area { x: right_x, y: grid.y + upper, width: right, height: lower },
    ]
}

fn in_a_row(grid: Area) -> [Area; 4] {
    let each = (grid.width - 3 * GAP) / 4;
    std::array::from_fn(|at| {
        let x = grid.x + at as u16 * (each + GAP);
        // What the division leaves over goes to the last.
        let width = if at == 3 { grid.x + grid.width - x } else { each };
        Area { x, y: grid.y, width, height: grid.height }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn panels(areas: &Areas) -> Vec<Area> {
        let always = [
            areas.header,
            areas.banner,
            areas.limits,
            areas.accept,
            areas.rings,
            areas.throughput,
            areas.threads,
            areas.log,
            areas.footer,
        ];
        always.into_iter().chain(areas.outside).collect()
    }

    #[test]
    fn the_smallest_screen_and_one_less() {
        assert!(areas(80, 24).is_some());
        assert!(areas(79, 24).is_none());
        assert!(areas(80, 23).is_none());
        assert!(areas(0, 0).is_none());
    }

    #[test]
    fn sizes_at_the_usual_terminals() {
        let small = areas(80, 24).unwrap();
        assert_eq!((small.banner.height, small.threads.height, small.log.height), (4, 5, 3));
        assert_eq!((small.limits.width, small.rings.width), (39, 40));
        assert_eq!((small.limits.height, small.accept.height), (4, 5));
        let middle = areas(120, 40).unwrap();
        assert_eq!((middle.banner.height, middle.threads.height, middle.log.height), (7, 8, 5));
        assert_eq!((small.outside, middle.outside.map(|area| area.height)), (None, Some(4)));
        assert_eq!((middle.limits.height, middle.accept.height), (6, 7));
        let big = areas(200, 60).unwrap();
        assert_eq!(big.limits.y, big.throughput.y, "side by side");
        assert!(big.threads.height > middle.threads.height);
    }

    proptest! {
        #[test]
        fn panels_cover_the_screen_without_overlap(columns in 80_u16..400, rows in 24_u16..200) {
            let areas = areas(columns, rows).unwrap();
            let all = panels(&areas);
            for (at, one) in all.iter().enumerate() {
                prop_assert!(one.width >= 38 && one.height >= 1, "{one:?}");
                prop_assert!(one.x + one.width <= columns && one.y + one.height <= rows);
                for other in &all[at + 1..] {
                    let apart = one.x + one.width <= other.x
                        || other.x + other.width <= one.x
                        || one.y + one.height <= other.y
                        || other.y + other.height <= one.y;
                    prop_assert!(apart, "{one:?} {other:?}");
                }
            }
            let covered: u32 =
                all.iter().map(|one| u32::from(one.width) * u32::from(one.height)).sum();
            let gaps = u32::from(columns) * u32::from(rows) - covered;
            // Only the columns between panels stay empty.
            let grid = u32::from(areas.threads.y - areas.limits.y);
            prop_assert!(gaps == grid || gaps == 3 * grid, "{gaps}");
        }
    }
}
