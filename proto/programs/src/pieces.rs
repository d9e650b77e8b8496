//! Cuts a program into pieces as the receiver takes them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use farpool_proto::v1::ProgramPiece;
use futures_core::Stream;
use tokio::task::JoinHandle;
use tonic::Status;

use super::Digest;
use super::compression::compressed;

/// The largest piece.
pub const PIECE_BYTES: usize = 1 << 20;

/// The pieces of a program, as a client sends them. If the file cannot be read, they end early, which the receiver
/// notices.
pub struct Pieces {
    state: State,
    digest: Digest,
    size: u64,
    /// Compressed bytes that have been returned.
    sent: u64,
}

/// The pieces as a server sends them. If the file cannot be read, they end in an error.
pub struct PieceReplies {
    pieces: Pieces,
}

/// The source of compressed bytes.
type Source = Box<dyn Read + Send>;

enum State {
    Idle(Source),
    /// Reading and compressing block, so another thread does it.
    Reading(JoinHandle<(Source, io::Result<Vec<u8>>)>),
    Over,
}

impl Pieces {
    /// Returns the pieces of the executable in `file`. It is read and compressed on tokio's blocking threads, only as
    /// far as pieces are taken.
    ///
    /// # Errors
    /// If there is no memory to compress it.
    pub fn of_executable(file: File, digest: Digest, size: u64) -> io::Result<Pieces> {
        Ok(Pieces::new(Box::new(compressed(file, size)?), digest, size))
    }

    /// Returns the pieces of a program that is already compressed; `size` is that of the executable.
    pub fn of_compressed(file: File, digest: Digest, size: u64) -> Pieces {
        Pieces::new(Box::new(file), digest, size)
    }

    fn new(source: Source, digest: Digest, size: u64) -> Pieces {
        Pieces { state: State::Idle(source), digest, size, sent: 0 }
    }

    /// Converts them for a server.
    pub fn replies(self) -> PieceReplies {
        PieceReplies { pieces: self }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<ProgramPiece>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(mut source) => {
                    let reading = tokio::task::spawn_blocking(move || {
                        let mut piece = Vec::new();
                        let read = source.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
                        (source, read.map(|_| piece))
                    });
                    self.state = State::Reading(reading);
                }
                State::Reading(mut reading) => match Pin::new(&mut reading).poll(context) {
                    Poll::Pending => {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                    Poll::Ready(Ok((_, Err(error)))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(Ok((_, Ok(data)))) if data.is_empty() => return Poll::Ready(None),
                    Poll::Ready(Ok((source, Ok(data)))) => {
                        self.state = State::Idle(source);
                        return Poll::Ready(Some(Ok(self.piece(data.into()))));
                    }
                },
            }
        }
    }

    fn piece(&mut self, data: Bytes) -> ProgramPiece {
        let before = self.sent;
        self.sent += data.len() as u64;
        if before > 0 {
            return ProgramPiece { data, ..ProgramPiece::default() };
        }
        ProgramPiece { digest: self.digest.to_bytes(), size: self.size, data }
    }
}

impl Stream for Pieces {
    type Item = ProgramPiece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ProgramPiece>> {
        self.poll_piece(context).map(|piece| piece.and_then(Result::ok))
    }
}

impl Stream for PieceReplies {
    type Item = Result<ProgramPiece, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<ProgramPiece, Status>>> {
        let digest = self.pieces.digest;
        let failed = |error| Status::internal(format!("reading program {digest}: {error}"));
        self.pieces.poll_piece(context).map(|piece| piece.map(|piece| piece.map_err(failed)))
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pieces { digest, size, sent, .. } = self;
        f.debug_struct("Pieces").field("digest", digest).field("size", size).field("sent", sent).finish_non_exhaustive()
    }
}

impl fmt::Debug for PieceReplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::super::scratch::{Scratch, noise};
    use super::*;

    async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
        poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
    }

    fn file(scratch: &Scratch, bytes: &[u8]) -> File {
        let path = scratch.path().join("program");
        std::fs::write(&path, bytes).expect("written");
        File::open(path).expect("the file exists")
    }

    /// Returns the executable that the pieces contain.
    async fn whole(mut stream: Pieces, digest: Digest, size: usize) -> Vec<u8> {
        let first = next(&mut stream).await.expect("there is always a first piece");
        assert_eq!((&first.digest[..], first.size), (&digest.as_bytes()[..], size as u64));
        let mut whole = first.data.to_vec();
        while let Some(piece) = next(&mut stream).await {
            assert!(!piece.data.is_empty() && piece.data.len() <= PIECE_BYTES && piece.digest.is_empty());
            whole.extend_from_slice(&piece.data);
        }
        whole
    }

    #[tokio::test]
    async fn pieces_are_the_whole() {
        for size in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let (scratch, bytes) = (Scratch::new(), noise(size));
            let digest = blake3::hash(&bytes).into();
            let pieces = Pieces::of_executable(file(&scratch, &bytes), digest, size as u64).expect("there is memory");
            let compressed = whole(pieces, digest, size).await;
            assert!(zstd::decode_all(&compressed[..]).expect("the program is compressed") == bytes);
            let pieces = Pieces::of_compressed(file(&scratch, &compressed), digest, size as u64);
            assert!(whole(pieces, digest, size).await == compressed);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_ends_them() {
        let (scratch, digest) = (Scratch::new(), blake3::hash(b"short").into());
        let pieces = || Pieces::of_executable(file(&scratch, b"short"), digest, 10).expect("there is memory");
        assert_eq!(next(&mut pieces()).await, None);
        let mut replies = pieces().replies();
        let error = next(&mut replies).await.expect("an error").expect_err("the program is too short");
        assert!(error.message().contains(&digest.to_string()), "{error}");
        assert!(next(&mut replies).await.is_none());
    }
}
