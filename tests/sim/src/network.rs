//! The network between nodes and clients: delay, loss, repetition, order, and who is cut off from
//! whom. A pure model: it says when something arrives, the schedule makes it happen.

use std::collections::{BTreeMap, BTreeSet};

use crate::schedule::{MILLISECOND, Micros};

/// How messages fare. Drawn anew for each seed.
#[derive(Clone, Debug)]
pub struct Weather {
    pub delay_min: Micros,
    pub delay_max: Micros,
    /// Of 10,000 messages, how many are lost without a trace.
    pub lost: u32,
    /// Of 10,000 raft messages, how many come twice.
    pub repeated: u32,
    /// Of 10,000 messages, how many take up to `stray_delay` longer.
    pub strayed: u32,
    pub stray_delay: Micros,
    /// Whether a message may overtake another on the same link.
    pub overtaking: bool,
}

impl Weather {
    /// As on a good day.
    pub fn fair() -> Self {
        Weather {
            delay_min: 100,
            delay_max: MILLISECOND,
            lost: 0,
            repeated: 0,
            strayed: 0,
            stray_delay: 0,
            overtaking: false,
        }
    }
}

/// See the module's head. Places are numbers: nodes first, then clients.
pub struct Network {
    weather: Weather,
    /// Directed links that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    /// How much longer messages of a link take.
    lag: BTreeMap<(usize, usize), Micros>,
    /// When the newest message of a link arrives, where none may overtake.
    newest: BTreeMap<(usize, usize), Micros>,
}

impl Network {
    pub fn new(weather: Weather) -> Self {
        Network { weather, cut: BTreeSet::new(), lag: BTreeMap::new(), newest: BTreeMap::new() }
    }

    /// When something sent now arrives; none if it does not.
    pub fn arrival(
        &mut self,
        rng: &mut fastrand::Rng,
        now: Micros,
        from: usize,
        to: usize,
    ) -> Option<Micros> {
        if from == to {
            return Some(now + 1);
        }
        if self.is_cut(from, to) || one_of(rng, self.weather.lost) {
            return None;
        }
        let mut at = now + rng.u64(self.weather.delay_min..=self.weather.delay_max);
        at += self.lag.get(&(from, to)).copied().unwrap_or(0);
        if one_of(rng, self.weather.strayed) {
            at += rng.u64(0..=self.weather.stray_delay);
        }
        if !self.weather.overtaking {
            let newest = self.newest.entry((from, to)).or_default();
            at = at.max(*newest + 1);
            *newest = at;
        }
        Some(at)
    }

    /// Whether a raft message comes a second time.
    pub fn repeats(&self, rng: &mut fastrand::Rng) -> bool {
        one_of(rng, self.weather.repeated)
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// What is sent from now on takes longer.
    pub fn lag(&mut self, from: usize, to: usize, by: Micros) {
        self.lag.insert((from, to), by);
    }

    /// Nobody is cut off or slow any more.
    pub fn mend(&mut self) {
        self.cut.clear();
        self.lag.clear();
    }

    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }
}

fn one_of(rng: &mut fastrand::Rng, of_ten_thousand: u32) -> bool {
    of_ten_thousand > 0 && rng.u32(0..10_000) < of_ten_thousand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_carries_nothing_in_that_direction_until_it_is_mended() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut network = Network::new(Weather::fair());
        network.cut(0, 1);
        assert_eq!(network.arrival(&mut rng, 0, 0, 1), None);
        assert!(network.arrival(&mut rng, 0, 1, 0).is_some());
        network.mend();
        assert!(network.arrival(&mut rng, 0, 0, 1).is_some());
    }

    #[test]
    fn a_slow_link_is_slow_until_it_is_mended() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut network = Network::new(Weather::fair());
        network.lag(0, 1, 50_000);
        assert!(network.arrival(&mut rng, 0, 0, 1).unwrap() >= 50_000);
        assert!(network.arrival(&mut rng, 0, 1, 0).unwrap() < 50_000);
        network.mend();
        assert!(network.arrival(&mut rng, 100_000, 0, 1).unwrap() < 150_000);
    }

    #[test]
    fn without_overtaking_messages_of_a_link_arrive_in_order() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut network =
            Network::new(Weather { strayed: 5_000, stray_delay: 99, ..Weather::fair() });
        let arrivals: Vec<_> =
            (0..100).map(|now| network.arrival(&mut rng, now, 0, 1).unwrap()).collect();
        assert!(arrivals.is_sorted_by(|a, b| a < b));
    }
}
