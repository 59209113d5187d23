//! The programs of a server: installed ones, else unpacked packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    Kind,
    packages::{self, Bundle},
    place::{self, Unprivileged},
};

/// The server program of one kind, with what it takes to run it and its companions.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    kind: Kind,
    server: PathBuf,
    /// The root of the unpacked packages; `None` for installed programs.
    tree: Option<PathBuf>,
    /// What the program says about itself.
    version: String,
}

impl Programs {
    /// Finds the installed programs, or fetches them.
    pub(crate) fn find(kind: Kind) -> Result<Self> {
        for server in installed(kind) {
            if let Ok(programs) = Self::at(kind, server, None) {
                return Ok(programs);
            }
        }
        packages::unpacked(Bundle::Server(kind), |tree| Self::in_tree(kind, tree))
            .with_context(|| remedy(kind))
    }

    /// The programs of a tree.
    pub(crate) fn in_tree(kind: Kind, tree: &Path) -> Result<Self> {
        let server = in_tree(kind, tree)
            .with_context(|| format!("no {kind} server program in {}", tree.display()))?;
        Self::at(kind, server, Some(tree.to_owned()))
    }

    fn at(kind: Kind, server: PathBuf, tree: Option<PathBuf>) -> Result<Self> {
        let mut programs = Self {
            kind,
            server,
            tree,
            version: String::new(),
        };
        let told = programs.command().arg("--version").output()?;
        String::from_utf8_lossy(&told.stdout)
            .trim()
            .clone_into(&mut programs.version);
        let named_mariadb = programs.version.contains("MariaDB");
        if !told.status.success() || (kind == Kind::MySql && named_mariadb) {
            bail!("{} is no {kind} server", programs.server.display());
        }
        Ok(programs)
    }

    /// The same programs where an unprivileged user reaches them: copied if need be.
    pub(crate) fn reachable(self, user: Option<Unprivileged>, run: &Path) -> Result<Self> {
        match self.tree.as_deref().filter(|_| user.is_some()) {
            Some(tree) => Self::in_tree(self.kind, &place::reachable_copy(tree, run)?),
            None => Ok(self),
        }
    }

    /// The root of the unpacked packages; `None` for installed programs.
    pub(crate) fn tree(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// A command that runs the server program.
    pub(crate) fn command(&self) -> Command {
        self.run(&self.server)
    }

    /// A command that runs a program beside the server program.
    pub(crate) fn companion(&self, name: &str) -> Command {
        self.run(&self.server.with_file_name(name))
    }

    /// The directory above `bin` and `sbin`.
    pub(crate) fn base(&self) -> &Path {
        self.server.ancestors().nth(2).unwrap_or(Path::new("/usr"))
    }

    /// Whether the programs are installed, and find their own files.
    pub(crate) fn are_installed(&self) -> bool {
        self.tree.is_none()
    }

    fn run(&self, program: &Path) -> Command {
        match &self.tree {
            Some(tree) => command_in(tree, program),
            None => Command::new(program),
        }
    }
}

/// A command that runs a program of a tree of unpacked packages.
pub(crate) fn command_in(tree: &Path, program: &Path) -> Command {
    let libraries = libraries(tree);
    // Packages of another release than the machine's come with a C library, which only their own loader can load.
    if let Some(loader) = loader(tree) {
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(libraries).arg(program);
        return command;
    }
    let mut command = Command::new(program);
    if !libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

/// Where the server program may be installed.
fn installed(kind: Kind) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    if kind == Kind::Postgres {
        directories.extend(postgres_directories(Path::new("/usr/lib/postgresql")));
    }
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    directories.extend(["/usr/sbin", "/usr/local/sbin", "/usr/local/mysql/bin"].map(PathBuf::from));
    let name = match kind {
        Kind::Postgres => "postgres",
        Kind::MariaDb => "mariadbd",
        Kind::MySql => "mysqld",
    };
    directories
        .into_iter()
        .map(|directory| directory.join(name))
        .filter(|server| server.is_file())
        .filter(|server| kind != Kind::Postgres || server.with_file_name("initdb").is_file())
        .collect()
}

/// The `bin` directories of a Debian layout, the newest version first.
fn postgres_directories(parent: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions
        .into_iter()
        .map(|(_, directory)| directory)
        .collect()
}

fn in_tree(kind: Kind, tree: &Path) -> Option<PathBuf> {
    let server = match kind {
        Kind::Postgres => {
            let directories = postgres_directories(&tree.join("usr/lib/postgresql"));
            directories.first()?.join("postgres")
        }
        Kind::MariaDb => tree.join("usr/sbin/mariadbd"),
        Kind::MySql => tree.join("usr/sbin/mysqld"),
    };
    server.is_file().then_some(server)
}

/// The directories of the tree's libraries, joined as the loader wants them.
fn libraries(tree: &Path) -> std::ffi::OsString {
    let parent = tree.join("usr/lib");
    let directories = fs::read_dir(&parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"))
        .map(|entry| entry.path());
    // A path with a colon in it cannot be said to the loader at all.
    env::join_paths(directories).unwrap_or_default()
}

fn loader(tree: &Path) -> Option<PathBuf> {
    ["usr/lib64", "usr/lib"].into_iter().find_map(|directory| {
        fs::read_dir(tree.join(directory))
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
            })
    })
}

/// What one can do where this program cannot get a server.
fn remedy(kind: Kind) -> String {
    format!(
        "cannot get a {kind} server; install one, or give tests a server of yours: \
         {}, {} and {} take URLs, and compose.yaml starts all three with Docker",
        Kind::Postgres.url_variable(),
        Kind::MariaDb.url_variable(),
        Kind::MySql.url_variable(),
    )
}
