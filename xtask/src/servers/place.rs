//! Where things lie: data below `target/servers`, sockets in short directories, programs in the user's cache.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result, bail};

use super::process::Process;

/// The directory of all servers of this clone.
pub(crate) fn servers() -> Result<PathBuf> {
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => env::current_dir()?.join(target),
        None => workspace().join("target"),
    };
    let servers = target.join("servers");
    fs::create_dir_all(&servers).with_context(|| format!("cannot create {}", servers.display()))?;
    Ok(servers)
}

/// The workspace that this program was built from.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The user's cache directory, for unpacked packages.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("dlock").join("servers"))
}

/// The name of the directory of one more server, which names this process as its owner.
pub(crate) fn extra_name(id: &str) -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let own = Process::own()?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("extra-{}-{}-{count}-{id}", own.pid, own.started))
}

/// Creates a private directory with a short path: the path of a Unix socket has at most 107 bytes.
pub(crate) fn create_run_directory() -> Result<PathBuf> {
    let temporary = env::temp_dir();
    let parent = if temporary.as_os_str().len() > 60 {
        Path::new("/tmp")
    } else {
        temporary.as_path()
    };
    for _ in 0..16 {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(8)
            .collect();
        let path = parent.join(format!("dlock-{name}"));
        // Fails when somebody else owns the name; nothing is ever put into a directory that was there.
        if fs::DirBuilder::new().mode(0o700).create(&path).is_ok() {
            return Ok(path);
        }
    }
    bail!("cannot create a directory in {}", parent.display())
}

/// The user that runs a server which refuses to be root; `None` when this process is not root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unprivileged {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Unprivileged {
    pub(crate) fn needed() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let nobody = accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == "nobody").then_some(())?;
            let (uid, gid) = (fields.nth(1)?, fields.next()?);
            Some(Self {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            })
        });
        nobody.map(Some).context(
            "PostgreSQL does not run as root, and there is no user `nobody` to run it; \
             start it yourself and set DLOCK_TEST_POSTGRES_URL",
        )
    }
}

/// Lets every user read a file.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("cannot change {}", path.display()))
}

/// Lets the user have a directory, and everything in it.
pub(crate) fn give(path: &Path, user: Option<Unprivileged>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), Some(user))?;
        }
    }
    Ok(())
}

/// Whether every user can reach `path`.
pub(crate) fn reachable_by_all(path: &Path) -> bool {
    path.ancestors().all(|directory| {
        fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

/// Where an unprivileged user reaches what `tree` holds: there, else in a copy.
///
/// One copy serves all servers of this clone where that user gets to their directory; else each has its own in `run`.
pub(crate) fn reachable_copy(tree: &Path, run: &Path) -> Result<PathBuf> {
    if reachable_by_all(tree) {
        return Ok(tree.to_owned());
    }
    let servers = servers()?;
    let name = tree.file_name().unwrap_or_default().to_string_lossy();
    let (copy, new) = if reachable_by_all(&servers) {
        // A tree that was unpacked anew is copied anew.
        let age = fs::metadata(tree)?.modified()?;
        let age = age.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let programs = servers.join("programs");
        fs::create_dir_all(&programs)?;
        (
            programs.join(format!("{name}-{age}")),
            programs.join(format!("{name}.new")),
        )
    } else {
        (run.join(&*name), run.join(format!("{name}.new")))
    };
    let _lock = lock(&new.with_extension("lock"))?;
    if !copy.exists() {
        remove(&new)?;
        self::copy(tree, &new)?;
        fs::rename(&new, &copy)?;
    }
    Ok(copy)
}

/// Copies a directory with everything in it, owners included.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    // `cp` shares the blocks of the files where the file system can.
    let done = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .output()
        .context("cannot run `cp`")?;
    if !done.status.success() {
        bail!(
            "cannot copy {} to {}: {}",
            from.display(),
            to.display(),
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}

/// Removes a directory with everything in it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Takes a lock between processes, held until the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<fs::File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let file =
        fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
