//! Counts the words in the text files of a folder: merges results as they arrive.
//!
//! `cargo run --release -p farpool-examples --example word_count -- --processes 4 FOLDER`

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

const USAGE: &str = "\
Counts the words in all files below a folder.

Usage: word_count [--processes N] FOLDER

  --processes N  workers that run at once (default: one for each core, or slot of the cluster)
  FOLDER         where the files are";

/// Files per item. A worker adds up their words, so that results are smaller and merging is cheaper.
const FILES_AT_ONCE: usize = 50;

/// The words of some files, and why others could not be read.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Counted {
    files: u64,
    words: HashMap<String, u64>,
    unreadable: Vec<String>,
}

fn count_words(paths: Vec<PathBuf>) -> Counted {
    let mut counted = Counted::default();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => counted.read(&text),
            Err(error) => counted.unreadable.push(format!("{}: {error}", path.display())),
        }
    }
    counted
}

fn main() -> Result<(), farpool::Error> {
    farpool::init();
    let (processes, [folder]) = farpool_examples::arguments(USAGE, ["FOLDER"]);
    let folder = folder.unwrap_or_else(|| farpool_examples::wrong(USAGE, "word_count needs a folder"));
    let (files, unlisted) = files_below(folder);
    if files.is_empty() {
        farpool_examples::wrong(USAGE, unlisted.first().map_or("the folder has no files", String::as_str));
    }
    let groups: Vec<Vec<PathBuf>> = files.chunks(FILES_AT_ONCE).map(<[PathBuf]>::to_vec).collect();

    let start = Instant::now();
    let pool = farpool_examples::pool(processes)?;
    let workers = pool.processes();
    let mut total = Counted::default();
    for counted in pool.imap_unordered(count_words, groups.clone()) {
        total.add(counted?);
    }
    pool.close();
    pool.join()?;
    let took = start.elapsed();

    for unreadable in unlisted.iter().chain(&total.unreadable) {
        println!("not read: {unreadable}");
    }
    let words: u64 = total.words.values().sum();
    println!("{words} words in {} files, {} of them different", total.files, total.words.len());
    println!("most frequent: {}", total.most_frequent(10));
    // Groups were merged in the order of completion.
    total.unreadable.sort();
    farpool_examples::compare(workers, took, &total, || {
        let mut total = Counted::default();
        groups.into_iter().for_each(|group| total.add(count_words(group)));
        total.unreadable.sort();
        total
    });
    Ok(())
}

impl Counted {
    fn read(&mut self, text: &str) {
        self.files += 1;
        for word in text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()) {
            *self.words.entry(word.to_lowercase()).or_default() += 1;
        }
    }

    fn add(&mut self, other: Counted) {
        self.files += other.files;
        self.unreadable.extend(other.unreadable);
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
    }

    fn most_frequent(&self, most: usize) -> String {
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), *word));
        words.iter().take(most).map(|(word, count)| format!("{word} ({count})")).collect::<Vec<_>>().join(", ")
    }
}

/// Returns all files below a folder, and the folders that could not be listed. Links are not followed.
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
