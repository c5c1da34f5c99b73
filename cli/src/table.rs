//! Tables for people: aligned columns without borders, so that `grep` and `awk` work on them.
//! Control characters are escaped. Nodes choose their own names and addresses, and none of these
//! may break a line or steer the terminal.

use std::io::{self, Write};

use comfy_table::{Row, Table, presets};

use crate::escape;

/// Blanks between columns.
const GAP: u16 = 2;

/// Prints rows under a head. Cells are never wrapped or cut, however narrow the terminal is.
pub fn print<const N: usize>(
    out: &mut dyn Write,
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = plain();
    table.set_header(Row::from(head));
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| escape::on_one_line(&cell))));
    finish(out, table)
}

/// Prints names and their values, one pair a line.
pub fn print_fields<const N: usize>(
    out: &mut dyn Write,
    fields: [(&str, String); N],
) -> io::Result<()> {
    let mut table = plain();
    table.add_rows(fields.map(|(name, value)| [name.to_owned(), escape::on_one_line(&value)]));
    finish(out, table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn finish(out: &mut dyn Write, mut table: Table) -> io::Result<()> {
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    writeln!(out, "{}", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_in_line_and_nothing_is_cut() {
        let long = "x".repeat(500);
        let mut out = Vec::new();
        print(&mut out, ["ID", "NAME"], [["1".into(), long.clone()], ["23".into(), "b".into()]])
            .unwrap();
        let expected = format!("ID  NAME\n1   {long}\n23  b\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_cell_breaks_no_line_and_steers_no_terminal() {
        let mut out = Vec::new();
        print(&mut out, ["A", "B"], [["1\n2".into(), "\u{1b}[31mé".into()]]).unwrap();
        print_fields(&mut out, [("c", "3\t4".into())]).unwrap();
        let expected = "A     B\n1\\n2  \\x1b[31mé\nc  3\\t4\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
