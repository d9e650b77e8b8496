//! Columns that stand under each other.

use std::fmt::Write;

use crate::text::shortened;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Titles stand out.
    Terminal,
    /// No escape sequences.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One cell a column. Names come from other people's programs: nothing in them reaches the terminal as an order.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.iter().map(|cell| shortened(cell.as_bytes())).collect());
    }

    pub(super) fn render(&self, style: Style) -> String {
        let width = |at: usize, (title, _): &(&str, Align)| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([title.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(at, column)| width(at, column)).collect();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let mut text = match style {
            Style::Terminal => format!("\x1b[1m{}\x1b[0m\n", self.line(&titles, &widths)),
            Style::Plain => format!("{}\n", self.line(&titles, &widths)),
        };
        for row in &self.rows {
            text += &self.line(row, &widths);
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, &width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            let _ = match align {
                Align::Left => write!(line, "{cell:<width$}  "),
                Align::Right => write!(line, "{cell:>width$}  "),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(&[("HOST", Align::Left), ("SLOTS", Align::Right), ("LABELS", Align::Left)]);
        table.row(["node1", "4", ""].map(str::to_owned));
        table.row(["größer", "128", "a=\x1b[31m"].map(str::to_owned));
        assert_eq!(table.render(Style::Plain), "HOST    SLOTS  LABELS\nnode1       4\ngrößer    128  a=\\u{1b}[31m\n");
        assert!(table.render(Style::Terminal).starts_with("\x1b[1mHOST    SLOTS  LABELS\x1b[0m\nnode1 "));
    }

    /// A host's name of 70,000 characters once ended `farpool agents` with a panic.
    #[test]
    fn long_cells_are_clipped() {
        let mut table = Table::new(&[("HOST", Align::Left), ("SLOTS", Align::Right)]);
        table.row([&"x".repeat(70_000), "1"].map(str::to_owned));
        let longest = table.render(Style::Plain).lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(250), "{longest:?}");
    }
}
