//! What decides which tokens a package gives, as one text: a generation goes on after a restart
//! only where it is the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ipc::PackageSource;

/// Files up to this size are read whole; of larger ones, size, time and beginning count.
const SMALL_BYTES: u64 = 4 << 20;
const MAX_DEPTH: usize = 8;

/// The identity of a package that is computed with in some way.
pub(super) fn identity(source: &PackageSource, computed: &[&str]) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    part(env!("CARGO_PKG_VERSION").as_bytes());
    computed.iter().for_each(|text| part(text.as_bytes()));
    match source {
        PackageSource::Starter => part(b"starter"),
        PackageSource::Directory(root) => {
            let mut files = Vec::new();
            list(root, MAX_DEPTH, &mut files)?;
            files.sort_unstable();
            for path in files {
                let name = path.strip_prefix(root).unwrap_or(&path);
                part(name.as_os_str().as_encoded_bytes());
                part(&content(&path)?);
            }
        }
    }
    let bytes = digest.finalize();
    let number = bytes.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Ok(format!("{number:032x}"))
}

/// Files of a package: links are followed, hidden files are no part of it.
fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && 0 < depth => list(&path, depth - 1, files)?,
            Ok(metadata) if metadata.is_file() => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut content = Vec::new();
    if SMALL_BYTES < metadata.len() {
        content.extend(metadata.len().to_le_bytes());
        content.extend(metadata.mtime().to_le_bytes());
        content.extend(metadata.mtime_nsec().to_le_bytes());
    }
    file.take(SMALL_BYTES).read_to_end(&mut content)?;
    Ok(content)
}
