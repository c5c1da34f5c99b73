//! Hot keys: keys at which transactions of this client conflicted a short while ago.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

/// Time for which a key stays hot after the last conflict or wait. Contenders that pause for less
/// find their queue again. A longer time would cost little, because an empty queue is passed
/// without waiting.
const HOT_FOR: Duration = Duration::from_secs(1);

/// Keys that are hot at once. Contenders for more keys than this hardly meet at any of them.
const HOT_KEYS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct HotKeys(BTreeMap<Bytes, Hot>);

#[derive(Clone, Copy, Debug)]
struct Hot {
    until: Duration,
    /// Time of the last change at the key that this client knows of: a conflict, or the end of a
    /// turn.
    changed_at: Duration,
}

impl HotKeys {
    /// Notes that a transaction met a conflict at the key.
    pub fn heat(&mut self, key: &Bytes, now: Duration) {
        if self.0.len() >= HOT_KEYS_MAX && !self.0.contains_key(key) {
            self.make_room(now);
        }
        self.0.insert(key.clone(), Hot { until: now + HOT_FOR, changed_at: now });
    }

    /// Keeps a hot key hot, because somebody waits for it.
    pub fn keep_hot(&mut self, key: &Bytes, now: Duration) {
        if let Some(hot) = self.0.get_mut(key) {
            hot.until = now + HOT_FOR;
        }
    }

    pub fn changed(&mut self, key: &Bytes, now: Duration) {
        if let Some(hot) = self.0.get_mut(key) {
            hot.changed_at = now;
        }
    }

    pub fn is_hot(&self, key: &Bytes, now: Duration) -> bool {
        self.0.get(key).is_some_and(|hot| now < hot.until)
    }

    /// True if a hot key changed at `since` or later, as far as this client knows.
    pub fn has_changed_since(&self, key: &Bytes, since: Duration) -> bool {
        self.0.get(key).is_some_and(|hot| hot.changed_at >= since)
    }

    fn make_room(&mut self, now: Duration) {
        self.0.retain(|_, hot| now < hot.until);
        if self.0.len() >= HOT_KEYS_MAX {
            let coolest = self.0.iter().min_by_key(|(_, hot)| hot.until);
            let coolest = coolest.map(|(key, _)| key.clone()).expect("they are many");
            self.0.remove(&coolest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_key_cools_down_unless_somebody_waits_for_it() {
        let mut keys = HotKeys::default();
        let (key, cold) = (Bytes::from("k"), Bytes::from("cold"));
        keys.heat(&key, MILLI);
        keys.keep_hot(&cold, MILLI);
        assert!(keys.is_hot(&key, HOT_FOR) && !keys.is_hot(&cold, HOT_FOR));
        keys.keep_hot(&key, HOT_FOR);
        assert!(keys.is_hot(&key, 2 * HOT_FOR - MILLI) && !keys.is_hot(&key, 2 * HOT_FOR));
    }

    #[test]
    fn of_too_many_the_coolest_is_forgotten() {
        let mut keys = HotKeys::default();
        let key = |number: usize| Bytes::from(number.to_string());
        let at = |number: usize| Duration::from_micros(number as u64);
        for number in 0..2 * HOT_KEYS_MAX {
            keys.heat(&key(number), at(number));
        }
        assert_eq!(keys.0.len(), HOT_KEYS_MAX);
        for number in 0..2 * HOT_KEYS_MAX {
            assert_eq!(keys.is_hot(&key(number), at(2 * HOT_KEYS_MAX)), number >= HOT_KEYS_MAX);
        }
        keys.heat(&key(0), 2 * HOT_FOR);
        assert_eq!(keys.0.len(), 1, "those that have cooled down go first");
    }
}
