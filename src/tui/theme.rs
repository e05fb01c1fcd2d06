//! Colours with a meaning. Each meaning also has a word or a sign beside it, so nothing is lost on
//! a terminal without colours or under `NO_COLOR` (no-color.org).

use ratatui::style::{Color, Modifier, Style};

/// The styles of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// With colours or without.
    pub const fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn with(self, modifier: Modifier, foreground: Color) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colour { style.fg(foreground) } else { style }
    }

    fn bar(self, foreground: Color, background: Color) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour {
            style.fg(foreground).bg(background)
        } else {
            style.add_modifier(Modifier::REVERSED)
        }
    }

    /// Ordinary text.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// What explains a value.
    pub fn label(self) -> Style {
        self.with(Modifier::empty(), Color::Gray)
    }

    /// What is absent or beside the point.
    pub fn dim(self) -> Style {
        self.with(Modifier::DIM, Color::Gray)
    }

    /// The line over a panel.
    pub fn rule(self) -> Style {
        self.with(Modifier::empty(), Color::DarkGray)
    }

    /// The name of a panel.
    pub fn title(self) -> Style {
        self.with(Modifier::BOLD, Color::Cyan)
    }

    /// The name of the panel that the arrow keys move.
    pub fn focus(self) -> Style {
        self.with(Modifier::BOLD | Modifier::REVERSED, Color::Cyan)
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.with(Modifier::empty(), Color::Green)
    }

    /// Worth a look.
    pub fn warn(self) -> Style {
        self.with(Modifier::BOLD, Color::Yellow)
    }

    /// Wrong.
    pub fn bad(self) -> Style {
        self.with(Modifier::BOLD, Color::Red)
    }

    /// The bar of a healthy target.
    pub fn bar_good(self) -> Style {
        self.bar(Color::Black, Color::Green)
    }

    /// The bar of a suspected stall.
    pub fn bar_warn(self) -> Style {
        self.bar(Color::Black, Color::Yellow)
    }

    /// The bar of a stall.
    pub fn bar_bad(self) -> Style {
        self.bar(Color::White, Color::Red)
    }

    /// The bar when nothing can be said.
    pub fn bar_neutral(self) -> Style {
        self.bar(Color::Black, Color::Gray)
    }

    /// A key in the line of hints.
    pub fn key(self) -> Style {
        self.with(Modifier::BOLD, Color::Cyan)
    }

    /// The style of a gauge that is `ratio` full.
    pub fn fill(self, ratio: f64) -> Style {
        match ratio {
            ratio if ratio >= 0.95 => self.bad(),
            ratio if ratio >= 0.80 => self.warn(),
            _ => self.good(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_no_style_sets_one() {
        let theme = Theme::new(false);
        let all = [
            theme.plain(),
            theme.label(),
            theme.dim(),
            theme.rule(),
            theme.title(),
            theme.focus(),
            theme.good(),
            theme.warn(),
            theme.bad(),
            theme.bar_good(),
            theme.bar_warn(),
            theme.bar_bad(),
            theme.bar_neutral(),
            theme.key(),
            theme.fill(1.0),
        ];
        assert!(all.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
        assert!(theme.bar_bad().add_modifier.contains(Modifier::REVERSED), "a bar without colours");
    }
}
