//! Reading while records are moved.

use std::future::IntoFuture;
use std::pin::pin;

use super::model::{Act, World};
use crate::log::Journal;
use crate::{Items, JobStore, Read, ReadError, Reading};

/// Segments of half a kibibyte.
const SIZE: u64 = 64 << 10;

/// A job with five items in a segment that is not the last one.
fn world() -> (World, u64) {
    let mut world = World::new(SIZE);
    let long = 60;
    for act in [Act::Open { long }, Act::Items { job: 0, count: 5, long }, Act::EndItems { job: 0 }, Act::Sync] {
        world.act(&act);
    }
    for act in [Act::Open { long: 600 }, Act::Open { long: 600 }, Act::Sync] {
        world.act(&act);
    }
    let job = world.journal.find("local", "job 1").expect("no such job").number;
    (world, job)
}

/// Empties the first segment, and removes it.
fn empty(world: &mut World) {
    world.act(&Act::Empty { segment: 0 });
    for _ in 0..20 {
        world.act(&Act::Sync);
    }
    assert!(!world.disk.files().contains_key(&1), "the segment is gone");
}

/// Waits for a read, while the journal's owner handles progress.
async fn read<T>(journal: &mut Journal, reading: impl IntoFuture<Output = T>) -> T {
    let (mut reading, wakeup) = (pin!(reading.into_future()), journal.wakeup());
    loop {
        tokio::select! {
            read = &mut reading => return read,
            () = wakeup.wait() => drop(journal.progress()),
        }
    }
}

#[tokio::test]
async fn moved_records_are_read_at_their_new_place() {
    let (mut world, job) = world();
    let reading = items_of(&world, job);
    let before = read(&mut world.journal, reading).await;
    let (items, opening) = (items_of(&world, job), world.journal.read_opening(job));
    empty(&mut world);
    let after = read(&mut world.journal, items).await;
    assert!(before.unread.is_none() && after.unread.is_none());
    assert_eq!((before.parts.len(), after.parts), (1, before.parts));
    let opening = read(&mut world.journal, opening).await.expect("cannot read the opening");
    assert_eq!(opening, world.journal.opening_now(job).expect("no such job"));
}

#[tokio::test]
async fn unneeded_records_are_left_out() {
    let (mut world, job) = world();
    let items = items_of(&world, job);
    world.act(&Act::Forget { job: 0 });
    empty(&mut world);
    let Read { parts, unread } = read(&mut world.journal, items).await;
    assert_eq!(parts, []);
    assert!(unread.is_none(), "{unread:?}");
}

#[tokio::test]
async fn reads_of_a_closed_journal_end() {
    let (mut world, job) = world();
    let items = items_of(&world, job);
    empty(&mut world);
    drop(world.journal);
    assert_eq!(items.await.parts, []);
}

#[tokio::test]
async fn missing_records_are_lost() {
    let (mut world, job) = world();
    let reading = world.journal.read_items(job, 5..9, 100);
    let unread = read(&mut world.journal, reading).await.unread.expect("the items do not exist");
    assert_eq!((unread.first, unread.count), (5, 4));
    assert_eq!(unread.error, ReadError::Lost("it is not there".to_owned()));
}

/// Reads all items of a job.
fn items_of(world: &World, job: u64) -> Reading<Read<Items>> {
    world.journal.read_items(job, 0..5, 1 << 20)
}
