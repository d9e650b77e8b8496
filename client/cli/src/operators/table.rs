//! Tables with aligned columns.

use std::borrow::Cow;
use std::fmt::Write;

use crate::text::shortened;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Bold titles, and lines no wider than this.
    Terminal { width: usize },
    /// No escape sequences.
    Plain,
}

/// How a column is laid out.
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
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    align: Align,
    /// Columns with the highest rank are left out first; rank 0 stays.
    rank: u8,
}

impl Column {
    /// A column that is always shown.
    pub(super) const fn new(title: &'static str, align: Align) -> Self {
        Self { title, align, rank: 0 }
    }

    /// A column that is left out of narrow terminals: first those with the highest rank.
    pub(super) const fn optional(title: &'static str, align: Align, rank: u8) -> Self {
        Self { title, align, rank }
    }
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one cell per column. Cells may be foreign text, so control characters are escaped.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.iter().map(|cell| shortened(cell.as_bytes())).collect());
    }

    /// Returns the lines of the table. If columns do not fit the terminal, a last line names them.
    pub(super) fn render(&self, style: Style) -> String {
        let mut shown: Vec<Shown> = (0..self.columns.len()).map(|at| Shown { at, width: self.width(at) }).collect();
        let mut left_out = Vec::new();
        if let Style::Terminal { width } = style {
            left_out = self.fit(&mut shown, width);
        }
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let mut text = match style {
            Style::Terminal { .. } => format!("\x1b[1m{}\x1b[0m\n", self.line(&titles, &shown)),
            Style::Plain => format!("{}\n", self.line(&titles, &shown)),
        };
        for row in &self.rows {
            text += &self.line(row, &shown);
            text.push('\n');
        }
        if let (false, Style::Terminal { width }) = (left_out.is_empty(), style) {
            let titles: Vec<&str> = left_out.iter().map(|&at| self.columns[at].title).collect();
            text += &wrapped(&format!("(no room for {}: see --json)\n", titles.join(", ")), width);
        }
        text
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].chars().count());
        cells.chain([self.columns[at].title.len()]).max().unwrap_or(0)
    }

    /// Narrows the widest columns first, then leaves columns out. Returns those left out that are not empty.
    fn fit(&self, shown: &mut Vec<Shown>, most: usize) -> Vec<usize> {
        let is_empty = |at: usize| self.rows.iter().all(|row| row[at].is_empty());
        let least = |at: usize| self.columns[at].title.len().max(MIN_WIDTH);
        let mut left_out = Vec::new();
        while shown.iter().map(|column| column.width + GAP).sum::<usize>() > most + GAP {
            let can_be_cut = shown
                .iter_mut()
                .filter(|Shown { at, width }| self.columns[*at].align == Align::Left && *width > least(*at));
            if let Some(widest) = can_be_cut.max_by_key(|column| column.width) {
                widest.width -= 1;
                continue;
            }
            let ranks =
                shown.iter().enumerate().map(|(index, &Shown { at, .. })| (is_empty(at), self.columns[at].rank, index));
            let Some((empty, _, index)) = ranks.filter(|&(_, rank, _)| rank > 0).max() else { break };
            let Shown { at, .. } = shown.remove(index);
            if !empty {
                left_out.push(at);
            }
            // There may be room again for those that were narrowed.
            shown.iter_mut().for_each(|column| column.width = self.width(column.at));
        }
        left_out.sort_unstable();
        left_out
    }

    fn line(&self, cells: &[String], shown: &[Shown]) -> String {
        let mut line = String::new();
        for &Shown { at, width } in shown {
            let cell = cut(&cells[at], width);
            let _ = match self.columns[at].align {
                Align::Left | Align::Whole => write!(line, "{cell:<width$}  "),
                Align::Right => write!(line, "{cell:>width$}  "),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// A column that is shown, and how wide.
struct Shown {
    at: usize,
    width: usize,
}

/// Breaks lines at spaces so that they fit this width; what follows in a paragraph is indented. Words are not broken.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    const INDENT: &str = "  ";
    let mut wrapped = String::new();
    for line in text.lines() {
        let mut column = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > width {
                wrapped.push('\n');
                wrapped.push_str(INDENT);
                column = INDENT.len();
            } else if column > 0 {
                wrapped.push(' ');
                column += 1;
            }
            wrapped.push_str(word);
            column += length;
        }
        wrapped.push('\n');
    }
    wrapped
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
        let [host, slots] = [Column::new("HOST", Align::Left), Column::new("SLOTS", Align::Right)];
        let mut table = Table::new(&[host, slots, Column::new("LABELS", Align::Left)]);
        table.row(["node1", "4", ""].map(str::to_owned));
        table.row(["größer", "128", "a=\x1b[31m"].map(str::to_owned));
        assert_eq!(table.render(Style::Plain), "HOST    SLOTS  LABELS\nnode1       4\ngrößer    128  a=\\u{1b}[31m\n");
        assert!(table.render(Style::Terminal { width: 80 }).starts_with("\x1b[1mHOST    SLOTS  LABELS\x1b[0m\nnode1 "));
    }

    /// A host's name of 70,000 characters once ended `farpool agents` with a panic.
    #[test]
    fn long_cells_are_clipped() {
        let mut table = Table::new(&[Column::new("HOST", Align::Left), Column::new("SLOTS", Align::Right)]);
        table.row([&"x".repeat(70_000), "1"].map(str::to_owned));
        let longest = table.render(Style::Plain).lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(250), "{longest:?}");
    }

    #[test]
    fn lines_fit_a_terminal() {
        let [id, why] = [Column::new("ID", Align::Whole), Column::new("WHY", Align::Left)];
        let labels = Column::optional("LABELS", Align::Left, 1);
        let mut table = Table::new(&[id, labels, Column::optional("N", Align::Right, 2), why]);
        table.row(["0123456789abcdef", "gpu=a100 os=linux zone=north", "7", "none of them"].map(str::to_owned));
        table.row(["0", "", "123456", ""].map(str::to_owned));
        let at = |width| table.render(Style::Terminal { width });
        assert!(at(80).contains("gpu=a100 os=linux zone=north       7  none of them\n"), "{}", at(80));
        assert!(at(50).contains("\n0123456789abcdef  gpu=a100...       7  none of...\n"), "{}", at(50));
        assert!(at(60).lines().skip(1).all(|line| line.chars().count() <= 60), "{}", at(60));
        let narrow = "\x1b[1mID                WHY\x1b[0m\n0123456789abcdef  none of...\n0\n(no room for LABELS, N: see\n  --json)\n";
        assert_eq!(at(28), narrow);
        // A terminal that has no room for what must be shown gets wider lines.
        assert!(at(20).contains("\n0123456789abcdef  none..."), "{}", at(20));
    }

    #[test]
    fn columns_without_content_are_left_out_first() {
        let labels = Column::optional("LABELS", Align::Left, 1);
        let mut table =
            Table::new(&[Column::new("HOST", Align::Left), labels, Column::optional("DONE", Align::Right, 2)]);
        table.row(["node1", "", "12"].map(str::to_owned));
        let text = table.render(Style::Terminal { width: 16 });
        assert_eq!(text, "\x1b[1mHOST   DONE\x1b[0m\nnode1    12\n");
    }

    #[test]
    fn sentences_are_wrapped_at_spaces() {
        assert_eq!(wrapped("one two three\n\nfour\n", 8), "one two\n  three\n\nfour\n");
        assert_eq!(wrapped("unbreakable word\n", 4), "unbreakable\n  word\n");
        assert_eq!(wrapped("fits exactly\n", 12), "fits exactly\n");
    }
}
