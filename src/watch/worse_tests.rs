//! A stall that comes in the midst of another: a server that cannot accept as fast as clients come,
//! and then stops altogether.

use super::causes_tests::{BEFORE, RING, answered, overflow, unanswered};
use super::engine::Engine;
use super::event::Event;
use super::world::{Phase, World};
use crate::diagnose::verdict::Confidence;

/// Ticks from the overflow to what comes after it, and from there to the end.
const OVERFLOW: u64 = 160;
const AFTER: u64 = 160;

/// The causes that were certain, in their order.
fn named(then: Phase) -> Vec<&'static str> {
    let mut world = World::new(RING);
    let mut engine = Engine::new(100, 100);
    let mut named = Vec::new();
    for tick in 0..BEFORE + OVERFLOW + AFTER {
        let phase = match tick {
            _ if tick < BEFORE => Phase::Busy,
            _ if tick < BEFORE + OVERFLOW => Phase::Saturated,
            _ => then,
        };
        let mut sample = world.tick(phase);
        answered(&mut sample);
        overflow(tick.checked_sub(BEFORE), &mut sample);
        if then != Phase::Saturated {
            unanswered(tick.checked_sub(BEFORE + OVERFLOW), &mut sample);
        }
        for event in engine.push(&sample).events {
            match event {
                Event::Verdict(verdict) if verdict.confidence == Confidence::Certain => {
                    named.push(verdict.cause.id());
                }
                _ => {}
            }
        }
    }
    named.retain(|cause| !cause.starts_with("healthy"));
    named
}

#[test]
fn what_stops_a_server_for_good_is_named_after_what_only_slowed_it() {
    assert_eq!(named(Phase::Yield), ["accept-queue-overflow", "sq-not-flushed"]);
    assert_eq!(named(Phase::Blocked), ["accept-queue-overflow", "runtime-blocked"]);
}

#[test]
fn an_overflow_that_goes_on_is_named_once() {
    assert_eq!(named(Phase::Saturated), ["accept-queue-overflow"]);
}
