//! Endpoints for requests that any node can answer: the one that answered last, then the seeds,
//! then every node learnt since. Seeds come before learnt nodes because the operator vouches for
//! them.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) struct Endpoints {
    seeds: Vec<Arc<str>>,
    /// The endpoint that answered last, or that a node named as the leader. None after it failed.
    preferred: Mutex<Option<Arc<str>>>,
}

impl Endpoints {
    pub fn new(seeds: &[String]) -> Self {
        let seeds = seeds.iter().map(|seed| Arc::from(seed.as_str())).collect();
        Endpoints { seeds, preferred: Mutex::new(None) }
    }

    /// Returns the next endpoint that is not in `tried`; `learnt` is called only when no other is
    /// left.
    pub fn pick(
        &self,
        tried: &BTreeSet<Arc<str>>,
        learnt: impl FnOnce() -> Vec<Arc<str>>,
    ) -> Option<Arc<str>> {
        let preferred = self.preferred.lock().clone();
        let near = preferred.into_iter().chain(self.seeds.iter().cloned());
        let not_tried = |address: &Arc<str>| !tried.contains(address);
        near.into_iter().find(not_tried).or_else(|| learnt().into_iter().find(not_tried))
    }

    /// Prefers an endpoint that answered, or that a node named as the leader.
    pub fn prefer(&self, address: &Arc<str>) {
        *self.preferred.lock() = Some(address.clone());
    }

    pub fn failed(&self, address: &Arc<str>) {
        let mut preferred = self.preferred.lock();
        if preferred.as_ref() == Some(address) {
            *preferred = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_is_tried_first_until_it_fails() {
        let endpoints = Endpoints::new(&["a:1".to_owned(), "b:1".to_owned()]);
        let learnt = || vec![Arc::from("c:1")];
        let mut tried = BTreeSet::new();
        let mut order = Vec::new();
        while let Some(address) = endpoints.pick(&tried, learnt) {
            order.push(address.to_string());
            tried.insert(address);
        }
        assert_eq!(order, ["a:1", "b:1", "c:1"]);
        let c: Arc<str> = Arc::from("c:1");
        endpoints.prefer(&c);
        assert_eq!(endpoints.pick(&BTreeSet::new(), learnt), Some(c.clone()));
        endpoints.failed(&c);
        assert_eq!(endpoints.pick(&BTreeSet::new(), learnt).as_deref(), Some("a:1"));
    }
}
