//! Extracts the frames of a session from the body of its request.
//!
//! gRPC's own decoder reserves memory for the announced size. It also keeps a buffer as large as the largest frame so
//! far until the stream ends: with thousands of sessions there would be thousands of them. Here a frame that does not
//! arrive at once has memory of its own, which grows with it and is freed with it.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farpool_net::http2::MAX_GRPC_MESSAGE;
use farpool_proto::decode;
use futures_core::Stream;
use http_body::Body;
use prost::Message;
use tonic::{Code, Status};

/// What gRPC writes before a message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// How many bytes may be reserved before any have arrived.
const AHEAD: usize = 64 << 10;
/// After that, this many times the bytes that have arrived may be reserved.
const GROWTH: usize = 4;

pub(super) struct Frames<B, F> {
    body: Pin<Box<B>>,
    /// Bytes that have arrived and were not decoded.
    unread: Bytes,
    /// The beginning of a partial frame, with its header.
    partial: Vec<u8>,
    frame: PhantomData<fn() -> F>,
}

impl<B, F: Message + Default + 'static> Frames<B, F> {
    pub(super) fn new(body: B) -> Self {
        Self { body: Box::pin(body), unread: Bytes::new(), partial: Vec::new(), frame: PhantomData }
    }

    /// Returns the next frame, if all of it has arrived.
    fn take(&mut self) -> Result<Option<F>, Status> {
        if self.partial.is_empty()
            && let Some(length) = length(&self.unread)?
            && self.unread.len() >= length
        {
            let frame = self.unread.split_to(length);
            return decode::copied(&frame[HEADER..]).map(Some).map_err(undecodable);
        }
        if !self.gather(HEADER)? {
            return Ok(None);
        }
        let length = length(&self.partial)?.unwrap_or(HEADER);
        if !self.gather(length)? {
            return Ok(None);
        }
        let frame = Bytes::from(std::mem::take(&mut self.partial));
        decode::owned(frame.slice(HEADER..)).map(Some).map_err(undecodable)
    }

    /// Moves missing bytes to the partial frame; returns whether it has this many bytes then.
    fn gather(&mut self, length: usize) -> Result<bool, Status> {
        let here = self.unread.len().min(length.saturating_sub(self.partial.len()));
        let with_it = self.partial.len() + here;
        if with_it > self.partial.capacity() {
            let room = length.min(with_it * GROWTH + AHEAD);
            let no_memory = |_| Status::resource_exhausted(format!("there is no memory for a frame of {length} bytes"));
            self.partial.try_reserve_exact(room - self.partial.len()).map_err(no_memory)?;
        }
        self.partial.extend_from_slice(&self.unread.split_to(here));
        Ok(self.partial.len() >= length)
    }
}

/// Returns the length of a frame with its header, if that has arrived.
fn length(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some((&[flag, length @ ..], _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    if flag != 0 {
        let message = match flag {
            1 => "a compressed frame, and compression was not agreed on".to_owned(),
            other => format!("an invalid compression flag: {other}"),
        };
        return Err(Status::internal(message));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_GRPC_MESSAGE {
        let message = format!("message length too large: {length} bytes, and the limit is {MAX_GRPC_MESSAGE}");
        return Err(Status::out_of_range(message));
    }
    Ok(Some(HEADER + length))
}

fn undecodable(error: decode::DecodeError) -> Status {
    Status::internal(error.to_string())
}

impl<B, F> Stream for Frames<B, F>
where
    B: Body<Data = Bytes, Error = Status>,
    F: Message + Default + 'static,
{
    type Item = Result<F, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.take().transpose() {
                return Poll::Ready(Some(frame));
            }
            match ready!(this.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.unread = data;
                    }
                }
                // Only a live peer can drop a call.
                Some(Err(status)) if status.code() == Code::Cancelled => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if this.partial.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(Status::internal("unexpected EOF in a frame")))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use farpool_proto::v1::{ClientFrame, Piece};
    use http_body::Frame;

    use super::*;

    /// A body of these parts.
    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }
    }

    fn frame(bytes: usize) -> ClientFrame {
        let piece = Piece { total: 1 << 30, data: vec![7; bytes].into() };
        ClientFrame { piece: Some(piece), ..ClientFrame::default() }
    }

    fn encoded(frame: &ClientFrame) -> Vec<u8> {
        let body = frame.encode_to_vec();
        [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    /// Returns the frames of a body in parts of this many bytes, and its error.
    fn read(bytes: &[u8], part: usize) -> (Vec<ClientFrame>, Option<String>) {
        let parts = Parts(bytes.chunks(part).map(Bytes::copy_from_slice).collect());
        let (mut frames, mut found) = (Frames::new(parts), Vec::new());
        loop {
            match Pin::new(&mut frames).poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => found.push(frame),
                Poll::Ready(Some(Err(status))) => return (found, Some(status.message().to_owned())),
                Poll::Ready(None) => return (found, None),
                Poll::Pending => panic!("the body of parts is pending"),
            }
        }
    }

    #[test]
    fn frames_round_trip() {
        let sent: Vec<_> = [0, 1, 100, 70_000, 3, 1 << 20, 0].map(frame).into();
        let bytes: Vec<u8> = sent.iter().flat_map(encoded).collect();
        for part in [1, 4, 5, 6, 1000, 65_536, bytes.len()] {
            assert!(read(&bytes, part) == (sent.clone(), None), "{part}");
        }
    }

    #[test]
    fn an_invalid_frame_is_refused_after_the_valid_ones() {
        let check = |bytes: &[u8], words: &str| {
            let bytes = [&encoded(&frame(10)), bytes].concat();
            for part in [1, 7, bytes.len()] {
                let (found, error) = read(&bytes, part);
                assert_eq!(found, [frame(10)]);
                assert!(error.as_ref().is_some_and(|error| error.contains(words)), "{words}: {error:?}");
            }
        };
        check(&[0, 0, 0, 0, 9, 1], "EOF");
        check(&[0, 0], "EOF");
        check(&[1, 0, 0, 0, 1, 1], "compress");
        check(&[7, 0, 0, 0, 1, 1], "invalid compression flag");
        check(&[0, 0xff, 0xff, 0xff, 0xff], "message length too large");
        check(&[0, 0, 0, 0, 3, 0x0a, 0x7f, 0], "decode");
    }

    #[test]
    fn announced_sizes_take_no_memory() {
        let mut frames = Frames::<Parts, ClientFrame>::new(Parts(VecDeque::new()));
        frames.unread = Bytes::from_static(&[0, 0, 0x3f, 0xff, 0xff, 1]);
        assert!(frames.take().expect("the message was refused").is_none());
        assert!(frames.partial.capacity() <= 2 * AHEAD, "{}", frames.partial.capacity());
        // It is freed with the frame.
        let mut frames = Frames::<Parts, ClientFrame>::new(Parts(VecDeque::new()));
        let whole = Bytes::from(encoded(&frame(1 << 20)));
        frames.unread = whole.slice(..1000);
        assert!(frames.take().expect("the message was refused").is_none());
        frames.unread = whole.slice(1000..);
        assert!(frames.take().expect("the message is incomplete").is_some());
        assert_eq!(frames.partial.capacity(), 0);
    }
}
