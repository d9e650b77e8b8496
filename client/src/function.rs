//! How a function reaches a worker.
//!
//! A worker runs the very same executable as the client, so every function that a client can name is there too: what
//! travels is where it lies. For each combination of function, arguments and result that a program uses, the
//! compiler makes one [`Descriptor`]; its distance from a fixed [`ANCHOR`] is the same in every process of the
//! executable, wherever the system has loaded it. A hash of the type's name travels along and is compared
//! before anything is called.

#![expect(
    unsafe_code,
    reason = "the one place where a function is conjured up from where it lies; argued at each block"
)]

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Args;
use crate::worker::task::{self, TaskIo};

/// What every function that goes to workers is: a value that consists of nothing but its type.
///
/// Plain functions and closures without captures are; so is, as far as the traits can tell, a closure that captures
/// something that is Copy, which is refused when its call is compiled.
///
/// ```
/// # fn main() -> Result<(), farpool::Error> {
/// # farpool::init();
/// let pool = farpool::Pool::new(2)?;
/// // Captures nothing.
/// assert_eq!(pool.map(|n: u64| n + 1, [1])?, [2]);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "this closure captures data and cannot be sent to farpool's workers: pass the data in the items, or once to \
               every worker with `Pool::builder().initializer(f, args)`",
    label = "captures something",
    note = "workers are other processes: they know the program's functions, not what a closure has captured"
)]
pub trait Captureless: Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + Sync + 'static> Captureless for F {}

/// A function that workers can run: a plain function, or a closure that captures nothing, of up to eight arguments,
/// which `A` holds as a tuple.
///
/// It is implemented for all of them; nothing needs to be registered. A closure that captures something does not
/// compile: pass what it captures in the items, or once a worker with
/// [`Builder::initializer`](crate::Builder::initializer).
///
/// ```
/// # fn main() -> Result<(), farpool::Error> {
/// # farpool::init();
/// let pool = farpool::Pool::new(2)?;
/// assert_eq!(pool.apply(u64::pow, (2, 10))?, 1024);
/// assert_eq!(pool.apply(|text: String, times: usize| text.repeat(times), ("ab".to_owned(), 2))?, "abab");
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be run in farpool's workers with the arguments `{A}`",
    label = "not a plain function or a closure without captures that takes these arguments",
    note = "workers are other processes: they know the program's functions, not what a closure has captured",
    note = "pass captured data in the items, or once to every worker with `Pool::builder().initializer(f, args)`",
    note = "arguments are a tuple: `pool.apply(f, (1, 2))`, `pool.starmap(f, [(1, 2), (3, 4)])`"
)]
pub trait Function<A: Args>: Captureless {
    /// What the function returns.
    type Output;

    /// Calls the function.
    fn call(self, args: A) -> Self::Output;
}

macro_rules! implement_function {
    ($($argument:ident $field:ident)*) => {
        #[diagnostic::do_not_recommend]
        impl<F, R, $($argument),*> Function<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Captureless,
            ($($argument,)*): Args,
        {
            type Output = R;

            fn call(self, args: ($($argument,)*)) -> R {
                let ($($field,)*) = args;
                self($($field),*)
            }
        }
    };
}

implement_function!();
implement_function!(A1 a1);
implement_function!(A1 a1 A2 a2);
implement_function!(A1 a1 A2 a2 A3 a3);
implement_function!(A1 a1 A2 a2 A3 a3 A4 a4);
implement_function!(A1 a1 A2 a2 A3 a3 A4 a4 A5 a5);
implement_function!(A1 a1 A2 a2 A3 a3 A4 a4 A5 a5 A6 a6);
implement_function!(A1 a1 A2 a2 A3 a3 A4 a4 A5 a5 A6 a6 A7 a7);
implement_function!(A1 a1 A2 a2 A3 a3 A4 a4 A5 a5 A6 a6 A7 a7 A8 a8);

/// What a worker calls to run items of one function: see [`task::run`].
pub(crate) type Entry = fn(&mut dyn TaskIo);

/// What the compiler lays down for each function, argument and result type that a program uses.
#[repr(C)]
struct Descriptor {
    magic: u64,
    name: fn() -> &'static str,
    entry: Entry,
}

const MAGIC: u64 = u64::from_le_bytes(*b"farpool\x01");
const BLOB_BYTES: usize = 16;

/// What the places of descriptors are counted from.
static ANCHOR: Descriptor = Descriptor { magic: MAGIC, name: anchor_name, entry: anchor_entry };

fn anchor_name() -> &'static str {
    "anchor"
}

fn anchor_entry(_: &mut dyn TaskIo) {}

struct Of<F, A, R>(std::marker::PhantomData<fn(F, A) -> R>);

impl<F, A, R> Of<F, A, R>
where
    F: Function<A, Output = R>,
    A: Args,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    const WITHOUT_CAPTURES: () = assert!(
        size_of::<F>() == 0,
        "farpool: this closure captures data, or is a function pointer, and cannot be sent to workers. \
         Pass plain functions or closures without captures; give captured data in the items, or once to every \
         worker with `Pool::builder().initializer(f, args)`."
    );

    const DESCRIPTOR: Descriptor =
        Descriptor { magic: MAGIC, name: std::any::type_name::<(F, A, R)>, entry: enter::<F, A, R> };
}

/// What a worker needs to find the function `F` again.
pub(crate) fn describe<F, A, R>() -> Bytes
where
    F: Function<A, Output = R>,
    A: Args,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    const { Of::<F, A, R>::WITHOUT_CAPTURES };
    let descriptor: &'static Descriptor = &Of::<F, A, R>::DESCRIPTOR;
    let place = std::ptr::from_ref(descriptor).addr().wrapping_sub(std::ptr::from_ref(&ANCHOR).addr()) as u64;
    let mut blob = [0; BLOB_BYTES];
    blob[..8].copy_from_slice(&place.to_le_bytes());
    blob[8..].copy_from_slice(&hash((descriptor.name)()).to_le_bytes());
    Bytes::copy_from_slice(&blob)
}

/// Finds the function that `blob` describes; an error if it is not one of this program's.
pub(crate) fn resolve(blob: &[u8]) -> Result<Entry, &'static str> {
    let blob: [u8; BLOB_BYTES] = blob.try_into().map_err(|_| "the description of the function has the wrong size")?;
    let [place, expected] =
        [&blob[..8], &blob[8..]].map(|half| u64::from_le_bytes(half.try_into().expect("half of sixteen")));
    let place = usize::try_from(place).map_err(|_| "the function lies outside this program")?;
    let address = std::ptr::from_ref(&ANCHOR).addr().wrapping_add(place);
    if !address.is_multiple_of(align_of::<Descriptor>()) {
        return Err("the function lies at no valid place of this program");
    }
    // SAFETY: a blob is made by `describe` in a process that runs the same executable (that is what makes a
    // program a program: the agent starts workers from the file with the client's digest, in local mode from
    // /proc/self/exe), so `place` is the distance between two statics of this executable, which is the same in
    // all its processes: the address is that of a `Descriptor`, alive for ever. Magic and hash below are for
    // builds in which that was circumvented.
    let descriptor = unsafe { &*std::ptr::from_ref(&ANCHOR).with_addr(address) };
    if descriptor.magic != MAGIC || hash((descriptor.name)()) != expected {
        return Err(
            "the worker runs another build of the program than the client: start both from the same executable",
        );
    }
    Ok(descriptor.entry)
}

fn enter<F, A, R>(io: &mut dyn TaskIo)
where
    F: Function<A, Output = R>,
    A: Args,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    const { Of::<F, A, R>::WITHOUT_CAPTURES };
    // SAFETY: `F` has no bytes (asserted above at compile time), so any aligned pointer is good for reading one. That a
    // value of it may exist here: the client holds one, `F` is Copy (so making another is always allowed, and none
    // is ever dropped), Send and Sync, and this process is another instance of the same program.
    let function = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    task::run(io, |args: A| function.call(args));
}

/// FNV-1a: the names are our own compiler's, so nobody aims for collisions.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
