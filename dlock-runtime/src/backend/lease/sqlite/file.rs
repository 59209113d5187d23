//! What a file is: on which file system, and whether it is still the one that was opened.
//!
//! Nothing here opens the file: closing it again would drop the locks that SQLite holds on it for this process.

use std::path::Path;

use crate::error::InitError;

/// Device and inode of the file that a path leads to now. `None`: to none.
pub(super) fn identity(path: &Path) -> Option<String> {
    let found = rustix::fs::stat(path).ok()?;
    Some(format!("{}:{}", found.st_dev, found.st_ino))
}

/// Refuses directories, and file systems on which locks of files are not to be relied on.
pub(super) fn check(path: &Path) -> Result<(), InitError> {
    let shown = path.display().to_string();
    if path.is_dir() {
        return Err(refused(
            shown,
            "it is a directory",
            "name a file in it, such as sqlite:path/locks.db, or write memory: for locks of this process alone",
        ));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        return Err(refused(
            shown,
            "its directory does not exist, or may not be entered",
            "make the directory first; the file itself is created",
        ));
    }
    // The path itself where it exists: it may be a link to elsewhere.
    let on = if path.exists() { path } else { parent };
    match network(on) {
        None => Ok(()),
        Some(name) => Err(refused(
            shown,
            &format!(
                "it lies on a network file system ({name}), where locks of files are not to be relied on"
            ),
            "name a file on a local disk, or use a server",
        )),
    }
}

pub(super) fn refused(endpoint: String, reason: &str, remedy: &str) -> InitError {
    InitError::UnsafeServer {
        endpoint,
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn network(path: &Path) -> Option<&'static str> {
    // The type of the field differs from machine to machine; the numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let kind = rustix::fs::statfs(path).ok()?.f_type as u32;
    network_of(kind)
}

/// Elsewhere the number of a file system says nothing that holds.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn network(_: &Path) -> Option<&'static str> {
    None
}

/// The file systems of Linux that other machines can change, by their numbers in `statfs`.
fn network_of(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x6969 => "NFS",
        0x517B => "SMB",
        0xFF53_4D42 => "CIFS",
        0xFE53_4D42 => "SMB2",
        // Local ones exist, but cannot be told from sshfs and its like.
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9P",
        0x00C3_6400 => "Ceph",
        0x7375_7245 => "Coda",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x564C => "NCP",
        0x0BD0_0BD0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0x786F_4256 => "VirtualBox",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        for (kind, name) in [
            (0x6969, "NFS"),
            (0xFF53_4D42, "CIFS"),
            (0x6573_5546, "FUSE"),
        ] {
            assert_eq!(network_of(kind), Some(name));
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs.
        for kind in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630] {
            assert_eq!(network_of(kind), None, "{kind:x}");
        }
    }
}
