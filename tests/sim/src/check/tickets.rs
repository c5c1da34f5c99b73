//! Tickets of a book have the numbers 0, 1, 2 and so on, each once, in an order that agrees with
//! real time. No acknowledged ticket is lost, and no refused one exists.

use std::collections::BTreeMap;

use super::Verdict;
use crate::tickets::Draw;
use rangedb_workload::history::Outcome;

/// Checks all tickets. `end` has the number of each ticket found at the end, by the index of its
/// draw.
pub fn check(draws: &[Draw], end: &BTreeMap<usize, u64>) -> Verdict {
    let mut books: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for (place, number) in end {
        let Some(draw) = draws.get(*place) else {
            return Err(format!("nobody drew ticket {place}"));
        };
        if draw.outcome == Outcome::Failed {
            return Err(format!("ticket {place} was refused and is there: {draw:?}"));
        }
        if draw.number != *number {
            return Err(format!("ticket {place} bears {number}, not what was written: {draw:?}"));
        }
        books.entry(&draw.book).or_default().push((*number, *place));
    }
    let acknowledged = |draw: &&Draw| draw.outcome == Outcome::Ok;
    if let Some((place, draw)) = draws
        .iter()
        .enumerate()
        .find(|(place, draw)| acknowledged(draw) && !end.contains_key(place))
    {
        return Err(format!("ticket {place} was acknowledged and is lost: {draw:?}"));
    }
    books.into_iter().try_for_each(|(book, tickets)| check_book(book, tickets, draws))
}

fn check_book(book: &str, mut tickets: Vec<(u64, usize)>, draws: &[Draw]) -> Verdict {
    tickets.sort_unstable();
    let mut began_latest = 0;
    for (expected, (number, place)) in (0..).zip(&tickets) {
        let draw = &draws[*place];
        if *number != expected {
            return Err(format!(
                "book {book}: {number} where {expected} comes next, drawn by {draw:?}"
            ));
        }
        if draw.ended.is_some_and(|ended| ended < began_latest) {
            return Err(format!(
                "book {book}: a lower number than {draw:?} was drawn after it was done"
            ));
        }
        began_latest = began_latest.max(draw.began);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(number: u64, outcome: Outcome, span: (u64, u64)) -> Draw {
        let ended = (outcome != Outcome::Unknown).then_some(span.1);
        Draw { book: "0/0000/".to_owned(), number, outcome, began: span.0, ended }
    }

    fn end(there: &[(usize, u64)]) -> BTreeMap<usize, u64> {
        there.iter().copied().collect()
    }

    #[test]
    fn numbers_in_a_row_pass_with_some_that_are_unknown_or_refused() {
        let draws = [
            draw(0, Outcome::Ok, (1, 2)),
            draw(1, Outcome::Unknown, (3, 4)),
            draw(1, Outcome::Failed, (3, 4)),
            draw(1, Outcome::Unknown, (3, 4)),
            draw(2, Outcome::Ok, (5, 6)),
        ];
        assert_eq!(check(&draws, &end(&[(0, 0), (3, 1), (4, 2)])), Ok(()));
    }

    #[test]
    fn a_phantom_gives_two_the_same_number() {
        let draws = [draw(0, Outcome::Ok, (1, 9)), draw(0, Outcome::Ok, (1, 9))];
        assert!(check(&draws, &end(&[(0, 0), (1, 0)])).is_err());
    }

    #[test]
    fn a_lost_and_a_refused_ticket_are_caught() {
        let draws = [draw(0, Outcome::Ok, (1, 2)), draw(0, Outcome::Failed, (1, 2))];
        assert!(check(&draws[..1], &end(&[])).is_err());
        assert!(check(&draws[1..], &end(&[(0, 0)])).is_err());
        assert!(check(&[], &end(&[(0, 0)])).is_err());
        assert!(check(&draws[..1], &end(&[(0, 1)])).is_err());
    }

    #[test]
    fn an_order_against_real_time_is_caught() {
        let draws = [draw(0, Outcome::Ok, (5, 6)), draw(1, Outcome::Ok, (1, 2))];
        assert!(check(&draws, &end(&[(0, 0), (1, 1)])).is_err());
        let draws = [draw(0, Outcome::Ok, (2, 6)), draw(1, Outcome::Ok, (1, 3))];
        assert_eq!(check(&draws, &end(&[(0, 0), (1, 1)])), Ok(()));
    }
}
