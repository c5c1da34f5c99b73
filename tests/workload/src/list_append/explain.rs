//! Cycles in words: the transactions, their operations, and the reason why each came before the
//! next.

use std::fmt::Write as _;

use super::cycles::{Cycle, Step};
use super::graph::{Kind, Point};
use super::observe::Observations;
use super::{Op, Transaction};

/// Maximum number of printed operations of a transaction.
const OPS_SHOWN: usize = 12;

/// Maximum number of printed elements of a list, from its end: the elements in question are always
/// there.
const ELEMENTS_SHOWN: usize = 12;

pub fn cycle(observed: &Observations<'_>, cycle: &Cycle) -> String {
    let mut text = String::new();
    let links = links(&cycle.steps);
    for (from, ..) in &links {
        let shown = transaction(observed.transaction(*from));
        writeln!(text, "  T{from}: {shown}").expect("text takes everything");
    }
    for (from, to, step) in links {
        let why = reason(observed, from, to, step);
        writeln!(text, "  T{from} before T{to}: {why}").expect("text takes everything");
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns the steps from transaction to transaction. A path through answers becomes one step of
/// real time.
fn links(steps: &[Step]) -> Vec<(usize, usize, Step)> {
    let of = |point: Point| match point {
        Point::Start(place) | Point::Commit(place) => Some(place),
        Point::Answer => None,
    };
    let first = steps.iter().position(|step| of(step.from).is_some());
    let first = first.expect("time alone has no cycle");
    let mut links = Vec::new();
    let mut from = of(steps[first].from).expect("chosen so");
    for step in steps.iter().cycle().skip(first).take(steps.len()) {
        let Some(to) = of(step.to) else { continue };
        if step.edge.kind != Kind::Within {
            links.push((from, to, *step));
        }
        from = to;
    }
    links
}

fn reason(observed: &Observations<'_>, from: usize, to: usize, step: Step) -> String {
    let at = |place: usize| observed.transaction(place);
    let Some((key, element)) = step.edge.by else {
        let ended = at(from).ended.expect("real time begins with an answer");
        let began = at(to).began;
        return format!("it was answered at {ended}, the other began at {began} (rt)");
    };
    let key = &observed.keys[key];
    match step.edge.kind {
        Kind::WriteRead => format!("its append of {element} to {key} was read (wr)"),
        Kind::ReadWrite => format!("it read {key} without {element}, which came next (rw)"),
        _ => format!("on {key} the append of {element} comes next (ww)"),
    }
}

/// Describes a transaction on one line: its client, its outcome and its operations.
pub fn transaction(transaction: &Transaction) -> String {
    let Transaction { client, level, mode, began, ended, outcome, ops } = transaction;
    let ended = ended.map_or("?".to_owned(), |ended| ended.to_string());
    let mut text = format!("client {client}, {level:?}, {mode:?}, {outcome:?}, {began}..{ended}:");
    for op in ops.iter().take(OPS_SHOWN) {
        match op {
            Op::Read { key, list } => {
                let shown = &list[list.len().saturating_sub(ELEMENTS_SHOWN)..];
                let shown: Vec<String> = shown.iter().map(u64::to_string).collect();
                let cut = if list.len() > shown.len() { ".. " } else { "" };
                write!(text, " read {key} [{cut}{}]", shown.join(" "))
            }
            Op::Append { key, element } => write!(text, " append {key} {element}"),
        }
        .expect("text takes everything");
    }
    if ops.len() > OPS_SHOWN {
        text += " ..";
    }
    text
}
