//! How a function reaches a worker.
//!
//! A worker runs the same executable as the client, so it has every function that the client can name: only the function's
//! location is sent. For each combination of function, arguments and result that a program uses, the compiler makes one
//! [`Descriptor`]. Its offset in its [`object`], the program or a shared object, is the same in every process, wherever the
//! system has loaded the object. A hash of the type's name is sent too, and compared before the function is called.

#![expect(unsafe_code, reason = "the one place where a function is made from its address; each block says why")]

mod object;

use std::borrow::Cow;
use std::cell::Cell;

use bytes::Bytes;
use farpool_worker::Items;

use crate::args::{Args, Data};
use crate::codec::ReadBy;
use crate::task;
pub(crate) use object::was_started_by_loader;

/// A function without data: its type alone identifies it. Every function sent to workers is one.
///
/// Plain functions and closures without captures implement it. So does a closure that captures something `Copy`, but a call
/// with it does not compile.
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

/// A function that workers can run: a plain function, or a closure that captures nothing, with up to eight arguments;
/// `A` is the tuple of them.
///
/// All of these implement it; nothing needs to be registered. A closure that captures something does not
/// compile: pass that data in the items, or once per worker with
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

/// The code that a worker calls to run items of one function: see [`task::run`].
pub(crate) type Entry = fn(&mut dyn Items);

/// The record that the compiler makes for each combination of function, arguments and result that a program uses.
#[repr(C)]
struct Descriptor {
    magic: u64,
    /// The copy of farpool that it was compiled with: a shared object may have its own copy.
    farpool: &'static Anchor,
    name: fn() -> &'static str,
    entry: Entry,
}

const MAGIC: u64 = u64::from_le_bytes(*b"farpool\x02");
/// Bytes for the object, the offset and the hash of the name. The file name of the object follows, unless that is the program.
const BLOB_BYTES: usize = 24;

/// Its address identifies this copy of farpool.
struct Anchor(#[expect(dead_code, reason = "so that it has an address of its own")] u64);

static ANCHOR: Anchor = Anchor(MAGIC);

struct Instance<F, A, R>(std::marker::PhantomData<fn(F, A) -> R>);

impl<F, A, R> Instance<F, A, R>
where
    F: Function<A, Output = R>,
    A: Args,
    R: Data,
{
    const WITHOUT_CAPTURES: () = assert!(
        size_of::<F>() == 0,
        "farpool: this closure captures data, or is a function pointer, and cannot be sent to workers. \
         Pass plain functions or closures without captures; give captured data in the items, or once to every \
         worker with `Pool::builder().initializer(f, args)`."
    );

    const DESCRIPTOR: Descriptor =
        Descriptor { magic: MAGIC, farpool: &ANCHOR, name: std::any::type_name::<(F, A, R)>, entry: enter::<F, A, R> };

    /// The descriptor for results that other builds of the program may read.
    const DETACHED: Descriptor = Descriptor { entry: enter_detached::<F, A, R>, ..Self::DESCRIPTOR };
}

/// Returns what a worker needs to find the function `F`.
pub(crate) fn describe<F, A, R>() -> Bytes
where
    F: Function<A, Output = R>,
    A: Args,
    R: Data,
{
    const { Instance::<F, A, R>::WITHOUT_CAPTURES };
    blob(&Instance::<F, A, R>::DESCRIPTOR)
}

/// Returns what a worker needs to find the function `F`, for results that other builds of the program may read.
pub(crate) fn describe_detached<F, A, R>() -> Bytes
where
    F: Function<A, Output = R>,
    A: Args,
    R: Data,
{
    const { Instance::<F, A, R>::WITHOUT_CAPTURES };
    blob(&Instance::<F, A, R>::DETACHED)
}

fn blob(descriptor: &'static Descriptor) -> Bytes {
    thread_local! {
        /// The description that this thread made last, of a function of the program: it may call the same one repeatedly.
        static LAST: Cell<Option<(&'static Descriptor, Bytes)>> = const { Cell::new(None) };
    }
    let location = object::location(std::ptr::from_ref(descriptor).addr());
    if !location.name.is_empty() {
        // Another object may be loaded at this address later.
        return [&blob_of(descriptor, &location)[..], &location.name].concat().into();
    }
    let last = LAST.try_with(Cell::take).ok().flatten().filter(|(last, _)| std::ptr::eq(*last, descriptor));
    let blob = last.map_or_else(|| Bytes::copy_from_slice(&blob_of(descriptor, &location)), |(_, blob)| blob);
    // A thread that is ending keeps no description.
    let _ = LAST.try_with(|last| last.set(Some((descriptor, blob.clone()))));
    blob
}

fn blob_of(descriptor: &Descriptor, location: &object::Location) -> [u8; BLOB_BYTES] {
    let name = hash((descriptor.name)().as_bytes());
    let mut blob = [0; BLOB_BYTES];
    for (part, number) in blob.chunks_exact_mut(8).zip([location.object, location.offset, name]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    blob
}

/// Finds the function that `blob` describes. Fails if this program has no such function.
pub(crate) fn resolve(blob: &[u8]) -> Result<Entry, Cow<'static, str>> {
    const OTHER_BUILD: Cow<'_, str> = Cow::Borrowed(
        "the worker runs a different build of the program than the client: start both from the same executable",
    );
    let (blob, file) = blob.split_at_checked(BLOB_BYTES).ok_or("the description of the function is too short")?;
    let [object, offset, expected] =
        [0, 8, 16].map(|at| u64::from_le_bytes(blob[at..at + 8].try_into().expect("not 8 bytes")));
    let address = match object::address(object, offset, size_of::<Descriptor>()) {
        None => return Err(not_loaded(file)),
        Some(address) => address.ok_or(OTHER_BUILD)?,
    };
    let descriptor: *const Descriptor = std::ptr::with_exposed_provenance(address);
    if !descriptor.is_aligned() {
        return Err(OTHER_BUILD);
    }
    // SAFETY: this many bytes are loaded and readable there, and any bytes are valid for a number.
    if unsafe { (&raw const (*descriptor).magic).read() } != MAGIC {
        return Err(OTHER_BUILD);
    }
    // SAFETY: as above; only the address is compared, and it is not dereferenced.
    let farpool = unsafe { (&raw const (*descriptor).farpool).cast::<*const Anchor>().read() };
    if !std::ptr::eq(farpool, &ANCHOR) {
        return Err(Cow::Borrowed(
            "the function was compiled with a different copy of farpool than the one whose init() the program called: let the \
             program and its shared objects share one farpool (a dylib), or call it from functions of the program itself",
        ));
    }
    // SAFETY: `describe` makes a blob in a process that runs the same executable: the agent starts workers from the file with the
    // client's digest, in local mode from /proc/self/exe. The object is the program or an identical build of a shared object. So
    // this is the address of a `Descriptor`, which the magic and its copy of farpool confirm. It lives as long as its object is
    // loaded, and objects that contain Rust code are not unloaded while their functions run.
    let descriptor = unsafe { &*descriptor };
    if hash((descriptor.name)().as_bytes()) != expected {
        return Err(OTHER_BUILD);
    }
    Ok(descriptor.entry)
}

fn not_loaded(file: &[u8]) -> Cow<'static, str> {
    let file = String::from_utf8_lossy(file);
    let what = if file.is_empty() { "a shared object".into() } else { format!("the shared object {file}") };
    let advice = "link the program with it, or load it in the pool's initializer";
    format!("the function is in {what}, but this worker has not loaded that, or has loaded another build: {advice}")
        .into()
}

fn enter<F, A, R>(items: &mut dyn Items)
where
    F: Function<A, Output = R>,
    A: Args,
    R: Data,
{
    run::<F, A, R>(items, ReadBy::ThisBuild);
}

fn enter_detached<F, A, R>(items: &mut dyn Items)
where
    F: Function<A, Output = R>,
    A: Args,
    R: Data,
{
    run::<F, A, R>(items, ReadBy::AnyBuild);
}

#[inline(always)]
fn run<F, A, R>(items: &mut dyn Items, read_by: ReadBy)
where
    F: Function<A, Output = R>,
    A: Args,
    R: Data,
{
    const { Instance::<F, A, R>::WITHOUT_CAPTURES };
    // SAFETY: `F` has no bytes (asserted above at compile time), so any aligned pointer is valid for reading one. A value of it
    // may exist here: the client holds one, `F` is Copy (so another may always be made, and none is ever dropped), Send and Sync,
    // and this process is another instance of the same program.
    let function = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    task::run(items, read_by, |args: A| function.call(args));
}

/// FNV-1a: the names come from our own compiler, so nobody can provoke collisions.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
