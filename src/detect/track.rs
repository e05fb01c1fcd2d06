//! One thing that ought to progress while there is demand, watched look by look.

use super::thresholds::{
    BARREN_LOOKS_MIN, BARREN_LOOKS_ON_RECORD_MIN, GAP_COUNTED_MAX_NS, RECOVERY_HOLD_NS,
    RECOVERY_PAUSE_MAX_NS,
};

/// What one look showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When, ns.
    pub at_ns: u64,
    /// What is waiting, in words; `None` when nothing is.
    pub demand: Option<String>,
    /// Whether anything moved since the look before.
    pub progress: Progress,
    /// Since when the demand has gone unmet, where what waits records that itself.
    pub since_ns: Option<u64>,
}

/// Whether anything moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Yes, at this instant, give or take.
    Made {
        /// When, ns.
        at_ns: u64,
        /// Half-width of the uncertainty, ns.
        within_ns: u64,
    },
    /// Surely not.
    None,
    /// It could not be told this time.
    Unknown,
}

impl Progress {
    /// Progress at an unknown instant between two looks.
    pub const fn between(then_ns: u64, now_ns: u64) -> Self {
        let half = now_ns.saturating_sub(then_ns) / 2;
        Self::Made { at_ns: now_ns.saturating_sub(half), within_ns: half }
    }
}

/// The stall of one track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    /// The last progress, or the first unmet demand after it, ns.
    pub at_ns: u64,
    /// Half-width of the uncertainty, ns.
    pub within_ns: u64,
    /// Whether it was so at the first look.
    pub before_watch: bool,
    /// What is waiting.
    pub demand: String,
}

/// Follows one thing through its looks.
#[derive(Debug, Clone)]
pub struct Track {
    hold_ns: u64,
    looked: bool,
    last_look_ns: u64,
    last_progress: Option<(u64, u64)>,
    /// Look at which the present demand was first seen, the look before it, and whether that was
    /// the very first look of all.
    demand_since: Option<(u64, u64, bool)>,
    barren_looks: u32,
    barren_ns: u64,
    /// Time that passed in looks that could not tell; the next sure look decides what it was.
    untold_ns: u64,
    stalled: bool,
    /// Progress since the stall: when it was made, and when that was seen.
    resumed: Option<(u64, u64)>,
    suspect: bool,
}

impl Track {
    /// A track that is stalled after `hold_ns` of demand without progress.
    pub const fn new(hold_ns: u64) -> Self {
        Self {
            hold_ns,
            looked: false,
            last_look_ns: 0,
            last_progress: None,
            demand_since: None,
            barren_looks: 0,
            barren_ns: 0,
            untold_ns: 0,
            stalled: false,
            resumed: None,
            suspect: false,
        }
    }

    /// How long demand may go unmet from now on: what else is seen may shorten it.
    pub const fn set_hold(&mut self, hold_ns: u64) {
        self.hold_ns = hold_ns;
    }

    /// When progress was last made.
    pub fn last_progress_ns(&self) -> Option<u64> {
        self.last_progress.map(|(at_ns, _)| at_ns)
    }

    /// Whether it is stalled now.
    pub const fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Takes that it is `now_ns` and there may be nothing left to look at.
    pub const fn forget_if_unseen(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.last_look_ns) > UNSEEN_NS {
            self.stalled = false;
        }
    }

    /// Whether the last look showed demand, and no sure progress.
    pub const fn is_suspect(&self) -> bool {
        self.stalled || self.suspect
    }

    /// When progress resumed, while or after recovering.
    pub fn resumed_ns(&self) -> Option<u64> {
        self.resumed.map(|(made_ns, _)| made_ns)
    }

    /// Takes the next look; returns the stall if this look establishes one.
    pub fn push(&mut self, look: &Look) -> Option<Stalled> {
        let gap_ns = look.at_ns.saturating_sub(self.last_look_ns);
        let before_ns = if self.looked { self.last_look_ns } else { look.at_ns };
        let first = !self.looked;
        let counted_ns = if first { 0 } else { gap_ns.min(GAP_COUNTED_MAX_NS) };
        self.looked = true;
        self.last_look_ns = look.at_ns;
        match &look.demand {
            None => {
                self.demand_since = None;
                self.calm();
            }
            Some(_) => {
                self.demand_since.get_or_insert((look.at_ns, before_ns, first));
            }
        }
        self.suspect = look.demand.is_some() && !is_recent(look);
        match look.progress {
            Progress::Made { at_ns, within_ns } => {
                // A census is late news: it must not date back what was seen since.
                if self.last_progress.is_none_or(|(last_ns, _)| at_ns >= last_ns) {
                    self.last_progress = Some((at_ns, within_ns));
                }
                self.calm();
            }
            Progress::None if look.demand.is_some() => {
                self.barren_looks = self.barren_looks.saturating_add(1);
                self.barren_ns =
                    self.barren_ns.saturating_add(self.untold_ns).saturating_add(counted_ns);
                self.untold_ns = 0;
            }
            Progress::Unknown if look.demand.is_some() => {
                self.untold_ns = self.untold_ns.saturating_add(counted_ns);
            }
            Progress::None | Progress::Unknown => {}
        }
        if self.stalled {
            self.recover(look);
            return None;
        }
        let demand = look.demand.clone()?;
        let (at_ns, within_ns, before_watch) = self.start()?;
        let held = match look.since_ns {
            Some(since_ns) => {
                look.at_ns.saturating_sub(since_ns) >= self.hold_ns
                    && self.barren_looks >= BARREN_LOOKS_ON_RECORD_MIN
            }
            None => {
                look.at_ns.saturating_sub(at_ns) >= self.hold_ns
                    && self.barren_ns >= self.hold_ns / 2
                    && self.barren_looks >= BARREN_LOOKS_MIN
            }
        };
        if !held {
            return None;
        }
        self.stalled = true;
        self.resumed = None;
        Some(Stalled { at_ns, within_ns, before_watch, demand })
    }

    const fn calm(&mut self) {
        self.barren_looks = 0;
        self.barren_ns = 0;
        self.untold_ns = 0;
    }

    /// When the present demand began to go unmet.
    fn start(&self) -> Option<(u64, u64, bool)> {
        let (seen_ns, before_ns, at_first_look) = self.demand_since?;
        let half_ns = seen_ns.saturating_sub(before_ns) / 2;
        let demand = (seen_ns.saturating_sub(half_ns), half_ns);
        match self.last_progress {
            Some(progress) if progress.0 >= demand.0 => Some((progress.0, progress.1, false)),
            Some(_) => Some((demand.0, demand.1, false)),
            None => Some((demand.0, demand.1, at_first_look)),
        }
    }

    fn recover(&mut self, look: &Look) {
        match look.progress {
            Progress::Made { at_ns, .. } => {
                self.resumed.get_or_insert((at_ns, look.at_ns));
            }
            Progress::None | Progress::Unknown => {
                let paused_ns = self
                    .last_progress
                    .map_or(u64::MAX, |(at_ns, _)| look.at_ns.saturating_sub(at_ns));
                if look.demand.is_some() && paused_ns > RECOVERY_PAUSE_MAX_NS {
                    self.resumed = None;
                } else if look.demand.is_none() {
                    // What waited is gone.
                    self.resumed.get_or_insert((look.at_ns, look.at_ns));
                }
            }
        }
        let seen_ns = self.resumed.map(|(_, seen_ns)| seen_ns);
        if seen_ns.is_some_and(|seen_ns| look.at_ns.saturating_sub(seen_ns) >= RECOVERY_HOLD_NS) {
            self.stalled = false;
        }
    }
}

/// Whether progress was made, and just now: where what waits records its times itself, progress that
/// is first seen long after is none any more.
fn is_recent(look: &Look) -> bool {
    match look.progress {
        Progress::Made { at_ns, .. } => {
            look.since_ns.is_none() || look.at_ns.saturating_sub(at_ns) < RECENT_NS
        }
        Progress::None | Progress::Unknown => false,
    }
}

/// What nobody could look at for so long is not known to be stalled any more; the dearest census comes
/// every half minute.
const UNSEEN_NS: u64 = 60_000_000_000;

/// Longer ago than an ordinary answer takes.
const RECENT_NS: u64 = 250_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One letter a look, 50 ms apart: `.` nothing to do, `p` demand and progress, `x` demand and
    /// none, `?` demand and cannot tell, `P` progress without demand, `_` the watcher missed the look.
    fn run(track: &mut Track, script: &str) -> Vec<(u64, Stalled)> {
        let mut stalls = Vec::new();
        let mut before_ns = 0;
        for (index, letter) in script.chars().enumerate() {
            let at_ns = (index as u64 + 1) * 50 * MS;
            if letter == '_' {
                continue;
            }
            let progress = match letter {
                'p' | 'P' => Progress::between(before_ns, at_ns),
                '?' => Progress::Unknown,
                _ => Progress::None,
            };
            let demand = "px?".contains(letter).then(|| String::from("work"));
            if let Some(stalled) = track.push(&Look { at_ns, demand, progress, since_ns: None }) {
                stalls.push((at_ns / MS, stalled));
            }
            before_ns = at_ns;
        }
        stalls
    }

    #[test]
    fn a_stall_needs_demand_without_progress_for_the_hold() {
        let cases = [
            // No onset: idle, busy, a pause that is too short, one that cannot be told.
            ("....................", None),
            ("pppppppppppppppppppp", None),
            ("ppppxxxxxxxxpppppppp", None),
            ("PPPP????????????????", None),
            ("xx..xx..xx..xx..xx..", None),
            // Onset at the last progress: it lies between looks 3 and 4, so at 175 ms.
            ("ppppxxxxxxxxxxxxxxxx", Some(175)),
            ("ppppx?x?x?x?x?x?x?x?xxxx", Some(175)),
            // Idle in between: the onset is where demand began, between looks 8 and 9.
            ("pppp....xxxxxxxxxxxx", Some(425)),
        ];
        for (script, onset_ms) in cases {
            let stalls = run(&mut Track::new(500 * MS), script);
            let at_ms = stalls.first().map(|(_, stalled)| stalled.at_ns / MS);
            assert_eq!(at_ms, onset_ms, "{script}");
            assert!(stalls.len() <= 1, "{script}");
        }
    }

    #[test]
    fn a_stall_older_than_the_watch_is_said_to_be() {
        let stalls = run(&mut Track::new(500 * MS), "xxxxxxxxxxxxxxxxxxxx");
        assert!(stalls[0].1.before_watch);
        let stalls = run(&mut Track::new(500 * MS), ".xxxxxxxxxxxxxxxxxxx");
        assert!(!stalls[0].1.before_watch);
    }

    #[test]
    fn a_watcher_that_was_away_does_not_invent_a_stall() {
        let stalls = run(&mut Track::new(500 * MS), "pppp____________________xp");
        assert_eq!(stalls, []);
        let stalls = run(&mut Track::new(500 * MS), "pppp____________________x_____xpppp");
        assert_eq!(stalls, []);
    }

    #[test]
    fn recovery_needs_lasting_progress() {
        let mut track = Track::new(500 * MS);
        run(&mut track, "ppppxxxxxxxxxxxxxxxx");
        assert!(track.is_stalled());
        let mut one_accept = track.clone();
        one_accept.push(&Look {
            at_ns: 1050 * MS,
            demand: Some("work".into()),
            progress: Progress::Made { at_ns: 1050 * MS, within_ns: 0 },
            since_ns: None,
        });
        for look in 0..20 {
            one_accept.push(&Look {
                at_ns: (1100 + look * 50) * MS,
                demand: Some("work".into()),
                progress: Progress::None,
                since_ns: None,
            });
        }
        assert!(one_accept.is_stalled(), "a single accept is not recovery");
        for look in 0..12 {
            let at_ns = (1050 + look * 50) * MS;
            let progress = Progress::Made { at_ns, within_ns: 0 };
            track.push(&Look { at_ns, demand: Some("work".into()), progress, since_ns: None });
        }
        assert!(!track.is_stalled());
        assert_eq!(track.resumed_ns(), Some(1050 * MS));
    }
}
