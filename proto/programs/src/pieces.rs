//! A program on its way: cut into pieces as the other side takes them.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use farpool_proto::v1::ProgramPiece;
use futures_core::Stream;
use tokio::task::JoinHandle;
use tonic::Status;

use super::Digest;

/// The largest piece.
pub const PIECE_BYTES: usize = 1 << 20;

/// The pieces of a program, as a client sends them: if the file cannot be read, they end early, which the other side
/// notices.
pub struct Pieces {
    state: State,
    digest: Digest,
    size: u64,
    /// Bytes that have been handed out.
    at: u64,
    begun: bool,
}

/// The same as a server sends them: if the file cannot be read, they end in an error.
pub struct PieceReplies {
    pieces: Pieces,
}

enum State {
    Idle(File),
    /// Reading blocks, so another thread does it.
    Reading(JoinHandle<(File, io::Result<Vec<u8>>)>),
    Over,
}

/// The pieces of the program in `file`, which is read on tokio's blocking threads, only as far as pieces are taken.
pub fn pieces(file: File, digest: Digest, size: u64) -> Pieces {
    Pieces { state: State::Idle(file), digest, size, at: 0, begun: false }
}

impl Pieces {
    /// The same, for a server.
    pub fn replies(self) -> PieceReplies {
        PieceReplies { pieces: self }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<ProgramPiece>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(_) if self.begun && self.at == self.size => return Poll::Ready(None),
                State::Idle(file) => {
                    let (at, left) = (self.at, self.size - self.at);
                    let bytes = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
                    let reading = tokio::task::spawn_blocking(move || {
                        let mut piece = vec![0; bytes];
                        let read = file.read_exact_at(&mut piece, at);
                        (file, read.map(|()| piece))
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
                    Poll::Ready(Ok((file, Ok(data)))) => {
                        self.state = State::Idle(file);
                        return Poll::Ready(Some(Ok(self.piece(data.into()))));
                    }
                },
            }
        }
    }

    fn piece(&mut self, data: Bytes) -> ProgramPiece {
        self.at += data.len() as u64;
        if std::mem::replace(&mut self.begun, true) {
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
        let Pieces { digest, size, at, .. } = self;
        f.debug_struct("Pieces").field("digest", digest).field("size", size).field("at", at).finish_non_exhaustive()
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

    use super::super::scratch::Scratch;
    use super::*;

    async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
        poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
    }

    fn program(scratch: &Scratch, bytes: &[u8]) -> (File, Digest) {
        let path = scratch.path().join("program");
        std::fs::write(&path, bytes).expect("written");
        (File::open(path).expect("there"), blake3::hash(bytes).into())
    }

    #[tokio::test]
    async fn pieces_are_the_whole() {
        for size in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let scratch = Scratch::new();
            let bytes: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
            let (file, digest) = program(&scratch, &bytes);
            let mut stream = pieces(file, digest, size as u64);
            let first = next(&mut stream).await.expect("there is always a first one");
            assert_eq!((&first.digest[..], first.size), (&digest.as_bytes()[..], size as u64));
            let mut whole = first.data.to_vec();
            while let Some(piece) = next(&mut stream).await {
                assert!(!piece.data.is_empty() && piece.data.len() <= PIECE_BYTES && piece.digest.is_empty());
                whole.extend_from_slice(&piece.data);
            }
            assert!(whole == bytes);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_ends_them() {
        let scratch = Scratch::new();
        let (file, digest) = program(&scratch, b"short");
        let again = file.try_clone().expect("cloned");
        assert_eq!(next(&mut pieces(file, digest, 10)).await, None);
        let mut replies = pieces(again, digest, 10).replies();
        let error = next(&mut replies).await.expect("an error").expect_err("it is too short");
        assert!(error.message().contains(&digest.to_string()), "{error}");
        assert!(next(&mut replies).await.is_none());
    }
}
