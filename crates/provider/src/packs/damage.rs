//! Locates each shard's bytes in the real files, for tools that damage or inspect them.
//!
//! Reads the frame headers of the packs with `std::fs`, without opening the store, while a
//! provider runs or after it. The runtime puts blob `n` of a partition into `<dir>/<partition>/<hex n>`
//! behind a header page of 4096 bytes.

use super::{
    frame::{Frame, HEADER_BYTES},
    index::Index,
};
use posync_protocol::Hash;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Result, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Bytes of the runtime's header before a blob's data.
const BLOB_HEADER: u64 = 4096;

/// The location of a shard's bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Path of the pack.
    pub path: PathBuf,
    /// Offset of the shard's first byte in the file.
    pub offset: u64,
    /// Length of the shard in bytes.
    pub length: u64,
    /// Name of the shard: the BLAKE3 hash of those bytes.
    pub shard: Hash,
}

/// Locates the shards of every store below a provider's data directory.
///
/// # Errors
/// The directory or a file in it cannot be read.
pub fn extents(directory: &Path) -> Result<Vec<Extent>> {
    let mut all = vec![];
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_store =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.ends_with("-segments"));
        if is_store {
            all.extend(of_store(&path)?);
        } else if path.is_dir() {
            all.extend(extents(&path)?);
        }
    }
    Ok(all)
}

fn of_store(directory: &Path) -> Result<Vec<Extent>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| u32::from_str_radix(name.to_str()?, 16).ok());
        if let Some(number) = number {
            files.insert(number, path);
        }
    }
    let mut index = Index::default();
    for (number, path) in &files {
        walk(&mut index, *number, path)?;
    }
    let extent = |(shard, entry): (&Hash, &super::index::StoredShard)| Extent {
        path: files[&entry.place.pack].clone(),
        offset: BLOB_HEADER + entry.place.offset,
        length: entry.place.length.into(),
        shard: *shard,
    };
    Ok(index.shards().map(extent).collect())
}

fn walk(index: &mut Index, number: u32, path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len().saturating_sub(BLOB_HEADER);
    let (mut at, mut head) = (0, [0; HEADER_BYTES]);
    while at + HEADER_BYTES as u64 <= size {
        file.seek(SeekFrom::Start(BLOB_HEADER + at))?;
        file.read_exact(&mut head)?;
        let Some(frame) = Frame::parse(&head).filter(|frame| at + frame.size() <= size) else { break };
        index.apply(number, at, &frame);
        at += frame.size();
    }
    Ok(())
}
