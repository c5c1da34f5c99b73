//! Model of the network between nodes and clients: delay, loss, repetition, order, and cut links.
//! The model is pure: it returns arrival times, and the schedule makes the messages arrive.

use std::collections::{BTreeMap, BTreeSet};

use crate::schedule::{MILLISECOND, Micros};

/// Growth of a lag, as a percentage of the time since the lag began. Below 100, or messages would
/// lose their order.
const GROWTH_PERCENT: Micros = 90;

/// Weather of the network: delay, loss, repetition and order of messages. Drawn for each seed.
#[derive(Clone, Debug)]
pub struct Weather {
    pub delay_min: Micros,
    pub delay_max: Micros,
    /// Messages that are lost without a trace, out of 10,000.
    pub lost: u32,
    /// Raft messages that arrive twice, out of 10,000.
    pub repeated: u32,
    /// Messages that take up to `stray_delay` longer, out of 10,000.
    pub strayed: u32,
    pub stray_delay: Micros,
    /// True if a message may overtake another on the same link.
    pub overtaking: bool,
}

impl Weather {
    /// Weather without faults, and with short delays.
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

/// Additional delay of the messages of a link.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    pub since: Micros,
    pub until: Micros,
    /// Maximum additional delay.
    pub by: Micros,
    /// True if the delay grows little by little, so that nobody notices a silence. It is
    /// `GROWTH_PERCENT` of the time since `since`, up to `by`.
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

/// Links between the hosts of the world. Places in the network are numbers: nodes first, then
/// clients.
pub struct Network {
    weather: Weather,
    /// Directed links that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    lags: BTreeMap<(usize, usize), Lag>,
    /// Arrival time of each link's newest message, where no message may overtake another.
    newest: BTreeMap<(usize, usize), Micros>,
}

impl Network {
    pub fn new(weather: Weather) -> Self {
        Network { weather, cut: BTreeSet::new(), lags: BTreeMap::new(), newest: BTreeMap::new() }
    }

    /// Returns the arrival time of a message sent now; `None` if it is lost. With `own_stream`, as
    /// of calls, answers and snapshots, the message neither waits for others on the link nor delays
    /// them.
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

    /// True if a raft message arrives a second time.
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

    /// Mends all cut links, and ends all lags that grow. The other lags stay until their time is
    /// up.
    pub fn mend(&mut self) {
        self.cut.clear();
        self.lags.retain(|_, lag| !lag.grows);
    }

    /// Mends all cut links, and ends all lags.
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
