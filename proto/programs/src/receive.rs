//! Receives a program.

use std::future::poll_fn;
use std::pin::Pin;

use farpool_proto::v1::ProgramPiece;
use futures_core::Stream;
use tonic::Status;

use super::{Digest, InUse, PIECE_BYTES, ProgramStore, StoreError};

/// Receives a program from a stream of pieces into a store. Before anything is written, `wanted` decides by the first
/// piece's digest and size whether to accept it. The program is decompressed and written on tokio's blocking threads.
///
/// # Errors
/// If the pieces are invalid, or the store refuses them. Then nothing of them is kept. The same holds if the future is
/// dropped.
pub async fn receive(
    mut pieces: impl Stream<Item = Result<ProgramPiece, Status>> + Unpin,
    store: &ProgramStore,
    wanted: impl FnOnce(&Digest, u64) -> Result<(), Status>,
) -> Result<InUse, Status> {
    let Some(first) = next(&mut pieces).await? else {
        return Err(Status::invalid_argument("a program ended before its first piece"));
    };
    let digest = Digest::try_from(&first.digest[..]).map_err(|error| Status::invalid_argument(error.to_string()))?;
    wanted(&digest, first.size)?;
    let (store, size) = (store.clone(), first.size);
    let mut writer = blocking(move || store.writer(digest, size)).await?;
    let mut piece = Some(first);
    while let Some(ProgramPiece { data, .. }) = piece {
        if data.len() > PIECE_BYTES {
            let message = format!("a piece of program {digest} has {} bytes; the limit is {PIECE_BYTES}", data.len());
            return Err(Status::invalid_argument(message));
        }
        writer = blocking(move || writer.write(&data).map(|()| writer)).await?;
        piece = next(&mut pieces).await?;
        if piece.as_ref().is_some_and(|piece| piece.data.is_empty()) {
            return Err(Status::invalid_argument(format!("a piece of program {digest} is empty")));
        }
    }
    blocking(move || writer.finish()).await
}

async fn next(
    pieces: &mut (impl Stream<Item = Result<ProgramPiece, Status>> + Unpin),
) -> Result<Option<ProgramPiece>, Status> {
    poll_fn(|context| Pin::new(&mut *pieces).poll_next(context)).await.transpose()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Status::from),
        Err(error) => Err(Status::internal(format!("writing a program: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs::{self, File};
    use std::task::{Context, Poll};

    use super::super::scratch::{Scratch, noise};
    use super::super::{Form, Pieces};
    use super::*;

    /// Pieces from any sender.
    struct Made(VecDeque<ProgramPiece>);

    impl Stream for Made {
        type Item = Result<ProgramPiece, Status>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn opened(scratch: &Scratch, form: Form) -> ProgramStore {
        ProgramStore::open(&scratch.path().join(format!("{form:?}")), form, 10 << 20).expect("opened")
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("compressed")
    }

    #[tokio::test]
    async fn a_program_arrives_whole_and_can_be_sent_on_unchanged() {
        let scratch = Scratch::new();
        let (coordinator, agent) = (opened(&scratch, Form::Compressed), opened(&scratch, Form::Executable));
        for size in [0, 5, 2 * PIECE_BYTES + 1] {
            let (bytes, path) = (noise(size), scratch.path().join("program"));
            fs::write(&path, &bytes).expect("written");
            let (size, digest) = (size as u64, Digest::from(blake3::hash(&bytes)));
            let wanted = |found: &Digest, announced| {
                assert_eq!((*found, announced), (digest, size));
                Ok(())
            };
            let sent = Pieces::of_executable(File::open(path).expect("the file exists"), digest, size)
                .expect("there is memory");
            let kept = receive(sent.replies(), &coordinator, wanted).await.expect("the program is complete");
            assert_eq!(kept.size(), size);
            let sent = Pieces::of_compressed(kept.open().expect("the program exists"), digest, kept.size());
            let received = receive(sent.replies(), &agent, wanted).await.expect("the program is complete");
            assert!(fs::read(received.path()).expect("the program exists") == bytes);
        }
    }

    #[tokio::test]
    async fn invalid_programs_are_refused_and_leave_nothing() {
        for form in [Form::Executable, Form::Compressed] {
            let scratch = Scratch::new();
            let store = opened(&scratch, form);
            let piece = |data: &[u8]| ProgramPiece { data: data.to_vec().into(), ..ProgramPiece::default() };
            let first = |bytes: &[u8], size: usize, data: &[u8]| {
                let digest = Digest::from(blake3::hash(bytes)).to_bytes();
                ProgramPiece { digest, size: size as u64, ..piece(data) }
            };
            let large = noise(PIECE_BYTES + 1);
            let abc = compressed(b"abc");
            let named = blake3::hash(b"abc").to_hex();
            for (pieces, words) in [
                (vec![], "before its first piece"),
                (vec![piece(&abc)], "not 0 bytes"),
                (vec![first(b"abc", 3, &compressed(b"abd"))], "expected a program with digest"),
                (vec![first(b"abc", 2, &abc)], "longer than the 2 bytes"),
                (vec![first(b"abc", 4, &abc)], "has 3 bytes, not the 4"),
                (vec![first(b"abc", 3, &abc[..5]), piece(&abc[5..abc.len() - 1])], "ended after"),
                (vec![first(b"abc", 3, &abc), piece(&abc)], "cannot be decompressed"),
                (vec![first(b"abc", 3, &abc[..3])], "ended after 0 of 3 bytes"),
                (vec![first(b"abc", 30, b"no program at all")], &*format!("{named} cannot be decompressed")),
                (vec![first(b"abc", 3, &abc[..5]), piece(b"")], "is empty"),
                (vec![first(&large, large.len(), &large)], "the limit is 1048576"),
                (vec![first(b"abc", 11 << 20, &abc)], "does not fit"),
            ] {
                let error =
                    receive(Made(pieces.into()), &store, |_, _| Ok(())).await.expect_err("the program is refused");
                assert!(error.message().contains(words), "{words:?} is not in: {error}");
            }
            let unwanted = |_: &Digest, _| Err(Status::not_found("nobody asked"));
            let error = receive(Made([first(b"abc", 3, &abc)].into()), &store, unwanted).await.expect_err("unwanted");
            assert_eq!(error.message(), "nobody asked");
            assert_eq!(store.directory().read_dir().expect("the directory exists").count(), 0);
        }
    }
}
