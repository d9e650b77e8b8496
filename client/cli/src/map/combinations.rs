//! All combinations of the values of several sources; the last source varies fastest.

use std::io;

use super::item::Value;

/// The values of a source.
pub(super) type ValueIterator = Box<dyn Iterator<Item = io::Result<Value>> + Send>;

/// One value of each source.
pub(super) type Row = Vec<Value>;

/// An iterator over all combinations. A first group of one source is read on demand; everything else is kept in memory.
pub(super) struct Combinations {
    outer: Box<dyn Iterator<Item = io::Result<Row>> + Send>,
    /// Sources to read before the first row.
    unread: Vec<Vec<ValueIterator>>,
    inner: Vec<Vec<Row>>,
    /// The outer row that is being combined, and the positions in the inner ones.
    row: Option<Row>,
    at: Vec<usize>,
}

impl Combinations {
    /// Combines groups of sources. Sources of a group are linked value by value.
    pub(super) fn new(groups: Vec<Vec<ValueIterator>>) -> Combinations {
        let mut groups = groups.into_iter();
        let mut first = groups.next().unwrap_or_default();
        let outer: Box<dyn Iterator<Item = _> + Send> = match (first.pop(), first.is_empty()) {
            (None, _) => Box::new(std::iter::empty()),
            (Some(only), true) => Box::new(only.map(|value| value.map(|value| vec![value]))),
            (Some(last), false) => {
                first.push(last);
                Box::new(Linked { unread: first, rows: Vec::new().into_iter() })
            }
        };
        Combinations { outer, unread: groups.collect(), inner: Vec::new(), row: None, at: Vec::new() }
    }

    fn next_row(&mut self) -> io::Result<Option<Row>> {
        for group in std::mem::take(&mut self.unread) {
            self.inner.push(link(group)?);
        }
        if self.inner.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        if self.row.is_none() {
            self.row = self.outer.next().transpose()?;
            self.at = vec![0; self.inner.len()];
        }
        let Some(row) = &self.row else { return Ok(None) };
        let mut combined = row.clone();
        for (rows, &at) in self.inner.iter().zip(&self.at) {
            combined.extend_from_slice(&rows[at]);
        }
        self.step();
        Ok(Some(combined))
    }

    /// Advances to the next combination, the last source first.
    fn step(&mut self) {
        for (rows, at) in self.inner.iter().zip(&mut self.at).rev() {
            *at += 1;
            if *at < rows.len() {
                return;
            }
            *at = 0;
        }
        self.row = None;
    }
}

impl Iterator for Combinations {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// Rows of linked sources, read when the first row is needed.
struct Linked {
    unread: Vec<ValueIterator>,
    rows: std::vec::IntoIter<Row>,
}

impl Iterator for Linked {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.unread.is_empty() {
            match link(std::mem::take(&mut self.unread)) {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
        self.rows.next().map(Ok)
    }
}

/// Links sources: as many rows as the longest source has values; shorter ones start again. No rows if a source is
/// empty.
fn link(sources: Vec<ValueIterator>) -> io::Result<Vec<Row>> {
    let lists = sources.into_iter().map(Iterator::collect).collect::<io::Result<Vec<Vec<Value>>>>()?;
    if lists.iter().any(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    Ok((0..longest).map(|at| lists.iter().map(|list| list[at % list.len()].clone()).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::item::Item;
    use super::*;

    #[track_caller]
    fn check(groups: &[&[&[&str]]], expected: &[&str]) {
        let source = |texts: &&[&str]| -> ValueIterator {
            let values: Vec<_> = texts.iter().map(|text| Ok(Value::from(text.as_bytes().to_vec()))).collect();
            Box::new(values.into_iter())
        };
        let groups = groups.iter().map(|group| group.iter().map(source).collect()).collect();
        let names = Combinations::new(groups).map(|row| String::from_utf8(Item::of(row.unwrap()).name).unwrap());
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_last_source_varies_fastest() {
        check(&[&[&["a", "b"]], &[&["1", "2"]]], &["a 1", "a 2", "b 1", "b 2"]);
        check(&[&[&["a", "b"]], &[&["1"]], &[&["x", "y"]]], &["a 1 x", "a 1 y", "b 1 x", "b 1 y"]);
        check(&[&[&["a", "b"]]], &["a", "b"]);
        check(&[&[&["a", "b"]], &[&[]]], &[]);
        check(&[&[&[]], &[&["1"]]], &[]);
        check(&[], &[]);
    }

    #[test]
    fn linked_sources_advance_together_and_short_ones_start_again() {
        check(&[&[&["a", "b", "c"], &["1", "2"]]], &["a 1", "b 2", "c 1"]);
        check(&[&[&["a"], &["1", "2"]]], &["a 1", "a 2"]);
        check(&[&[&["a", "b"], &[]]], &[]);
        check(&[&[&["a", "b"], &["1", "2"]], &[&["x", "y"]]], &["a 1 x", "a 1 y", "b 2 x", "b 2 y"]);
        check(&[&[&["x", "y"]], &[&["a", "b"], &["1", "2"]]], &["x a 1", "x b 2", "y a 1", "y b 2"]);
    }

    #[test]
    fn read_errors_are_reported() {
        let broken = || -> ValueIterator { Box::new([Err(io::ErrorKind::InvalidData.into())].into_iter()) };
        let good = || -> ValueIterator { Box::new([Ok(Value::default())].into_iter()) };
        for groups in [vec![vec![broken()]], vec![vec![good(), broken()]], vec![vec![good()], vec![broken()]]] {
            assert!(Combinations::new(groups).next().unwrap().is_err());
        }
    }
}
