//! Chance that can be had again: everything that varies from run to run follows from a seed.

use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): every seed is as good as any other, and no state is worth
/// keeping a secret here.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The chance of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The chance of one repetition of one scenario: the same whatever else is run, in any order.
    pub fn of_run(seed: u64, scenario: &str, rep: u32) -> Self {
        // FNV-1a, which unlike the hashes of std is the same in every version.
        let name = scenario.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut chance = Self(seed ^ name ^ u64::from(rep).rotate_left(32));
        chance.bits();
        chance
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.share() * bound as f64) as usize).min(bound.saturating_sub(1))
    }

    /// A time between the two.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.share())
    }

    /// `count`, half as much to one and a half times as much, at least 1.
    pub fn about(&mut self, count: u32) -> u32 {
        ((f64::from(count) * (0.5 + self.share())).round() as u32).max(1)
    }

    /// Puts `items` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_another_seed_something_else() {
        let draw = |mut chance: Chance| [chance.bits(), chance.bits(), chance.bits()];
        let of = |seed, name, rep| draw(Chance::of_run(seed, name, rep));
        assert_eq!(of(1, "a", 0), of(1, "a", 0));
        for other in [of(2, "a", 0), of(1, "b", 0), of(1, "a", 1)] {
            assert_ne!(of(1, "a", 0), other);
        }
    }

    #[test]
    fn what_is_drawn_lies_within_its_bounds_and_reaches_them() {
        let mut chance = Chance::new(7);
        let (least, most) = (Duration::from_millis(1_500), Duration::from_secs(4));
        let times: Vec<Duration> = (0..1_000).map(|_| chance.between(least, most)).collect();
        assert!(times.iter().all(|time| (least..most).contains(time)));
        assert!(times.iter().any(|time| *time < Duration::from_millis(1_600)));
        assert!(times.iter().any(|time| *time > Duration::from_millis(3_900)));
        let counts: Vec<u32> = (0..1_000).map(|_| chance.about(64)).collect();
        assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&32), Some(&96)));
        assert_eq!((chance.about(0), chance.below(0)), (1, 0));
    }

    #[test]
    fn a_shuffled_deck_is_the_same_deck_in_another_order() {
        let mut deck: Vec<u32> = (0..52).collect();
        Chance::new(3).shuffle(&mut deck);
        assert!(!deck.is_sorted());
        deck.sort_unstable();
        assert!(deck.into_iter().eq(0..52));
    }
}
