//! The arguments of a call: tuples of up to eight values.

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};

/// Values that can be sent to a worker and back: every owned serde type.
///
/// You need only derive serde's traits: all such types implement it. A value arrives exactly as after a serde round trip through a
/// self-describing format (farpool's tests compare with `serde_json`): a skipped field gets its default, and attributes such as
/// `flatten`, `untagged` and `skip_serializing_if` mean what they mean in JSON. Values that JSON cannot tell apart stay distinct:
/// `Some(())`, `Some(None)` and `None`, NaN, maps with any keys. A value that cannot be sent fails with
/// [`ErrorKind::Codec`](crate::ErrorKind::Codec), which names the type; it never arrives as a different value.
///
/// A compact format is used for types whose `Deserialize` reads exactly what their `Serialize` writes, such as derived ones
/// without such attributes. To check this, the sender also decodes the first values of a type. Both traits see a human-readable
/// format, as in JSON. A value may be nested 4,096 levels deep.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Job {
///     seed: u64,
///     name: String,
/// }
///
/// fn check<T: farpool::Data>() {}
/// check::<Job>();
/// check::<Vec<f64>>();
/// ```
pub trait Data: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Data for T {}

/// The arguments of one call: `()` or a tuple of one to eight [`Data`] values.
///
/// ```
/// fn check<A: farpool::Args>(_: A) {}
/// check(());
/// check((1,));
/// check((2_u8, "three".to_owned(), vec![4.0]));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of arguments for farpool",
    note = "arguments are a tuple of up to eight owned serde values; one argument alone is written `(value,)`"
)]
pub trait Args: sealed::Sealed + Sized + Send + 'static {
    /// Appends the encoded arguments; on an error `out` is unchanged.
    #[doc(hidden)]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes arguments that take up all of `bytes`.
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;

    /// Whether encoding runs no code of the user's.
    #[doc(hidden)]
    fn are_plain() -> bool;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {$(
        impl<$($name: Data),*> sealed::Sealed for ($($name,)*) {}

        impl<$($name: Data),*> Args for ($($name,)*) {
            #[inline]
            #[expect(non_snake_case, reason = "a variable is named as its type")]
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                let ($($name,)*) = self;
                let start = out.len();
                let encoded = (|| {
                    $(codec::encode($name, &mut *out)?;)*
                    Ok(())
                })();
                if encoded.is_err() {
                    out.truncate(start);
                }
                encoded
            }

            #[inline]
            #[expect(non_snake_case, reason = "a variable is named as its type")]
            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                let rest = bytes;
                $(let ($name, rest) = codec::decode_prefix(rest)?;)*
                if rest.is_empty() { Ok(($($name,)*)) } else { Err(CodecError::trailing::<Self>(rest.len())) }
            }

            fn are_plain() -> bool {
                true $(&& codec::is_plain::<$name>())*
            }
        }
    )*};
}

impl sealed::Sealed for () {}

impl Args for () {
    fn encode(&self, _out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.is_empty() { Ok(()) } else { Err(CodecError::trailing::<Self>(bytes.len())) }
    }

    fn are_plain() -> bool {
        true
    }
}

tuples! {
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<A: Args + PartialEq + Debug>(args: A) {
        let mut bytes = vec![9];
        args.encode(&mut bytes).unwrap();
        assert_eq!(A::decode(&bytes[1..]).unwrap(), args);
        bytes.push(0);
        assert!(A::decode(&bytes[1..]).unwrap_err().0.contains("left over"));
        bytes.truncate(bytes.len() - 2);
        if !bytes.is_empty() {
            A::decode(&bytes[1..]).unwrap_err();
        }
    }

    #[test]
    fn tuples_of_every_length_round_trip() {
        check(());
        check((1_u64,));
        check((vec![1_u8, 2], "two".to_owned()));
        check(("one".to_owned(), vec![0.5], 3_u8, 'd', true, Some(6), vec!["7".to_owned()], 8_i128));
    }

    #[test]
    fn a_failed_encoding_leaves_the_buffer_unchanged() {
        #[derive(serde::Deserialize)]
        struct Never;
        impl Serialize for Never {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        let mut bytes = vec![1];
        (5_u64, Never).encode(&mut bytes).unwrap_err();
        assert_eq!(bytes, [1]);
    }
}
