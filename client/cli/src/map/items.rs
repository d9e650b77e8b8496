//! Reads items from stdin, files or the command line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::blocks::Blocks;
use super::combinations::{self, Combinations};
use super::item::{Item, MAX_VALUE_BYTES, Value};
use super::queue::Queue;

/// The source of items, and the unit that makes an item.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) source: Source,
    /// The byte that ends a value, or a line of a block.
    pub(super) separator: u8,
    pub(super) unit: Unit,
}

/// The unit that makes an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// This many consecutive values.
    Values(usize),
    /// Whole lines, up to this many bytes together. `digests`: blocks are hashed for the records.
    Block { bytes: usize, digests: bool },
}

/// A source of values.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Stdin,
    File(PathBuf),
    /// All combinations of the values of these.
    Lists(Vec<List>),
}

/// One source of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub(super) values: ListValues,
    /// Linked with the source before it, value by value.
    pub(super) linked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListValues {
    Given(Vec<Vec<u8>>),
    /// The lines of this file; `-` is stdin.
    File(PathBuf),
}

type Reader = Box<dyn Read + Send>;

impl Input {
    /// Reads items into a queue from a thread, so that a slow input delays nothing else. Fails if the input cannot be opened.
    pub(super) fn read(&self) -> Result<Arc<Queue>, String> {
        let items = self.items()?;
        let queue = Arc::new(Queue::default());
        let filled = Arc::clone(&queue);
        let fill = move || {
            for item in items {
                let wanted = match item {
                    Ok(item) => filled.push(item),
                    Err(error) => return filled.end(Err(error)),
                };
                if !wanted {
                    return;
                }
            }
            filled.end(Ok(()));
        };
        let started = thread::Builder::new().name("farpool-items".to_owned()).spawn(fill);
        started.map_err(|error| format!("cannot start the thread that reads the items: {error}"))?;
        Ok(queue)
    }

    fn items(&self) -> Result<Box<dyn Iterator<Item = io::Result<Item>> + Send>, String> {
        let lists = match (&self.source, self.unit) {
            (source, Unit::Block { bytes, digests }) => {
                return Ok(Box::new(Blocks::new(source.open()?, bytes, self.separator, digests)));
            }
            (Source::Lists(lists), Unit::Values(count)) => match &lists[..] {
                [only] => return Ok(together(self.values(&only.values)?, count)),
                lists => lists,
            },
            (source, Unit::Values(count)) => return Ok(together(lines(source.open()?, self.separator), count)),
        };
        let mut groups: Vec<Vec<combinations::ValueIterator>> = Vec::new();
        for list in lists {
            let values = self.values(&list.values)?;
            match groups.last_mut() {
                Some(group) if list.linked => group.push(values),
                _ => groups.push(vec![values]),
            }
        }
        Ok(Box::new(Combinations::new(groups).map(|row| row.map(Item::of))))
    }

    fn values(&self, values: &ListValues) -> Result<combinations::ValueIterator, String> {
        match values {
            ListValues::Given(values) => Ok(Box::new(values.clone().into_iter().map(|bytes| Ok(Value::from(bytes))))),
            ListValues::File(path) => Ok(lines(open(path)?, self.separator)),
        }
    }
}

impl Source {
    fn open(&self) -> Result<Reader, String> {
        match self {
            Source::File(path) => open(path),
            Source::Stdin | Source::Lists(_) => Ok(stdin()),
        }
    }
}

fn open(path: &Path) -> Result<Reader, String> {
    if path == Path::new("-") {
        return Ok(stdin());
    }
    let file = File::open(path).map_err(|error| format!("cannot read the items in {}: {error}", path.display()))?;
    Ok(Box::new(file))
}

fn stdin() -> Reader {
    if io::stdin().is_terminal() {
        eprintln!("farpool: reading items from the terminal, one per line; Ctrl-D ends the input");
    }
    Box::new(io::stdin())
}

fn lines(reader: Reader, separator: u8) -> combinations::ValueIterator {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    // A terminal may yield more after its end, which is not read.
    Box::new(std::iter::from_fn(move || next(&mut reader, separator).transpose()).fuse())
}

/// Groups values into items of `count`; the last one may have fewer.
fn together(
    mut values: combinations::ValueIterator,
    count: usize,
) -> Box<dyn Iterator<Item = io::Result<Item>> + Send> {
    if count == 1 {
        return Box::new(values.map(|value| value.map(Item::from)));
    }
    let mut error = None;
    Box::new(std::iter::from_fn(move || {
        if let Some(error) = error.take() {
            return Some(Err(error));
        }
        let mut any = false;
        let taken = values.by_ref().take(count).map_while(|value| value.map_err(|failed| error = Some(failed)).ok());
        let item = Item::of(taken.inspect(|_| any = true));
        if any { Some(Ok(item)) } else { error.take().map(Err) }
    }))
}

/// Reads the next value without its separator; `None` at the end. Keeps no more of a value than can be used.
fn next(reader: &mut impl BufRead, separator: u8) -> io::Result<Option<Value>> {
    let mut value = Value::default();
    let mut any = false;
    loop {
        let portion = match reader.fill_buf() {
            Ok(portion) => portion,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if portion.is_empty() {
            return Ok(any.then_some(value));
        }
        any = true;
        let end = portion.iter().position(|&byte| byte == separator);
        let part = &portion[..end.unwrap_or(portion.len())];
        let room = MAX_VALUE_BYTES - value.bytes.len();
        value.cut |= part.len() > room;
        value.bytes.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &[u8], separator: u8) -> Vec<Value> {
        // A small buffer, so that items cross its ends.
        let mut reader = BufReader::with_capacity(3, text);
        std::iter::from_fn(|| next(&mut reader, separator).unwrap()).collect()
    }

    fn texts(text: &str, separator: u8) -> Vec<String> {
        let text_of = |item: Value| String::from_utf8(item.bytes).unwrap();
        items(text.as_bytes(), separator).into_iter().map(text_of).collect()
    }

    #[test]
    fn separators_delimit_items() {
        assert_eq!(texts("one\ntwo\n\nlast", b'\n'), ["one", "two", "", "last"]);
        assert_eq!(texts("one\n\n", b'\n'), ["one", ""]);
        assert_eq!(texts("a\nb\0c", 0), ["a\nb", "c"]);
        assert_eq!(texts("", b'\n'), [""; 0]);
    }

    #[test]
    fn only_the_usable_part_of_an_item_is_kept() {
        let text =
            [vec![b'x'; MAX_VALUE_BYTES], vec![b'\n'], vec![b'y'; MAX_VALUE_BYTES + 1], vec![b'\n', b'z']].concat();
        let sizes: Vec<_> = items(&text, b'\n').into_iter().map(|item| (item.bytes.len(), item.cut)).collect();
        assert_eq!(sizes, [(MAX_VALUE_BYTES, false), (MAX_VALUE_BYTES, true), (1, false)]);
    }

    #[test]
    fn values_are_grouped_into_items() {
        let values = |texts: &[&'static str]| -> combinations::ValueIterator {
            let values: Vec<_> = texts.iter().map(|text| Ok(Value::from(text.as_bytes().to_vec()))).collect();
            Box::new(values.into_iter())
        };
        let names = |count, texts: &[&'static str]| -> Vec<String> {
            together(values(texts), count).map(|item| String::from_utf8(item.unwrap().name).unwrap()).collect()
        };
        assert_eq!(names(2, &["a", "b", "c"]), ["a b", "c"]);
        assert_eq!(names(3, &["a", "b", "c"]), ["a b c"]);
        assert_eq!(names(2, &[""]), [""]);
        assert_eq!(names(2, &[]), [""; 0]);
        // Values before an error still make an item.
        let broken: combinations::ValueIterator =
            Box::new(values(&["a"]).chain([Err(io::ErrorKind::InvalidData.into())]));
        let items: Vec<_> = together(broken, 2).map(|item| item.is_ok()).collect();
        assert_eq!(items, [true, false]);
    }
}
