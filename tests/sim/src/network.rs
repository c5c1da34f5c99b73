//! The network between nodes and clients: delay, loss, repetition, order, and who is cut off from
//! whom. A pure model: it says when something arrives, the schedule makes it happen.

use std::collections::{BTreeMap, BTreeSet};

use crate::schedule::{MILLISECOND, Micros};

/// Of the time since a lag began, how much it has grown by; below 100, or order would be lost.
const GROWTH_PERCENT: Micros = 90;

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
    /// True if a message may overtake another on the same link.
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

/// How much longer messages of a link take.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    pub since: Micros,
    pub until: Micros,
    /// At most.
    pub by: Micros,
    /// True if it gets there little by little, so that nobody notices a silence: a message takes as
    /// much longer as most of the time since the beginning.
    pub grows: bool,
}

impl Lag {
    fn at(&self, now: Micros) -> Micros {
        match now {
            now if now >= self.until => 0,
            now if self.grows => self.by.min(now.saturating_sub(self.since) * GROWTH_PERCENT / 100),
            _ => self.by,
        }
    }
}

/// See the module's head. Places are numbers: nodes first, then clients.
pub struct Network {
    weather: Weather,
    /// Directed links that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    lags: BTreeMap<(usize, usize), Lag>,
    /// When the newest message of a link arrives, where none may overtake.
    newest: BTreeMap<(usize, usize), Micros>,
}

impl Network {
    pub fn new(weather: Weather) -> Self {
        Network { weather, cut: BTreeSet::new(), lags: BTreeMap::new(), newest: BTreeMap::new() }
    }

    /// When something sent now arrives; none if it does not. What has a stream of its own, as calls,
    /// answers and snapshots do, neither waits for anything else on the link nor holds it up.
    pub fn arrival(
        &mut self,
        rng: &mut fastrand::Rng,
        now: Micros,
        (from, to): (usize, usize),
        own_stream: bool,
    ) -> Option<Micros> {
        if from == to {
            return Some(now + 1);
        }
        if self.is_cut(from, to) || one_of(rng, self.weather.lost) {
            return None;
        }
        let mut at = now + rng.u64(self.weather.delay_min..=self.weather.delay_max);
        at += self.lags.get(&(from, to)).map_or(0, |lag| lag.at(now));
        if one_of(rng, self.weather.strayed) {
            at += rng.u64(0..=self.weather.stray_delay);
        }
        if !self.weather.overtaking && !own_stream {
            let newest = self.newest.entry((from, to)).or_default();
            at = at.max(*newest + 1);
            *newest = at;
        }
        Some(at)
    }

    /// True if a raft message comes a second time.
    pub fn repeats(&self, rng: &mut fastrand::Rng) -> bool {
        one_of(rng, self.weather.repeated)
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn lag(&mut self, from: usize, to: usize, lag: Lag) {
        self.lags.insert((from, to), lag);
    }

    /// Nobody is cut off any more, and no link gets slower. What is slow for a while is for so long.
    pub fn mend(&mut self) {
        self.cut.clear();
        self.lags.retain(|_, lag| !lag.grows);
    }

    /// Nothing is wrong with any link.
    pub fn heal(&mut self) {
        self.mend();
        self.lags.clear();
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
        assert_eq!(network.arrival(&mut rng, 0, (0, 1), false), None);
        assert!(network.arrival(&mut rng, 0, (1, 0), false).is_some());
        network.mend();
        assert!(network.arrival(&mut rng, 0, (0, 1), false).is_some());
    }

    #[test]
    fn a_slow_link_is_slow_until_its_time_is_up_or_all_is_healed() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut network = Network::new(Weather::fair());
        let lag = Lag { since: 0, until: 1000, by: 50_000, grows: false };
        network.lag(0, 1, lag);
        assert!(network.arrival(&mut rng, 0, (0, 1), true).unwrap() >= 50_000);
        assert!(network.arrival(&mut rng, 0, (1, 0), true).unwrap() < 50_000);
        assert!(network.arrival(&mut rng, 1000, (0, 1), true).unwrap() < 50_000);
        network.heal();
        assert!(network.arrival(&mut rng, 0, (0, 1), true).unwrap() < 50_000);
    }

    #[test]
    fn a_lag_that_grows_leaves_no_long_silence_and_keeps_the_order() {
        let lag = Lag { since: 0, until: Micros::MAX, by: 50_000, grows: true };
        let arrivals: Vec<Micros> = (0..100_000).map(|now| now + lag.at(now)).collect();
        assert!(arrivals.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] <= 2));
        assert_eq!(lag.at(100_000), 50_000);
    }

    #[test]
    fn without_overtaking_messages_of_a_link_arrive_in_order_and_calls_need_not() {
        let weather = Weather { strayed: 5_000, stray_delay: 9_999, ..Weather::fair() };
        let arrivals = |own_stream| -> Vec<Micros> {
            let mut rng = fastrand::Rng::with_seed(1);
            let mut network = Network::new(weather.clone());
            let arrival = |now| network.arrival(&mut rng, now, (0, 1), own_stream).unwrap();
            (0..100).map(arrival).collect()
        };
        assert!(arrivals(false).is_sorted_by(|a, b| a < b));
        assert!(!arrivals(true).is_sorted());
    }
}
