//! Where items come from: stdin, a file, or the command line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::queue::{Item, Queue};

/// Where items come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Stdin,
    File(PathBuf),
    Arguments(Vec<Vec<u8>>),
}

/// The longest argument that Linux passes to a program (MAX_ARG_STRLEN): no longer item can be in a command.
pub(super) const LONGEST: usize = 128 << 10;

impl Source {
    /// Reads items into a queue, from a thread: a slow input holds nothing else up. An error is that of opening it.
    pub(super) fn read(&self, separator: u8) -> Result<Arc<Queue>, String> {
        let queue = Arc::new(Queue::default());
        let filled = Arc::clone(&queue);
        let fill: Box<dyn FnOnce() + Send> = match self.clone() {
            Source::Arguments(items) => Box::new(move || {
                let whole = items.into_iter().all(|bytes| filled.push(cut(bytes)));
                filled.end(if whole { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) });
            }),
            Source::Stdin => {
                if io::stdin().is_terminal() {
                    eprintln!("farpool: reading items from the terminal, one per line; Ctrl-D ends the input");
                }
                Box::new(move || fill_from(io::stdin().lock(), separator, &filled))
            }
            Source::File(path) => {
                let reader = BufReader::new(open(&path)?);
                Box::new(move || fill_from(reader, separator, &filled))
            }
        };
        let started = thread::Builder::new().name("farpool-items".to_owned()).spawn(fill);
        started.map_err(|error| format!("cannot start a thread that reads the items: {error}"))?;
        Ok(queue)
    }
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| format!("cannot read the items in {}: {error}", path.display()))
}

fn cut(mut bytes: Vec<u8>) -> Item {
    let cut = bytes.len() > LONGEST;
    bytes.truncate(LONGEST);
    Item { bytes, cut }
}

fn fill_from(mut reader: impl BufRead, separator: u8, queue: &Queue) {
    loop {
        match next(&mut reader, separator) {
            Ok(Some(item)) => {
                let wanted = queue.push(item);
                if !wanted {
                    return;
                }
            }
            Ok(None) => return queue.end(Ok(())),
            Err(error) => return queue.end(Err(error)),
        }
    }
}

/// The next item, without its separator; `None` at the end. No more of an item is kept than can be used.
fn next(reader: &mut impl BufRead, separator: u8) -> io::Result<Option<Item>> {
    let mut item = Item::default();
    let mut any = false;
    loop {
        let portion = match reader.fill_buf() {
            Ok(portion) => portion,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if portion.is_empty() {
            return Ok(any.then_some(item));
        }
        any = true;
        let end = portion.iter().position(|&byte| byte == separator);
        let part = &portion[..end.unwrap_or(portion.len())];
        let room = LONGEST - item.bytes.len();
        item.cut |= part.len() > room;
        item.bytes.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &[u8], separator: u8) -> Vec<Item> {
        // A small buffer, so that items lie across its ends.
        let mut reader = BufReader::with_capacity(3, text);
        std::iter::from_fn(|| next(&mut reader, separator).unwrap()).collect()
    }

    fn texts(text: &str, separator: u8) -> Vec<String> {
        let text_of = |item: Item| String::from_utf8(item.bytes).unwrap();
        items(text.as_bytes(), separator).into_iter().map(text_of).collect()
    }

    #[test]
    fn an_item_is_what_is_between_separators() {
        assert_eq!(texts("one\ntwo\n\nlast", b'\n'), ["one", "two", "", "last"]);
        assert_eq!(texts("one\n\n", b'\n'), ["one", ""]);
        assert_eq!(texts("a\nb\0c", 0), ["a\nb", "c"]);
        assert_eq!(texts("", b'\n'), [""; 0]);
    }

    #[test]
    fn no_more_of_an_item_is_kept_than_can_be_used() {
        let text = [vec![b'x'; LONGEST], vec![b'\n'], vec![b'y'; LONGEST + 1], vec![b'\n', b'z']].concat();
        let sizes: Vec<_> = items(&text, b'\n').into_iter().map(|item| (item.bytes.len(), item.cut)).collect();
        assert_eq!(sizes, [(LONGEST, false), (LONGEST, true), (1, false)]);
    }
}
