//! Tables with aligned columns.

use std::borrow::Cow;
use std::fmt::Write;

use crate::text::shortened;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Bold titles, and lines no wider than this, if possible.
    Terminal { width: usize },
    /// No escape sequences.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Cut if there is no room.
    Left,
    /// Never cut, since the text would be useless.
    Whole,
    Right,
}

/// Marks a cell that was cut.
const CUT: &str = "...";
/// The least width that a column is cut to.
const MIN_WIDTH: usize = 8;
/// The space between columns.
const GAP: usize = 2;

pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one cell per column. Cells may be foreign text, so control characters are escaped.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.iter().map(|cell| shortened(cell.as_bytes())).collect());
    }

    pub(super) fn render(&self, style: Style) -> String {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        if let Style::Terminal { width } = style {
            self.fit(&mut widths, width);
        }
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let mut text = match style {
            Style::Terminal { .. } => format!("\x1b[1m{}\x1b[0m\n", self.line(&titles, &widths)),
            Style::Plain => format!("{}\n", self.line(&titles, &widths)),
        };
        for row in &self.rows {
            text += &self.line(row, &widths);
            text.push('\n');
        }
        text
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].chars().count());
        cells.chain([self.columns[at].0.len()]).max().unwrap_or(0)
    }

    /// Narrows the widest columns first.
    fn fit(&self, widths: &mut [usize], most: usize) {
        let least = |at: usize| self.columns[at].0.len().max(MIN_WIDTH);
        while widths.iter().map(|width| width + GAP).sum::<usize>() > most + GAP {
            let columns = self.columns.iter().enumerate();
            let can_be_cut = columns.filter(|(at, (_, align))| *align == Align::Left && widths[*at] > least(*at));
            let Some((widest, _)) = can_be_cut.max_by_key(|(at, _)| widths[*at]) else { return };
            widths[widest] -= 1;
        }
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, &width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            let cell = cut(cell, width);
            let _ = match align {
                Align::Left | Align::Whole => write!(line, "{cell:<width$}  "),
                Align::Right => write!(line, "{cell:>width$}  "),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Cuts a cell to this width.
fn cut(cell: &str, width: usize) -> Cow<'_, str> {
    if cell.chars().count() <= width {
        return Cow::Borrowed(cell);
    }
    let kept: String = cell.chars().take(width.saturating_sub(CUT.len())).collect();
    Cow::Owned(kept.trim_end().to_owned() + CUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("HOST", Align::Left), ("SLOTS", Align::Right), ("LABELS", Align::Left)]);
        table.row(["node1", "4", ""].map(str::to_owned));
        table.row(["größer", "128", "a=\x1b[31m"].map(str::to_owned));
        assert_eq!(table.render(Style::Plain), "HOST    SLOTS  LABELS\nnode1       4\ngrößer    128  a=\\u{1b}[31m\n");
        assert!(table.render(Style::Terminal { width: 80 }).starts_with("\x1b[1mHOST    SLOTS  LABELS\x1b[0m\nnode1 "));
    }

    /// A host's name of 70,000 characters once ended `farpool agents` with a panic.
    #[test]
    fn long_cells_are_clipped() {
        let mut table = Table::new(&[("HOST", Align::Left), ("SLOTS", Align::Right)]);
        table.row([&"x".repeat(70_000), "1"].map(str::to_owned));
        let longest = table.render(Style::Plain).lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(250), "{longest:?}");
    }

    #[test]
    fn lines_fit_a_terminal() {
        let columns = [("ID", Align::Whole), ("LABELS", Align::Left), ("N", Align::Right), ("WHY", Align::Left)];
        let mut table = Table::new(&columns);
        table.row(["0123456789abcdef", "gpu=a100 os=linux zone=north", "7", "none of them"].map(str::to_owned));
        table.row(["0", "", "123456", ""].map(str::to_owned));
        let at = |width| table.render(Style::Terminal { width });
        assert!(at(80).contains("gpu=a100 os=linux zone=north       7  none of them\n"), "{}", at(80));
        assert!(at(50).contains("\n0123456789abcdef  gpu=a100...       7  none of...\n"), "{}", at(50));
        assert!(at(60).lines().skip(1).all(|line| line.chars().count() <= 60), "{}", at(60));
        // A terminal that is too narrow gets wider lines.
        assert_eq!(at(1), at(20));
    }
}
