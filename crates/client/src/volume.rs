//! Free space on the volume of a directory.

use std::{io, path::Path};

/// Bytes that this process may still write to the volume that holds `directory`.
///
/// # Errors
/// The directory or its volume cannot be queried.
pub fn free(directory: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(directory)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_room_and_a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(free(directory.path()).expect("it is there") > 0);
        assert!(free(&directory.path().join("not mounted")).is_err());
    }
}
