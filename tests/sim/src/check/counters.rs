//! A counter that is raised by compare-and-swap stands at the number of its increments: all that
//! were acknowledged, none twice, and some of those with an unknown outcome.

use super::Verdict;
use crate::history::Increments;

pub fn check(key: &str, increments: Increments, stands_at: u64) -> Verdict {
    let Increments { acknowledged, unknown } = increments;
    if (acknowledged..=acknowledged + unknown).contains(&stands_at) {
        return Ok(());
    }
    Err(format!(
        "counter {key} stands at {stands_at} after {acknowledged} acknowledged increments and \
         {unknown} with an unknown outcome"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_and_a_doubled_increment_are_caught() {
        let increments = Increments { acknowledged: 5, unknown: 2 };
        for stands_at in 5..=7 {
            assert_eq!(check("c", increments, stands_at), Ok(()));
        }
        assert!(check("c", increments, 4).is_err());
        assert!(check("c", increments, 8).is_err());
    }
}
