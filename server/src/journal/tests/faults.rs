//! A disk that is full, slow or broken: readers go on, and say that nothing is durable.

use std::io;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::journal::disk::{Disk, Segment};

/// What a disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    Refuses,
    WritesHalf,
    DoesNotSync,
    Blocks,
}

/// A real directory whose disk has faults when a test says so.
struct Faulty {
    directory: Directory,
    switch: Arc<Switch>,
}

struct FaultySegment {
    segment: Arc<dyn Segment>,
    switch: Arc<Switch>,
}

#[derive(Default)]
struct Switch {
    fault: Mutex<Fault>,
    changed: Condvar,
}

impl Switch {
    fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
        self.changed.notify_all();
    }

    /// Waits while the disk blocks.
    fn fault(&self) -> Fault {
        let mut fault = self.fault.lock();
        while *fault == Fault::Blocks {
            self.changed.wait(&mut fault);
        }
        *fault
    }
}

impl Disk for Faulty {
    fn create(&self, segment: u64) -> io::Result<Arc<dyn Segment>> {
        if self.switch.fault() == Fault::Refuses {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let (segment, switch) = (self.directory.create(segment)?, Arc::clone(&self.switch));
        Ok(Arc::new(FaultySegment { segment, switch }))
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        self.directory.remove(segment)
    }
}

impl Segment for FaultySegment {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let fault = self.switch.fault();
        if fault == Fault::WritesHalf {
            self.segment.append(&bytes[..bytes.len() / 2])?;
        }
        if matches!(fault, Fault::Refuses | Fault::WritesHalf) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.segment.append(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.switch.fault() == Fault::DoesNotSync {
            return Err(io::Error::other("the cable fell out"));
        }
        self.segment.sync()
    }
}

fn faulty(directory: &Path) -> (Journal, Arc<Switch>) {
    let scan = Scan::read(directory).unwrap();
    let (switch, directory) = (Arc::<Switch>::default(), Directory::open(directory).unwrap());
    let disk = Faulty { directory, switch: Arc::clone(&switch) };
    (Journal::start(Box::new(disk), ROOM, scan).unwrap().0, switch)
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// Streams that begin before, during and after a fault all go on, and all are found again.
async fn survives(fault: Fault) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, switch) = faulty(directory.path());
    let before = stream(&journal, "before");
    before.append(0, &delta(0));
    seen(&before, 1).await;
    assert!(before.is_durable() && journal.lost().is_none());

    switch.set(fault);
    before.append(0, &delta(1));
    before.append(1, &finished());
    if fault == Fault::Blocks {
        assert_eq!(before.read().ready().0.len(), 1, "nothing is shown before it is written");
    }
    until(|| {
        // As the sweep of streams does every second.
        journal.judge(Instant::now() + Duration::from_secs(5));
        journal.lost().is_some()
    })
    .await;
    before.append(0, &delta(2));
    assert_eq!(seen(&before, 4).await.len(), 4, "readers go on");
    let during = stream(&journal, "during");
    during.append(0, &delta(5));
    assert_eq!(seen(&during, 1).await.len(), 1);
    let over = stream(&journal, "over");
    end(&over);
    seen(&over, 2).await;
    assert!(!before.is_durable() && !during.is_durable());
    assert_eq!(journal.usage().losses, 1);

    switch.set(Fault::None);
    until(|| journal.lost().is_none()).await;
    assert!(before.is_durable() && during.is_durable() && over.is_durable());
    before.append(0, &delta(3));
    during.append(0, &delta(6));
    let expected = [seen(&before, 5).await, seen(&during, 2).await, seen(&over, 2).await];
    journal.close();
    let (journal, restored) = open(directory.path());
    assert_eq!((ids(&restored), journal.usage().damaged), (vec!["before", "during", "over"], 0));
    for (one, expected) in restored.iter().zip(expected) {
        assert_eq!(one.buffer.read().ready().0, expected);
    }
    assert_eq!(restored[2].buffer.outcome(), Outcome::Completed);
}

#[tokio::test]
async fn a_full_disk_that_writes_half_a_record() {
    survives(Fault::WritesHalf).await;
}

#[tokio::test]
async fn a_disk_that_became_read_only() {
    survives(Fault::Refuses).await;
}

#[tokio::test]
async fn a_disk_that_does_not_answer() {
    survives(Fault::Blocks).await;
}

#[tokio::test]
async fn a_disk_that_loses_what_it_took() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, switch) = faulty(directory.path());
    let buffer = stream(&journal, "a");
    switch.set(Fault::DoesNotSync);
    end(&buffer);
    until(|| journal.lost().is_some()).await;
    assert_eq!(seen(&buffer, 2).await.len(), 2);
    switch.set(Fault::None);
    until(|| journal.lost().is_none()).await;
    journal.close();
    let (_journal, restored) = open(directory.path());
    assert_eq!((ids(&restored), restored[0].buffer.outcome()), (vec!["a"], Outcome::Completed));
    assert_eq!(usage(directory.path()).unwrap().len(), 1);
}
