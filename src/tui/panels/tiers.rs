//! The tiers of evidence: what can be seen, and what would permit the rest.
//!
//! ```text
//!  Evidence: what can be seen
//!  ✓ ring memory           heads and tails of its rings at every tick, last completions
//!  - kernel stacks: not due yet: …
//!      needs: a stall that is suspected: it is read only then
//!  ! pressure: failed: …
//! ```

use super::detail::Text;
use crate::model::Model;
use crate::model::tiers::{Tier, TierStatus};

/// Columns for the name of a tier.
const NAME: usize = 21;

/// Adds them to the page: those that are read, then the others by their reasons.
pub(super) fn entries(page: &mut Text, model: &Model) {
    let active = model.tiers.iter().filter(|tier| tier.status.is_active());
    page.heading(&format!(
        "Evidence: {} of {} tiers can be seen",
        active.clone().count(),
        model.tiers.len()
    ));
    for tier in active {
        let mark = format!(" ✓ {:NAME$} ", tier.tier.name());
        page.entry(&mark, tier.tier.meaning(), page.theme.plain());
    }
    for (status, tiers) in without(model) {
        let names: Vec<&str> = tiers.iter().map(|tier| tier.name()).collect();
        let names = names.join(", ");
        match status {
            TierStatus::Active => {}
            TierStatus::Absent { why, permit, .. } => {
                page.entry(" - ", &format!("{names}: absent: {why}"), page.theme.dim());
                page.entry("     ", &format!("needs: {permit}"), page.theme.label());
            }
            TierStatus::Failed { why } => {
                page.entry(" ! ", &format!("{names}: failed: {why}"), page.theme.bad());
            }
        }
    }
}

/// The tiers that are not read, those with one reason together.
fn without(model: &Model) -> Vec<(&TierStatus, Vec<Tier>)> {
    let mut groups: Vec<(&TierStatus, Vec<Tier>)> = Vec::new();
    for tier in model.tiers.iter().filter(|tier| !tier.status.is_active()) {
        match groups.iter_mut().find(|(status, _)| **status == tier.status) {
            Some((_, tiers)) => tiers.push(tier.tier),
            None => groups.push((&tier.status, vec![tier.tier])),
        }
    }
    groups
}
