//! Answers that are the same for all callers: the loop makes one for all who wait, with limited frequency, and encodes
//! it once. Hundreds of callers cost no more than one.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::sync::oneshot;
use tonic::Status;

/// A message as gRPC frames it.
pub(super) type Encoded = Bytes;
/// The channel of a caller's answer.
pub(super) type Asker = oneshot::Sender<Result<Encoded, Status>>;

/// How long a reader may take. After that the rest of the answer is dropped, even if the reader's connection is still
/// reading.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(10);

/// What gRPC writes before a message.
const HEADER: usize = 5;

pub(super) fn encode(message: &impl Message) -> Encoded {
    let length = message.encoded_len();
    let mut encoded = BytesMut::with_capacity(HEADER + length);
    encoded.put_u8(0);
    // Longer answers are truncated where they are made.
    encoded.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut encoded);
    encoded.freeze()
}

/// Decodes the message of an answer.
pub(super) fn decode<M: Message + Default>(mut encoded: Encoded) -> Result<M, Status> {
    let message = encoded.split_off(HEADER.min(encoded.len()));
    M::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// Callers that wait for an answer. Its frequency is limited, and one answer serves all of them.
#[derive(Default)]
pub(super) struct Waiting {
    askers: Vec<Asker>,
    /// When the next answer may be made.
    next_at: u64,
}

/// The next answer waits this many times as long as making the last one took.
const PAUSE: u64 = 20;

impl Waiting {
    pub(super) fn add(&mut self, asker: Asker) {
        self.askers.push(asker);
    }

    /// Returns when to make the next answer, if a caller waits for it.
    pub(super) fn next_check(&self) -> Option<u64> {
        (!self.askers.is_empty()).then_some(self.next_at)
    }

    /// Returns whether no caller waits, and a new one would not have to.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.askers.is_empty() && self.next_at <= now
    }

    /// Returns whether to make an answer now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.next_check().is_some_and(|at| at <= now)
    }

    /// Sends the answer to all who wait. `took`: how long it took to make, in ns. `kept`: the most bytes that slow
    /// readers may keep of recent answers.
    pub(super) fn answer(&mut self, answer: &Result<Encoded, Status>, took: u64, now: u64, kept: u64) {
        let bytes = answer.as_ref().map_or(0, |encoded| encoded.len() as u64);
        let within = u64::try_from(READ_WITHIN.as_nanos()).unwrap_or(u64::MAX);
        let for_memory = u128::from(within) * u128::from(bytes) / u128::from(kept.max(1));
        let pause = took.saturating_mul(PAUSE).max(u64::try_from(for_memory).unwrap_or(u64::MAX).min(within));
        self.next_at = now.saturating_add(pause);
        for asker in self.askers.drain(..) {
            // The caller may have left.
            let _ = asker.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_serves_all_and_the_next_one_waits() {
        let mut waiting = Waiting::default();
        assert!(!waiting.is_due(5));
        let mut readers = Vec::new();
        for _ in 0..100 {
            let (asker, reader) = oneshot::channel();
            waiting.add(asker);
            readers.push(reader);
        }
        assert!(waiting.is_due(5));
        waiting.answer(&Ok(Bytes::from_static(b"all")), 1000, 5, 1 << 30);
        assert!(readers.iter_mut().all(|reader| reader.try_recv().is_ok_and(|answer| answer.is_ok())));
        waiting.add(oneshot::channel().0);
        assert_eq!((waiting.is_due(20_004), waiting.is_due(20_005)), (false, true));
        // While readers may take their time, no more is made than may be kept.
        waiting.answer(&Ok(Bytes::from_static(&[0; 1000])), 1, 20_005, 4000);
        waiting.add(oneshot::channel().0);
        assert_eq!(waiting.next_check(), Some(20_005 + 2_500_000_000));
    }

    #[test]
    fn an_encoded_answer_is_a_frame() {
        let status = farpool_proto::v1::StatusReply { uptime_ns: 7, ..Default::default() };
        let encoded = encode(&status);
        assert_eq!(encoded[..5], [0, 0, 0, 0, 2]);
        assert_eq!(decode::<farpool_proto::v1::StatusReply>(encoded).expect("the answer is incomplete"), status);
    }
}
