//! Snapshots written, restored, refused, damaged, evicted; and packages told apart.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pinion_models::testing;
use tempfile::TempDir;

use super::format::{DATA_START, IMAGE, MANIFEST};
use super::*;
use crate::files::PackageFiles;
use crate::load::{LoadOptions, LoadedPackage, load};
use crate::progress::silent;
use crate::testing::{write, write_package};

const PACKAGE: &str = "0123abcd";

/// A package, a store, and a snapshot of the package.
struct Fixture {
    package: TempDir,
    home: TempDir,
    options: LoadOptions,
}

impl Fixture {
    fn new(dtype: Option<&str>) -> Self {
        let (package, home) =
            (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        write_package(package.path());
        let options = LoadOptions { dtype: dtype.map(str::to_owned), ..LoadOptions::default() };
        Self { package, home, options }
    }

    fn with_snapshot(dtype: Option<&str>) -> Self {
        let fixture = Self::new(dtype);
        fixture.publish();
        fixture
    }

    fn store(&self) -> Store {
        Store::open(&self.home.path().join("store")).expect("opens")
    }

    fn folder(&self) -> PathBuf {
        self.store().folder(PACKAGE)
    }

    fn publish(&self) -> PathBuf {
        let recorded = self.record();
        let store = self.store();
        let (lock, staging) = (store.lock(PACKAGE).expect("free"), store.stage().expect("made"));
        recorded
            .write(staging.path(), PACKAGE, Canary::default(), &mut |_, _| {})
            .expect("is written");
        store.publish(&staging, &lock, &recorded.target().key()).expect("is published")
    }

    fn record(&self) -> Box<Recorded> {
        let mut options = self.options.clone();
        options.snapshots.record = true;
        match self.load(&options).origin {
            Origin::Cold(Some(recorded)) => recorded,
            other => panic!("a cold load that records: {other:?}"),
        }
    }

    fn load(&self, options: &LoadOptions) -> LoadedPackage {
        let files = PackageFiles::directory(self.package.path()).expect("opens");
        load(&files, options, &silent()).expect("loads")
    }

    fn warm_options(&self) -> LoadOptions {
        let mut options = self.options.clone();
        options.snapshots.restore = Some(self.folder());
        options.snapshots.package = Some(PACKAGE.to_owned());
        options
    }

    fn warm(&self) -> LoadedPackage {
        self.load(&self.warm_options())
    }

    fn refusal(&self) -> String {
        let loaded = self.warm();
        assert!(matches!(loaded.origin, Origin::Cold(_)), "the package itself is loaded");
        loaded.refused.expect("is refused").reason
    }

    fn open(&self) -> std::sync::Arc<Snapshot> {
        match self.warm().origin {
            Origin::Warm(snapshot) => snapshot,
            Origin::Cold(_) => panic!("there is a snapshot: {:?}", self.warm().refused),
        }
    }

    /// The files of the only snapshot, writable.
    fn file(&self, name: &str) -> PathBuf {
        let path = self.store().list().expect("lists").remove(0).path.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("is ours");
        path
    }
}

/// The bits of the logits of a prompt.
fn logits(loaded: &LoadedPackage) -> Vec<Vec<u32>> {
    let logits = testing::logits(&*loaded.model, &[5, 9, 70, 3]).expect("computes");
    logits.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 1], at).expect("writes");
}

#[test]
fn a_warm_start_derives_nothing_reads_no_weights_and_computes_the_same_bits() {
    for dtype in [None, Some("bf16"), Some("q8_0"), Some("q4_k")] {
        let fixture = Fixture::with_snapshot(dtype);
        let cold = fixture.load(&fixture.options);
        // What is not there cannot be read, packed or quantized.
        for file in ["model.safetensors", "tokenizer.json", "config.json"] {
            fs::remove_file(fixture.package.path().join("weights").join(file)).expect("removes");
        }
        let warm = fixture.warm();
        assert!(matches!(warm.origin, Origin::Warm(_)), "{dtype:?}: {:?}", warm.refused);
        assert_eq!(logits(&warm), logits(&cold), "{dtype:?}");
        assert_eq!((&warm.dtype, &warm.eos_token_ids), (&cold.dtype, &cold.eos_token_ids));
        assert_eq!(warm.defaults, cold.defaults);
        assert_eq!(warm.spec, cold.spec);
        let encode =
            |loaded: &LoadedPackage| loaded.tokenizer.encode_chat("abba").expect("encodes");
        assert_eq!(encode(&warm), encode(&cold));
        assert!(warm.template.is_some());
    }
}

#[test]
fn weights_of_a_snapshot_lie_in_the_mapped_file() {
    let fixture = Fixture::with_snapshot(Some("q8_0"));
    let snapshot = fixture.open();
    let bytes = fs::read(snapshot.path().join(IMAGE)).expect("reads");
    for tensor in &snapshot.index().tensors {
        let (_, view) = snapshot.tensor(&tensor.name).expect("is there");
        let view: &[u8] = view.as_ref();
        assert_eq!(view.as_ptr().addr() % 4096, 0, "{}", tensor.name);
        let start = (DATA_START + tensor.start) as usize;
        assert_eq!(view, &bytes[start..start + view.len()], "{}", tensor.name);
    }
}

#[test]
fn a_snapshot_for_something_else_is_refused_by_the_field_that_differs() {
    let fixture = Fixture::with_snapshot(None);
    let own = Target::cpu(None);
    let cases: [(&str, Target); 5] = [
        ("engine", Target { engine: "9.9".to_owned(), ..own.clone() }),
        ("layout", Target { layout: 9, ..own.clone() }),
        ("device", Target { device: "cuda:sm_90".to_owned(), ..own.clone() }),
        ("kernels", Target { kernels: "neon".to_owned(), ..own.clone() }),
        ("dtype", Target { dtype: "q8_0".to_owned(), ..own.clone() }),
    ];
    for (field, target) in cases {
        // Under its own key there is none.
        let error = Snapshot::open(&fixture.folder(), PACKAGE, &target).expect_err("is foreign");
        assert!(matches!(error, SnapshotError::Missing { .. }), "{error}");
        // Put under that key, it says what it was made for.
        let there = fixture.folder().join(target.key());
        fs::rename(fixture.folder().join(own.key()), &there).expect("moves");
        let error = Snapshot::open(&fixture.folder(), PACKAGE, &target).expect_err("is foreign");
        assert!(error.to_string().contains(&format!("foreign: {field} is")), "{error}");
        fs::rename(there, fixture.folder().join(own.key())).expect("moves back");
    }
    let error = Snapshot::open(&fixture.folder(), "another", &own).expect_err("is foreign");
    assert!(error.to_string().contains("foreign: package is 0123abcd"), "{error}");
}

#[test]
fn damage_to_anything_that_is_checked_at_once_is_a_refusal_and_a_cold_load() {
    for (name, at, expected) in [
        (IMAGE, 0, "mark"),
        (IMAGE, 20, "header"),
        (IMAGE, 100, "header"),
        (MANIFEST, 30, "manifest does not match"),
        ("aux/config.json", 3, "config.json does not match"),
        ("aux/tokenizer.bin", 3, "tokenizer.bin does not match"),
        ("aux/template.json", 3, "template.json does not match"),
    ] {
        let fixture = Fixture::with_snapshot(None);
        flip(&fixture.file(name), at);
        let reason = fixture.refusal();
        assert!(reason.contains(expected), "{name} {at}: {reason}");
    }
    let fixture = Fixture::with_snapshot(None);
    let image = fixture.file(IMAGE);
    let length = fs::metadata(&image).expect("is there").len();
    flip(&image, length - 1);
    assert!(fixture.refusal().contains("index of the image"), "the index is checked");
}

#[test]
fn an_image_that_was_cut_or_a_file_that_is_missing_is_a_refusal() {
    for length in [0, 5, 127, 4096, DATA_START, DATA_START + 4096] {
        let fixture = Fixture::with_snapshot(None);
        let image = File::options().write(true).open(fixture.file(IMAGE)).expect("opens");
        image.set_len(length).expect("cuts");
        assert!(fixture.refusal().contains("damaged"), "{length}");
    }
    for name in ["aux/tokenizer.bin", MANIFEST] {
        let fixture = Fixture::with_snapshot(None);
        fs::remove_file(fixture.file(name)).expect("removes");
        let reason = fixture.refusal();
        assert!(reason.contains("missing") || reason.contains("no snapshot"), "{name}: {reason}");
    }
}

#[test]
fn a_flipped_bit_in_the_weights_is_found_by_its_chunk_and_before_use_if_wished() {
    let fixture = Fixture::with_snapshot(None);
    let first = fixture.open().index().tensors[1].clone();
    flip(&fixture.file(IMAGE), DATA_START + first.start + 2);
    let snapshot = fixture.open();
    let error = snapshot.verify_chunk(0, false).expect_err("is damaged").to_string();
    assert!(error.contains("chunk 0 of 1 does not match its CRC-32C"), "{error}");
    let mut options = fixture.warm_options();
    options.snapshots.verify_first = true;
    let loaded = fixture.load(&options);
    assert!(loaded.refused.expect("is refused").reason.contains("chunk 0"), "checked before use");
}

#[test]
fn a_whole_snapshot_verifies() {
    let fixture = Fixture::with_snapshot(Some("bf16"));
    let mut last = (0, 0);
    fixture.open().verify(&mut |done, total| last = (done, total)).expect("is whole");
    assert!(last.0 == last.1 && 0 < last.1);
}

#[test]
fn what_others_could_have_changed_is_not_trusted() {
    let fixture = Fixture::with_snapshot(None);
    let image = fixture.file(IMAGE);
    fs::set_permissions(&image, fs::Permissions::from_mode(0o620)).expect("is ours");
    assert!(fixture.refusal().contains("others may write to it"));
    fs::set_permissions(&image, fs::Permissions::from_mode(0o400)).expect("is ours");
    let folder = image.parent().expect("has one").to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o702)).expect("is ours");
    assert!(fixture.refusal().contains("others may write to it"));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("is ours");
    fs::hard_link(&image, fixture.home.path().join("second")).expect("links");
    assert!(fixture.refusal().contains("several names"));
    fs::rename(&image, fixture.home.path().join("moved")).expect("moves");
    std::os::unix::fs::symlink(fixture.home.path().join("moved"), &image).expect("links");
    assert!(fixture.refusal().contains("symbolic link"));
}

#[test]
fn only_one_process_writes_a_package_and_what_it_left_is_swept() {
    let fixture = Fixture::new(None);
    let store = fixture.store();
    let lock = store.lock(PACKAGE).expect("is free");
    assert!(matches!(store.lock(PACKAGE), Err(SnapshotError::Locked)));
    store.lock("another").expect("is free");
    drop(lock);
    store.lock(PACKAGE).expect("is free again");
    let staging = store.stage().expect("is made");
    let path = staging.path().to_owned();
    // Its writer lives: another node leaves it alone.
    fixture.store();
    assert!(path.is_dir());
    // A writer that was killed runs no destructor; only its lock is gone.
    let dead = path.with_file_name("77-1-1");
    fs::create_dir(&dead).expect("is made");
    fs::write(dead.join(IMAGE), "half").expect("is written");
    fixture.store();
    assert!(!dead.exists() && path.is_dir());
    drop(staging);
    assert!(!path.exists());
}

#[test]
fn publishing_again_replaces_the_old_one_whole() {
    let fixture = Fixture::with_snapshot(None);
    let old = fixture.open();
    fixture.publish();
    assert_eq!(fixture.store().list().expect("lists").len(), 1);
    old.verify(&mut |_, _| {}).expect_err("its small files are gone");
    for chunk in 0..old.num_chunks() {
        old.verify_chunk(chunk, true).expect("what is mapped stays");
    }
    fixture.open().verify(&mut |_, _| {}).expect("the new one is whole");
}

#[test]
fn the_least_recently_used_that_nobody_has_open_makes_room() {
    let fixture = Fixture::new(None);
    let store = fixture.store();
    let mut paths = Vec::new();
    for (age, dtype) in [(30, None), (20, Some("bf16")), (10, Some("q8_0"))] {
        let mut fixture = Fixture { options: LoadOptions::default(), ..Fixture::new(dtype) };
        fixture.options.dtype = dtype.map(str::to_owned);
        let recorded = fixture.record();
        let (lock, staging) = (store.lock(PACKAGE).expect("free"), store.stage().expect("made"));
        recorded.write(staging.path(), PACKAGE, Canary::default(), &mut |_, _| {}).expect("writes");
        let path = store.publish(&staging, &lock, &recorded.target().key()).expect("publishes");
        let used = SystemTime::now() - Duration::from_secs(age);
        File::open(&path).and_then(|file| file.set_modified(used)).expect("is ours");
        paths.push(path);
    }
    let bytes: u64 = store.list().expect("lists").iter().map(|listed| listed.bytes).sum();
    assert!(store.make_room(0, bytes).expect("there is room").is_empty());
    let open = Snapshot::inspect(&paths[0]).expect("opens");
    let removed = store.make_room(1, bytes).expect("makes room");
    assert_eq!(removed.iter().map(|one| &one.path).collect::<Vec<_>>(), [&paths[1]]);
    assert!(paths[0].is_dir() && !paths[1].exists() && paths[2].is_dir());
    drop(open);
    store.touch(PACKAGE, paths[0].file_name().and_then(|name| name.to_str()).expect("a name"));
    let error = store.make_room(bytes, bytes - 1).expect_err("never fits");
    assert!(matches!(error, SnapshotError::TooLarge { .. }));
    assert_eq!(store.list().expect("lists").len(), 2, "what never fits evicts nothing");
    let kept: u64 = store.list().expect("lists").iter().map(|listed| listed.bytes).sum();
    let removed = store.make_room(1, kept).expect("makes room");
    assert_eq!(removed[0].path, paths[2], "the other was used since");
}

#[test]
fn a_package_is_read_once_and_known_until_a_file_changes() {
    let fixture = Fixture::new(None);
    let (store, directory) = (fixture.store(), fixture.package.path());
    let identity = Identity::of(directory).expect("is read");
    assert_eq!(store.known(&identity), None);
    let digest = store.identify_at(&identity, SystemTime::UNIX_EPOCH).expect("is read");
    // Files that changed a moment ago could change again within one tick, so they are not remembered.
    assert_eq!(store.known(&identity), None);
    let later = SystemTime::now() + Duration::from_secs(2);
    assert_eq!(store.identify_at(&identity, later).expect("is read"), digest);
    assert_eq!(store.known(&identity).as_ref(), Some(&digest));
    let path = directory.join("weights/config.json");
    let (text, times) = (fs::read(&path).expect("reads"), fs::metadata(&path).expect("is there"));
    fs::write(&path, &text).expect("writes");
    File::open(&path)
        .and_then(|file| file.set_modified(times.modified().expect("is known")))
        .expect("is ours");
    // Same size, same contents, same time of modification: it has been written to all the same.
    let again = Identity::of(directory).expect("is read");
    assert_eq!(store.known(&again), None);
    assert_eq!(store.identify(&again).expect("is read"), digest, "equal contents, equal digest");
    write(directory, "weights/config.json", "{}");
    assert!(matches!(store.identify(&again), Err(SnapshotError::Changed { .. })));
    let changed = Identity::of(directory).expect("is read");
    assert_ne!(store.identify(&changed).expect("is read"), digest);
}

#[test]
fn two_copies_of_a_package_share_its_digest_and_a_renamed_file_does_not() {
    let (one, two) = (Fixture::new(None), Fixture::new(None));
    let name = "weights/model.safetensors";
    fs::copy(one.package.path().join(name), two.package.path().join(name)).expect("copies");
    let digest = |fixture: &Fixture| {
        let identity = Identity::of(fixture.package.path()).expect("is read");
        fixture.store().identify(&identity).expect("is read")
    };
    let first = digest(&one);
    assert_eq!(digest(&two), first);
    let (from, to) = ("weights/tokenizer_config.json", "weights/tokenizer_config.jso");
    fs::rename(two.package.path().join(from), two.package.path().join(to)).expect("renames");
    assert_ne!(digest(&two), first);
}
