//! Observations of each key by itself: the committed transactions, the order of every key's
//! versions, and the anomalies that show without a look at any other key.
//!
//! An unknown transaction counts as committed if a committed one saw one of its appends. Then its
//! reads count, too. Otherwise the transaction is left out, with its reads.
//!
//! A list that a transaction read and appended to is a version, just as a list that was read,
//! because the write replaced the whole value. So two transactions that appended to the same list
//! contradict each other even if no third transaction reads.

use std::collections::BTreeMap;

use super::check::{Anomaly, Class};
use super::{Element, Key, Op, Transaction, explain};
use crate::history::Outcome;

/// Number of a key, in the order of the first use in the history.
pub type KeyId = usize;

/// Read of a key by a committed transaction, before the transaction's own appends.
#[derive(Debug)]
pub struct ObservedList {
    pub reader: usize,
    /// Length of the list that it saw; always a prefix of the key's order.
    pub length: usize,
}

/// A key's versions.
#[derive(Debug, Default)]
pub struct Versions {
    /// The longest known list: version n is its first n elements.
    pub order: Vec<Element>,
    /// Reads of committed transactions, as far as they agree with the order.
    pub seen: Vec<ObservedList>,
    /// Appends of committed transactions that are in no list. If they are anywhere, they are behind
    /// all others.
    pub unseen: Vec<Element>,
}

pub struct Observations<'a> {
    pub history: &'a [Transaction],
    pub committed: Vec<bool>,
    pub keys: Vec<Key>,
    pub versions: Vec<Versions>,
    /// Transaction that appended an element.
    pub writers: BTreeMap<(KeyId, Element), usize>,
}

/// A list, and the transaction that read or wrote it.
struct List {
    owner: usize,
    elements: Vec<Element>,
}

/// Lists of one key.
#[derive(Default)]
struct Lists {
    /// Lists that were read, without the reader's own appends.
    read: Vec<List>,
    /// Lists that were written.
    written: Vec<List>,
}

pub fn observe(history: &[Transaction]) -> (Observations<'_>, Vec<Anomaly>) {
    let mut anomalies = Vec::new();
    let mut ids = BTreeMap::new();
    let mut keys = Vec::new();
    let mut writers = BTreeMap::new();
    for (place, transaction) in history.iter().enumerate() {
        for op in &transaction.ops {
            let (Op::Read { key, .. } | Op::Append { key, .. }) = op;
            let id = *ids.entry(key.clone()).or_insert_with(|| {
                keys.push(key.clone());
                keys.len() - 1
            });
            if let Op::Append { element, .. } = op
                && writers.insert((id, *element), place).is_some_and(|other| other != place)
            {
                let text = format!("{element} is appended to {key} by two transactions");
                anomalies.push(Anomaly { class: Class::BadHistory, text });
            }
        }
    }
    let committed = committed(history, &ids, &writers);
    let versions = Vec::new();
    let mut observed = Observations { history, committed, keys, versions, writers };
    let mut lists: Vec<Lists> = Vec::new();
    lists.resize_with(observed.keys.len(), Lists::default);
    for place in 0..history.len() {
        if observed.committed[place] {
            observed.note_lists(place, &ids, &mut lists, &mut anomalies);
        }
    }
    for (id, lists) in lists.into_iter().enumerate() {
        let versions = observed.order_versions(id, &lists, &mut anomalies);
        observed.versions.push(versions);
        observed.find_lost_appends(id, &lists.read, &mut anomalies);
    }
    (observed, anomalies)
}

/// Marks the committed transactions: the acknowledged ones, and unknown ones that a committed one
/// saw.
fn committed(
    history: &[Transaction],
    ids: &BTreeMap<Key, KeyId>,
    writers: &BTreeMap<(KeyId, Element), usize>,
) -> Vec<bool> {
    let mut committed = vec![false; history.len()];
    let mut pending = Vec::new();
    for (place, transaction) in history.iter().enumerate() {
        if transaction.outcome == Outcome::Ok {
            committed[place] = true;
            pending.push(place);
        }
    }
    while let Some(place) = pending.pop() {
        for op in &history[place].ops {
            let Op::Read { key, list } = op else { continue };
            for element in list {
                let Some(writer) = writers.get(&(ids[key], *element)).copied() else { continue };
                if !committed[writer] && history[writer].outcome == Outcome::Unknown {
                    committed[writer] = true;
                    pending.push(writer);
                }
            }
        }
    }
    committed
}

/// A transaction's knowledge of a key while it runs.
#[derive(Default)]
struct Known {
    /// The list before the transaction's own appends, once the transaction has read it.
    before: Option<Vec<Element>>,
    own: Vec<Element>,
}

impl<'a> Observations<'a> {
    pub fn transaction(&self, place: usize) -> &'a Transaction {
        &self.history[place]
    }

    /// Returns the committed transaction that appended an element.
    pub fn writer(&self, key: KeyId, element: Element) -> Option<usize> {
        let writer = self.writers.get(&(key, element)).copied();
        writer.filter(|writer| self.committed[*writer])
    }

    /// Follows a transaction through its operations. Collects its lists and its contradictions.
    fn note_lists(
        &self,
        place: usize,
        ids: &BTreeMap<Key, KeyId>,
        lists: &mut [Lists],
        anomalies: &mut Vec<Anomaly>,
    ) {
        let mut known: BTreeMap<KeyId, Known> = BTreeMap::new();
        for op in &self.history[place].ops {
            match op {
                Op::Append { key, element } => {
                    known.entry(ids[key]).or_default().own.push(*element);
                }
                Op::Read { key, list } => {
                    let id = ids[key];
                    let known = known.entry(id).or_default();
                    let before = list.strip_suffix(&known.own[..]);
                    let agrees = match (&known.before, before) {
                        (_, None) => false,
                        (Some(earlier), Some(before)) => earlier == before,
                        (None, Some(_)) => true,
                    };
                    if !agrees {
                        let earlier = known.before.as_ref();
                        let expected = earlier.map_or("...".to_owned(), |list| format!("{list:?}"));
                        let text = format!(
                            "T{place} read {key} as {list:?}; by its own earlier reads and appends \
                             it is {expected} and then {:?}",
                            known.own
                        );
                        anomalies.push(Anomaly { class: Class::Internal, text });
                    } else if known.before.is_none() {
                        let before = before.expect("it agrees").to_vec();
                        self.check_list(place, id, &before, anomalies);
                        known.before = Some(before.clone());
                        lists[id].read.push(List { owner: place, elements: before });
                    }
                }
            }
        }
        for (id, known) in known {
            if let (Some(mut elements), false) = (known.before, known.own.is_empty()) {
                elements.extend(known.own);
                lists[id].written.push(List { owner: place, elements });
            }
        }
    }

    /// Checks the origin of the elements of a list that was read.
    fn check_list(&self, reader: usize, id: KeyId, list: &[Element], anomalies: &mut Vec<Anomaly>) {
        let key = &self.keys[id];
        let mut report = |class, what: String| {
            let text = format!("T{reader} read {key} as {list:?}: {what}");
            anomalies.push(Anomaly { class, text });
        };
        let mut sorted = list.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            report(Class::Duplicate, format!("{} is there twice", pair[0]));
        }
        for element in list {
            match self.writers.get(&(id, *element)) {
                None => report(Class::Garbage, format!("nobody appended {element}")),
                Some(writer) if self.history[*writer].outcome == Outcome::Failed => {
                    let what = format!("{element} is of T{writer}, which did not commit");
                    report(Class::AbortedRead, what);
                }
                Some(writer) if *writer == reader => {
                    report(Class::Internal, format!("it appends {element} only later"));
                }
                Some(_) => {}
            }
        }
        let Some(last) = list.last() else { return };
        let Some(writer) = self.writers.get(&(id, *last)) else { return };
        let appended = self.history[*writer].ops.iter().rev().find_map(|op| match op {
            Op::Append { key: of, element } if of == key => Some(*element),
            _ => None,
        });
        if let Some(appended) = appended.filter(|appended| appended != last) {
            let what = format!("T{writer} appended {appended} too, in the same transaction");
            report(Class::IntermediateRead, what);
        }
    }

    /// Returns the order of a key's versions: the longest list, of which every other must be a
    /// prefix.
    fn order_versions(&self, id: KeyId, lists: &Lists, anomalies: &mut Vec<Anomaly>) -> Versions {
        let all = || lists.read.iter().chain(&lists.written);
        let Some(longest) = all().max_by_key(|list| list.elements.len()) else {
            return self.without_order(id);
        };
        let order = &longest.elements;
        let agrees = |list: &List| order.starts_with(&list.elements);
        if let Some(other) = all().find(|list| !agrees(list)) {
            let text = self.two_orders(id, longest, other);
            anomalies.push(Anomaly { class: Class::IncompatibleOrder, text });
        }
        let agreeing = lists.read.iter().filter(|list| agrees(list));
        let seen =
            agreeing.map(|list| ObservedList { reader: list.owner, length: list.elements.len() });
        let mut versions =
            Versions { seen: seen.collect(), order: order.clone(), ..self.without_order(id) };
        let mut ordered = versions.order.clone();
        ordered.sort_unstable();
        versions.unseen.retain(|element| ordered.binary_search(element).is_err());
        versions
    }

    /// Describes the place where two lists part, and the writers of the elements there.
    fn two_orders(&self, id: KeyId, one: &List, other: &List) -> String {
        let pairs = one.elements.iter().zip(&other.elements);
        let parting = pairs.take_while(|(one, other)| one == other).count();
        let mut text = format!("the orders of {} part after {parting} elements", self.keys[id]);
        for list in [one, other] {
            let owner = list.owner;
            let element = list.elements[parting];
            text += &format!("\n  T{owner} knows {element} there");
            match self.writers.get(&(id, element)) {
                Some(writer) => {
                    let writer_of = explain::transaction(&self.history[*writer]);
                    text += &format!(", of T{writer}: {writer_of}");
                }
                None => text += ", which nobody appended",
            }
        }
        text
    }

    /// Returns the versions of a key without a known list: every committed append is unseen.
    fn without_order(&self, id: KeyId) -> Versions {
        let of_key = self.writers.range((id, Element::MIN)..=(id, Element::MAX));
        let committed = of_key.filter(|(_, writer)| self.committed[**writer]);
        let unseen = committed.map(|((_, element), _)| *element).collect();
        Versions { unseen, ..Versions::default() }
    }

    /// Finds lost appends. An append is lost if it was acknowledged, a transaction that began after
    /// that read the key, and none that began after that saw the append.
    fn find_lost_appends(&self, id: KeyId, read: &[List], anomalies: &mut Vec<Anomaly>) {
        let began = |list: &List| self.history[list.owner].began;
        let Some(last) = read.iter().max_by_key(|list| began(list)) else { return };
        let mut there = last.elements.clone();
        there.sort_unstable();
        for ((_, element), writer) in self.writers.range((id, Element::MIN)..=(id, Element::MAX)) {
            let writer_of = &self.history[*writer];
            let Some(ended) = writer_of.ended.filter(|_| writer_of.outcome == Outcome::Ok) else {
                continue;
            };
            if ended >= began(last) || there.binary_search(element).is_ok() {
                continue;
            }
            let later = || read.iter().filter(|list| began(list) > ended);
            if later().all(|list| !list.elements.contains(element)) {
                let text = format!(
                    "T{writer} appended {element} to {} and was acknowledged; none of the {} \
                     transactions saw it that read the key afterwards, T{} the last\n  T{writer}: {}",
                    self.keys[id],
                    later().count(),
                    last.owner,
                    explain::transaction(writer_of)
                );
                anomalies.push(Anomaly { class: Class::LostAppend, text });
            }
        }
    }
}
