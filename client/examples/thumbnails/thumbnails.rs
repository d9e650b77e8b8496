//! Makes thumbnails of a folder of images, which it paints first: files in, files out.
//!
//! `cargo run --release -p farpool-example-thumbnails --example thumbnails -- --processes 4`

use std::path::{Path, PathBuf};
use std::time::Instant;

use image::{ImageResult, Rgb, RgbImage};

const USAGE: &str = "\
Paints a folder of images and makes thumbnails of them.

Usage: thumbnails [--processes N] [--folder FOLDER]

  --processes N    workers that run at once (default: one for each core, or slot of the cluster)
  --folder FOLDER  where to leave the images (default: a temporary folder, removed at the end)";

const IMAGES: u32 = 48;
const SIZE: (u32, u32) = (1600, 1200);
const THUMBNAIL: u32 = 160;

/// Bytes of an image and of its thumbnail, or an error: one bad image does not stop the rest.
type Outcome = Result<(u64, u64), String>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    farpool::init();
    let (processes, [folder]) = farpool_examples::arguments(USAGE, ["--folder"]);
    let kept = folder.is_some();
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join(format!("farpool-{}", std::process::id())));
    let thumbnails = folder.join("thumbnails");
    std::fs::create_dir_all(&thumbnails)?;

    let pool = farpool_examples::pool(processes)?;
    let workers = pool.processes();
    let paths: Vec<PathBuf> = (0..IMAGES).map(|number| folder.join(format!("image-{number:02}.jpg"))).collect();
    pool.starmap(paint, paths.iter().cloned().zip(0..))?.into_iter().collect::<Result<Vec<()>, String>>()?;

    let start = Instant::now();
    let pairs: Vec<(PathBuf, PathBuf)> = paths.into_iter().map(|path| in_folder(&thumbnails, path)).collect();
    let outcomes = pool.starmap(shrink, pairs.clone())?;
    let took = start.elapsed();
    pool.close();
    pool.join()?;

    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        println!("failed: {error}");
    }
    let done: Vec<_> = outcomes.iter().flatten().collect();
    let read: u64 = done.iter().map(|(read, _)| read).sum();
    let written: u64 = done.iter().map(|(_, written)| written).sum();
    println!("made {} thumbnails: {} KiB of images became {} KiB", done.len(), read >> 10, written >> 10);
    if kept {
        println!("they are in {}", thumbnails.display());
    }

    farpool_examples::compare(workers, took, &outcomes, || {
        pairs.into_iter().map(|(from, to)| shrink(from, to)).collect()
    });
    if !kept {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// Returns the path of an image and the path of its thumbnail.
fn in_folder(thumbnails: &Path, image: PathBuf) -> (PathBuf, PathBuf) {
    let name = image.with_extension("png").file_name().map(PathBuf::from).unwrap_or_default();
    (image, thumbnails.join(name))
}

/// Paints waves of colour, different in each image.
fn paint(path: PathBuf, number: u32) -> Result<(), String> {
    let wave = |along: u32, length: u32| (128.0 + 127.0 * (f64::from(along) / f64::from(length)).sin()) as u8;
    let image = RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| {
        Rgb([wave(x, 20 + 3 * number), wave(y, 90 - number), wave(x + y, 40 + number)])
    });
    image.save(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn shrink(from: PathBuf, to: PathBuf) -> Outcome {
    let shrunk = || -> ImageResult<(u64, u64)> {
        image::open(&from)?.thumbnail(THUMBNAIL, THUMBNAIL).save(&to)?;
        Ok((from.metadata()?.len(), to.metadata()?.len()))
    };
    shrunk().map_err(|error| format!("{}: {error}", from.display()))
}
