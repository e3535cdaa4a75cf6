//! Files of a package, and everything that is none.

use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;
use crate::testing::write;

/// A package directory with a secret beside it.
fn package() -> (TempDir, PackageFiles) {
    let outside = TempDir::new().expect("a directory");
    write(outside.path(), "secret", "secret");
    write(outside.path(), "package/a.txt", "a");
    write(outside.path(), "package/sub/b.txt", "b");
    let files = PackageFiles::directory(&outside.path().join("package")).expect("opens");
    (outside, files)
}

#[test]
fn files_are_read_by_their_path_in_the_package() {
    let (_dir, files) = package();
    assert_eq!(files.read_text("a.txt", 10).expect("reads").as_deref(), Some("a"));
    assert_eq!(files.read_text("./sub//b.txt", 10).expect("reads").as_deref(), Some("b"));
    assert_eq!(files.read_text("c.txt", 10).expect("no error"), None);
    assert_eq!(files.read_text("a.txt/c.txt", 10).expect("no error"), None);
    assert_eq!(files.list("").expect("lists"), ["a.txt", "sub"]);
    assert_eq!(files.list("sub").expect("lists"), ["b.txt"]);
    assert!(files.list("none").expect("no error").is_empty());
}

#[test]
fn paths_that_could_leave_the_package_are_refused() {
    let (_dir, files) = package();
    for path in ["../secret", "sub/../../secret", "/etc/passwd", "", ".", "a\0b", "//", ".."] {
        let error = files.open(path).expect_err(path);
        assert!(matches!(error, FileError::Invalid { .. }), "{path:?}: {error}");
    }
}

#[test]
fn links_lead_inside_the_package_or_nowhere() {
    let (dir, files) = package();
    let root = dir.path().join("package");
    symlink("../secret", root.join("relative")).expect("links");
    symlink(dir.path().join("secret"), root.join("absolute")).expect("links");
    symlink(root.join("a.txt"), root.join("absolute_inside")).expect("links");
    symlink("..", root.join("up")).expect("links");
    symlink("loop", root.join("loop")).expect("links");
    symlink("sub/b.txt", root.join("inside")).expect("links");
    assert_eq!(files.read_text("inside", 10).expect("reads").as_deref(), Some("b"));
    for path in ["relative", "absolute", "absolute_inside", "up/secret", "loop"] {
        let error = files.open(path).expect_err(path);
        assert!(matches!(&error, FileError::Escapes { path: p } if p == path), "{path}: {error}");
        assert!(error.hint().is_some());
    }
    assert!(files.list("up").is_err());
}

#[test]
fn where_the_kernel_cannot_confine_an_open_no_link_is_followed() {
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    let (dir, _files) = package();
    let root = dir.path().join("package");
    symlink("../secret", root.join("out")).expect("links");
    symlink("..", root.join("up")).expect("links");
    symlink("a.txt", root.join("inside")).expect("links");
    let root = beneath::open_root(&root).expect("opens");
    let open = |path: &str| beneath::open_without_links(&root, path, OFlags::RDONLY).map(drop);
    assert_eq!(open("a.txt"), Ok(()));
    assert_eq!(open("sub/b.txt"), Ok(()));
    assert_eq!(open("none"), Err(Errno::NOENT));
    assert_eq!(open("a.txt/b.txt"), Err(Errno::NOTDIR));
    for path in ["out", "up/secret", "inside"] {
        assert_eq!(open(path), Err(Errno::XDEV), "{path}");
    }
}

#[test]
fn only_regular_files_are_opened_and_a_fifo_does_not_block() {
    let (dir, files) = package();
    let root = dir.path().join("package");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).expect("makes a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("binds");
    for (path, kind) in [("fifo", "FIFO"), ("sub", "directory"), ("socket", "socket")] {
        let error = files.open(path).expect_err(path);
        assert!(
            matches!(error, FileError::NotRegular { found, .. } if found == kind),
            "{path}: {error}"
        );
    }
}

#[test]
fn text_is_bounded_and_utf_8() {
    let (dir, files) = package();
    write(dir.path(), "package/binary", [b'a', 0xff]);
    write(dir.path(), "package/empty", []);
    let error = files.read_text("a.txt", 0).expect_err("too large");
    assert!(matches!(error, FileError::TooLarge { size: 1, limit: 0, .. }), "{error}");
    let error = files.read_text("binary", 10).expect_err("not UTF-8");
    assert!(matches!(error, FileError::NotUtf8 { offset: 1, .. }), "{error}");
    assert_eq!(files.read_text("empty", 10).expect("reads").as_deref(), Some(""));
}

#[test]
fn a_package_that_is_no_directory_says_so() {
    let (dir, _files) = package();
    let error = PackageFiles::directory(&dir.path().join("secret")).expect_err("a file");
    assert_eq!(error.code(), "package_unreadable");
    assert!(PackageFiles::directory(&dir.path().join("none")).is_err());
}

#[test]
fn embedded_files_are_found_and_listed_like_those_of_a_directory() {
    const FILES: &[EmbeddedFile] = &[("a.txt", b"a"), ("sub/b.txt", b"b"), ("sub/c/d.txt", b"d")];
    let files = PackageFiles::embedded("test", FILES);
    assert_eq!(files.read_text("sub/b.txt", 10).expect("reads").as_deref(), Some("b"));
    assert_eq!(files.read_text("sub", 10).expect("no error"), None);
    assert_eq!(files.list("").expect("lists"), ["a.txt", "sub"]);
    assert_eq!(files.list("sub").expect("lists"), ["b.txt", "c"]);
    assert!(files.open("../a.txt").is_err());
    assert_eq!(files.to_string(), "test (built in)");
}
