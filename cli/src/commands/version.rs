//! `rangedb version`.

use std::io::Write;

use crate::failure::Failure;

pub fn run(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(writeln!(out, "rangedb {}", env!("CARGO_PKG_VERSION"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_one_line() {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        assert_eq!(out, format!("rangedb {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    }
}
