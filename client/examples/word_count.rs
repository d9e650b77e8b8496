//! Counts the words in the text files of a folder: results as they come, merged into one.
//!
//! `cargo run --release --example word_count -- --processes 4 FOLDER`

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

const USAGE: &str = "\
Counts the words in all files below a folder.

Usage: word_count [--processes N] FOLDER

  --processes N  workers that run at once (default: one for each core)
  FOLDER         where the files are";

type Words = BTreeMap<String, u64>;

/// The words of one file, or why it cannot be read.
fn count_words(path: PathBuf) -> Result<Words, String> {
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut words = Words::new();
    for word in text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()) {
        *words.entry(word.to_lowercase()).or_default() += 1;
    }
    Ok(words)
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let (processes, [folder]) = common::arguments(USAGE, ["FOLDER"]);
    let folder = folder.unwrap_or_else(|| common::wrong(USAGE, "word_count needs a folder"));
    let (files, unlisted) = files_below(folder);
    if files.is_empty() {
        common::wrong(USAGE, unlisted.first().map_or("the folder has no files", String::as_str));
    }

    let start = Instant::now();
    let pool = farpool::Pool::new(processes)?;
    let mut total = Total::default();
    for counted in pool.imap_unordered(count_words, files.clone()) {
        total.add(counted?);
    }
    pool.close();
    pool.join()?;
    let took = start.elapsed();

    for unreadable in unlisted.iter().chain(&total.unreadable) {
        println!("not read: {unreadable}");
    }
    println!("{} words in {} files, {} of them different", total.words(), total.files, total.count.len());
    println!("most frequent: {}", total.most_frequent(10));
    common::compare(processes, took, &total.sorted(), || {
        let mut total = Total::default();
        files.into_iter().for_each(|file| total.add(count_words(file)));
        total.sorted()
    });
    Ok(())
}

#[derive(Default, PartialEq)]
struct Total {
    files: usize,
    count: Words,
    unreadable: Vec<String>,
}

impl Total {
    fn add(&mut self, counted: Result<Words, String>) {
        match counted {
            Ok(words) => {
                self.files += 1;
                for (word, count) in words {
                    *self.count.entry(word).or_default() += count;
                }
            }
            Err(unreadable) => self.unreadable.push(unreadable),
        }
    }

    fn words(&self) -> u64 {
        self.count.values().sum()
    }

    fn most_frequent(&self, most: usize) -> String {
        let mut words: Vec<_> = self.count.iter().collect();
        words.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        words.iter().take(most).map(|(word, count)| format!("{word} ({count})")).collect::<Vec<_>>().join(", ")
    }

    /// Without what depends on the order in which files were counted.
    fn sorted(mut self) -> Total {
        self.unreadable.sort();
        self
    }
}

/// All files below a folder, and the folders that could not be listed. Links are not followed.
fn files_below(folder: PathBuf) -> (Vec<PathBuf>, Vec<String>) {
    let (mut files, mut unlisted) = (Vec::new(), Vec::new());
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        if let Err(error) = list(&folder, &mut files, &mut folders) {
            unlisted.push(format!("{}: {error}", folder.display()));
        }
    }
    files.sort();
    (files, unlisted)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => folders.push(entry.path()),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}
