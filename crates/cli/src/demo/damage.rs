//! Damages a provider's data: one flipped byte in every 16 KiB of every shard on its disk.

use crate::failure::{Failure, Outcome};
use posync_provider::packs::{self, Extent};
use std::{
    fs::OpenOptions,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// Distance between two flipped bytes.
const EVERY: usize = 16 << 10;

/// The extent of the damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Number of damaged shards.
    pub(crate) shards: usize,
    /// Number of flipped bytes.
    pub(crate) bytes: usize,
}

/// Flips the bytes in the files below `storage` and makes the change durable.
pub(crate) fn damage(storage: &Path) -> Outcome<Damage> {
    let extents = packs::extents(storage).map_err(|error| Failure::file(storage, "read", error))?;
    let mut done = Damage::default();
    for extent in &extents {
        done.bytes += flip(extent).map_err(|error| Failure::file(&extent.path, "damage", error))?;
        done.shards += 1;
    }
    Ok(done)
}

fn flip(extent: &Extent) -> io::Result<usize> {
    let mut file = OpenOptions::new().read(true).write(true).open(&extent.path)?;
    let places: Vec<u64> = (extent.offset..extent.offset + extent.length).step_by(EVERY).collect();
    for place in &places {
        let mut byte = [0];
        file.seek(SeekFrom::Start(*place))?;
        file.read_exact(&mut byte)?;
        byte[0] ^= 1;
        file.seek(SeekFrom::Start(*place))?;
        file.write_all(&byte)?;
    }
    file.sync_data()?;
    Ok(places.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_sixteen_kibibytes_lose_one_byte() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("0");
        let before = vec![7; 100_000];
        fs::write(&path, &before).expect("writable");
        let extent = Extent { path: path.clone(), offset: 1_000, length: 40_000, shard: [0; 32] };
        assert_eq!(flip(&extent).expect("the file is there"), 3);
        let after = fs::read(&path).expect("readable");
        let changed: Vec<usize> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
        assert_eq!(changed, [1_000, 1_000 + EVERY, 1_000 + 2 * EVERY]);
    }
}
