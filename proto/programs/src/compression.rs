//! Programs travel as one zstd frame. A coordinator also keeps them like that.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::stream::read::Encoder;

use super::Digest;

/// For executables, level 1 makes about 5% more bytes and takes about a fifth less time; level 3 makes 5% fewer and
/// takes half as long again.
const LEVEL: i32 = 2;
/// How far back a frame may refer, as a power of two: 1 MiB. The receiver of a program must allocate as much, and many
/// may do so at once.
const WINDOW_LOG: u32 = 20;
/// Large enough for a decompressed block.
const BUFFER_BYTES: usize = 128 << 10;

/// Returns the executable in `file`, compressed while it is read. Reading fails if it is shorter than `size`.
pub(super) fn compressed(file: File, size: u64) -> io::Result<impl Read + Send + 'static> {
    let mut encoder = Encoder::new(file.take(size), LEVEL)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.set_pledged_src_size(Some(size))?;
    Ok(encoder)
}

/// Returns the most bytes that an executable of this size may take when compressed. Without a bound, a frame of empty
/// blocks could continue for ever.
pub(super) fn most_compressed(size: u64) -> u64 {
    usize::try_from(size).map_or(u64::MAX, |size| zstd::zstd_safe::compress_bound(size) as u64)
}

/// Returns the digest and the size of the executable that is compressed in `file`.
pub(super) fn contents_of(file: &File) -> io::Result<(Digest, u64)> {
    let (mut decompressor, mut hasher, mut size) = (Decompressor::new()?, blake3::Hasher::new(), 0);
    let (mut buffer, mut at) = (vec![0; BUFFER_BYTES], 0);
    loop {
        let mut read = match file.read_at(&mut buffer, at) {
            Ok(0) if decompressor.has_ended() => return Ok((hasher.finalize().into(), size)),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => &buffer[..bytes],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        at += read.len() as u64;
        while let Some(part) = decompressor.next(&mut read)? {
            hasher.update(part);
            size += part.len() as u64;
        }
    }
}

/// Decompresses one frame incrementally.
pub(super) struct Decompressor {
    decoder: Decoder<'static>,
    buffer: Box<[u8]>,
    /// Whether the decoder may hold more than fitted into the buffer.
    was_full: bool,
    ended: bool,
}

impl Decompressor {
    pub(super) fn new() -> io::Result<Decompressor> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Decompressor { decoder, buffer: vec![0; BUFFER_BYTES].into(), was_full: false, ended: false })
    }

    /// Decompresses the beginning of `data`, and removes it; `None`: there is no more for now.
    ///
    /// # Errors
    /// If it is not a zstd frame, needs too much memory, or continues after its end.
    pub(super) fn next(&mut self, data: &mut &[u8]) -> io::Result<Option<&[u8]>> {
        if data.is_empty() && (self.ended || !self.was_full) {
            return Ok(None);
        }
        if self.ended {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "data follows the end of the frame"));
        }
        let (mut input, mut output) = (InBuffer::around(data), OutBuffer::around(&mut self.buffer[..]));
        let hint = self.decoder.run(&mut input, &mut output).map_err(|_| malformed())?;
        let (used, decompressed) = (input.pos(), output.pos());
        *data = &data[used..];
        self.ended = hint == 0;
        self.was_full = decompressed == self.buffer.len();
        Ok(Some(&self.buffer[..decompressed]))
    }

    /// Whether the frame is complete.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Returns the error for data that zstd cannot decompress. The zstd that farpool is built with has no error texts.
fn malformed() -> io::Error {
    let words = "it is not a zstd frame, is damaged, or needs a window of more than 1 MiB";
    io::Error::new(io::ErrorKind::InvalidData, words)
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::scratch::{Scratch, noise};
    use super::*;

    fn decompressed(data: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
        let (mut decompressor, mut whole) = (Decompressor::new()?, Vec::new());
        for mut part in data.chunks(at_once) {
            while let Some(part) = decompressor.next(&mut part)? {
                whole.extend_from_slice(part);
            }
        }
        assert!(decompressor.has_ended(), "{} bytes of {} are no frame", whole.len(), data.len());
        Ok(whole)
    }

    fn file(scratch: &Scratch, bytes: &[u8]) -> File {
        let path = scratch.path().join("file");
        fs::write(&path, bytes).expect("written");
        File::open(path).expect("the file exists")
    }

    #[test]
    fn compression_round_trips() {
        let repetitive: Vec<u8> = (0..3_000_000_u32).flat_map(|at| (at / 100).to_le_bytes()).collect();
        for bytes in [vec![], vec![7], noise(3 * BUFFER_BYTES), repetitive] {
            let scratch = Scratch::new();
            let mut data = Vec::new();
            let size = bytes.len() as u64;
            compressed(file(&scratch, &bytes), size).and_then(|mut from| from.read_to_end(&mut data)).expect("read");
            assert!(data.len() as u64 <= most_compressed(size));
            for at_once in [1000, BUFFER_BYTES, data.len()] {
                assert!(decompressed(&data, at_once).expect("the data is a frame") == bytes);
            }
            let contents = contents_of(&file(&scratch, &data)).expect("the data is a frame");
            assert_eq!(contents, (blake3::hash(&bytes).into(), size));
        }
    }

    #[test]
    fn data_other_than_one_frame_is_refused() {
        let frame = zstd::encode_all(&b"a program"[..], 1).expect("compressed");
        let too_far_back = {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("made");
            encoder.window_log(WINDOW_LOG + 1).expect("possible");
            io::copy(&mut &noise(100)[..], &mut encoder).expect("compressed");
            encoder.finish().expect("compressed")
        };
        for (data, words) in [
            (b"no frame at all".to_vec(), "not a zstd frame"),
            ([&frame[..], b"x"].concat(), "follows the end"),
            ([&frame[..], &frame].concat(), "follows the end"),
            (too_far_back, "a window of more than 1 MiB"),
        ] {
            let error = decompressed(&data, 7).expect_err("the data is refused");
            assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
            assert!(contents_of(&file(&Scratch::new(), &data)).is_err());
        }
        let cut = contents_of(&file(&Scratch::new(), &frame[..frame.len() - 1])).expect_err("the frame is cut off");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_executable_that_is_too_short_cannot_be_compressed() {
        let file = file(&Scratch::new(), b"short");
        assert!(compressed(file, 10).and_then(|mut from| from.read_to_end(&mut Vec::new())).is_err());
    }
}
