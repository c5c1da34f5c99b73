//! Check of a bank's history.

use super::{End, History, Total, Transfer};
use crate::history::Outcome;

/// Maximum number of reported problems. One bug makes many; the first few show what it is.
const PROBLEMS_MAX: usize = 16;

/// Counts of a clean history.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    pub transferred: usize,
    pub failed: usize,
    pub unknown: usize,
    pub totals: usize,
}

/// Checks every total, and the end if there is one.
///
/// # Errors
///
/// The first problems, at most `PROBLEMS_MAX`.
pub fn check(history: &History) -> Result<Summary, Vec<String>> {
    let mut problems = Vec::new();
    if let Some(lowest) = history.lowest_seen.filter(|lowest| *lowest < 0) {
        problems.push(format!("a transfer found {lowest} in an account"));
    }
    for (place, total) in history.totals.iter().enumerate() {
        problems.extend(total_problem(history, &format!("total {place}"), total));
    }
    if let Some(end) = &history.end {
        let total = Total { balances: end.balances.clone() };
        problems.extend(total_problem(history, "the final total", &total));
        problems.extend(receipt_problems(history, end));
        problems.extend(balance_problems(history, end));
    }
    if !problems.is_empty() {
        problems.truncate(PROBLEMS_MAX);
        return Err(problems);
    }
    let count = |wanted| history.transfers.iter().filter(|(_, outcome)| *outcome == wanted).count();
    Ok(Summary {
        transferred: count(Outcome::Ok),
        failed: count(Outcome::Failed),
        unknown: count(Outcome::Unknown),
        totals: history.totals.len(),
    })
}

fn total_problem(history: &History, which: &str, total: &Total) -> Option<String> {
    let expected = history.opening * history.accounts as i64;
    let balances = &total.balances;
    let sum: i64 = balances.iter().flatten().sum();
    if let Some(place) = balances.iter().position(Option::is_none) {
        return Some(format!("{which}: account {place} is not there"));
    }
    if balances.len() != history.accounts {
        return Some(format!("{which}: {} accounts, not {}", balances.len(), history.accounts));
    }
    if let Some(place) = balances.iter().position(|balance| balance.is_some_and(|b| b < 0)) {
        return Some(format!("{which}: account {place} holds {balances:?}"));
    }
    (sum != expected).then(|| format!("{which} is {sum}, not {expected}: {balances:?}"))
}

fn receipt_problems(history: &History, end: &End) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, (transfer, outcome)) in history.transfers.iter().enumerate() {
        match (end.receipts.get(&number), outcome) {
            (None, Outcome::Ok) => {
                problems
                    .push(format!("transfer {number} was acknowledged and is lost: {transfer:?}"));
            }
            (Some(_), Outcome::Failed) => {
                problems.push(format!("transfer {number} was refused and is there: {transfer:?}"));
            }
            (Some(receipt), _) if receipt != transfer => {
                problems.push(format!("the receipt of {transfer:?} says {receipt:?}"));
            }
            _ => {}
        }
    }
    let strangers = end.receipts.range(history.transfers.len()..);
    problems.extend(strangers.map(|(number, _)| format!("nobody made transfer {number}")));
    problems
}

fn balance_problems(history: &History, end: &End) -> Vec<String> {
    let mut expected = vec![history.opening; history.accounts];
    for Transfer { from, to, amount } in end.receipts.values() {
        expected[*from] -= amount;
        expected[*to] += amount;
    }
    let pairs = end.balances.iter().zip(&expected).enumerate();
    let wrong = pairs.filter_map(|(place, (balance, expected))| {
        let balance = (*balance)?;
        (balance != *expected).then(|| {
            format!("account {place} holds {balance}; by its receipts it should hold {expected}")
        })
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUNDRED: [Option<i64>; 2] = [Some(100), Some(100)];
    const MOVED: [Option<i64>; 2] = [Some(90), Some(110)];

    fn transfer() -> Transfer {
        Transfer { from: 0, to: 1, amount: 10 }
    }

    /// Makes a history of two accounts of 100, and one transfer of 10.
    fn history(outcome: Outcome) -> History {
        let transfers = vec![(transfer(), outcome)];
        History { accounts: 2, opening: 100, transfers, ..History::default() }
    }

    fn ended(outcome: Outcome, balances: [Option<i64>; 2], receipt: bool) -> History {
        let receipts = receipt.then(|| (0, transfer())).into_iter().collect();
        History { end: Some(End { balances: balances.to_vec(), receipts }), ..history(outcome) }
    }

    fn seen(balances: &[Option<i64>]) -> History {
        let totals = vec![Total { balances: balances.to_vec() }];
        History { totals, ..history(Outcome::Ok) }
    }

    #[track_caller]
    fn fails(history: &History, said: &str) {
        let problems = check(history).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(said)), "{problems:?}");
    }

    #[test]
    fn a_total_is_right_before_and_after_a_transfer() {
        let summary = check(&seen(&HUNDRED)).unwrap();
        assert_eq!(summary, Summary { transferred: 1, totals: 1, ..Summary::default() });
        check(&seen(&MOVED)).unwrap();
    }

    #[test]
    fn half_of_a_transfer_is_caught() {
        fails(&seen(&[Some(90), Some(100)]), "total 0 is 190, not 200");
        fails(&seen(&[Some(100), Some(110)]), "total 0 is 210, not 200");
    }

    #[test]
    fn an_account_that_is_missing_or_overdrawn_is_caught() {
        fails(&seen(&[Some(200), None]), "account 1 is not there");
        fails(&seen(&[Some(200)]), "1 accounts, not 2");
        fails(&seen(&[Some(-10), Some(210)]), "account 0 holds");
        fails(&History { lowest_seen: Some(-1), ..history(Outcome::Ok) }, "found -1");
        check(&History { lowest_seen: Some(0), ..history(Outcome::Ok) }).unwrap();
    }

    #[test]
    fn an_acknowledged_transfer_must_be_there_at_the_end() {
        check(&ended(Outcome::Ok, MOVED, true)).unwrap();
        fails(&ended(Outcome::Ok, HUNDRED, false), "was acknowledged and is lost");
    }

    #[test]
    fn a_refused_transfer_must_not_be_there() {
        check(&ended(Outcome::Failed, HUNDRED, false)).unwrap();
        fails(&ended(Outcome::Failed, MOVED, true), "was refused and is there");
    }

    #[test]
    fn an_unknown_transfer_is_there_as_a_whole_or_not_at_all() {
        check(&ended(Outcome::Unknown, MOVED, true)).unwrap();
        check(&ended(Outcome::Unknown, HUNDRED, false)).unwrap();
        fails(&ended(Outcome::Unknown, HUNDRED, true), "by its receipts it should hold 90");
        fails(&ended(Outcome::Unknown, MOVED, false), "by its receipts it should hold 100");
    }

    #[test]
    fn a_transfer_made_twice_is_caught_although_the_total_is_right() {
        fails(&ended(Outcome::Ok, [Some(80), Some(120)], true), "account 0 holds 80");
    }

    #[test]
    fn a_receipt_that_nobody_wrote_is_caught() {
        let mut history = ended(Outcome::Ok, MOVED, true);
        let end = history.end.as_mut().unwrap();
        end.receipts.insert(7, Transfer { from: 0, to: 1, amount: 0 });
        fails(&history, "nobody made transfer 7");
        let end = history.end.as_mut().unwrap();
        end.receipts = [(0, Transfer { from: 0, to: 1, amount: 11 })].into();
        fails(&history, "the receipt of");
    }
}
