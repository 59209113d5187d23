//! Unpacks the packages of Debian and Ubuntu into the user's cache, without installing anything.
//!
//! `apt-get` runs with a state of its own: its lists, its archives and its idea of what is installed lie in a private
//! directory, so that the system's are not touched. The mirrors are those of the machine's own sources.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Kind, place};

/// The release that has Oracle MySQL; Debian's stable releases have not.
const MYSQL_RELEASE: &str = "sid";

/// What is unpacked together, into one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bundle {
    /// A server of a kind.
    Server(Kind),
    /// MariaDB with all that a node of a Galera cluster needs.
    Galera,
    /// The pooler.
    PgBouncer,
    /// The library that shows a process another time.
    FakeTime,
}

impl Bundle {
    /// The name in file names.
    fn id(self) -> &'static str {
        match self {
            Self::Server(kind) => kind.id(),
            Self::Galera => "galera",
            Self::PgBouncer => "pgbouncer",
            Self::FakeTime => "faketime",
        }
    }

    /// What the names of the packages look like that bring it, with their dependencies.
    fn pattern(self) -> &'static str {
        match self {
            Self::Server(Kind::Postgres) => "^postgresql-[0-9]+$",
            Self::Server(Kind::MariaDb) => "^mariadb-server-core(-[0-9.]+)?$",
            Self::Server(Kind::MySql) => "^mysql-server-core(-[0-9.]+)?$",
            // Depends on the core, on galera-4, and on what the scripts of the state transfers call.
            Self::Galera => "^mariadb-server(-[0-9.]+)?$",
            Self::PgBouncer => "^pgbouncer$",
            Self::FakeTime => "^libfaketime$",
        }
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(kind) => kind.fmt(f),
            Self::Galera => f.write_str("MariaDB with Galera"),
            Self::PgBouncer => f.write_str("PgBouncer"),
            Self::FakeTime => f.write_str("libfaketime"),
        }
    }
}

/// The tree of a bundle, unpacked first where `usable` does not find in it what it looks for.
pub(crate) fn unpacked<T>(bundle: Bundle, usable: impl Fn(&Path) -> Result<T>) -> Result<T> {
    let tree = cached(bundle)?;
    // Libraries of the machine may have gone since the packages were unpacked.
    if let Ok(found) = usable(&tree) {
        return Ok(found);
    }
    fetch(bundle, &tree)?;
    usable(&tree)
}

/// The directory of the unpacked packages, which may not be there yet.
fn cached(bundle: Bundle) -> Result<PathBuf> {
    let machine = Machine::own();
    let name = format!(
        "{}-{}-{}-{}",
        bundle.id(),
        machine.id,
        machine.codename,
        std::env::consts::ARCH
    );
    Ok(place::cache()?.join(name))
}

/// Downloads and unpacks the packages of one bundle to `tree`.
///
/// Several processes may ask at once: one does the work, and `tree` appears at once and complete.
fn fetch(bundle: Bundle, tree: &Path) -> Result<()> {
    let machine = Machine::own();
    if !machine.has_packages() {
        bail!(
            "{bundle} is not installed, and its packages can be unpacked on Debian and Ubuntu only"
        );
    }
    let seen = fs::metadata(tree)
        .ok()
        .and_then(|metadata| metadata.modified().ok());
    let _lock = place::lock(&tree.with_extension("lock"))?;
    let now = fs::metadata(tree)
        .ok()
        .and_then(|metadata| metadata.modified().ok());
    if now != seen {
        // Another process was faster.
        return Ok(());
    }
    eprintln!(
        "{bundle} is not installed: its packages are unpacked to {}",
        tree.display()
    );
    // A leftover of a run that was killed; the lock says that nobody uses it.
    let work = tree.with_extension("new");
    place::remove(&work)?;
    let apt = Apt::prepare(bundle, &machine, &work)?;
    apt.get(["update"])?;
    let package = apt.newest_package(bundle)?;
    apt.get([
        "install",
        "--yes",
        "--no-install-recommends",
        "--download-only",
        &package,
    ])?;
    let root = work.join("root");
    fs::create_dir(&root)?;
    for archive in apt.archives(bundle, &machine)? {
        run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
    }
    place::remove(tree)?;
    fs::rename(&root, tree)?;
    place::remove(&work)
}

/// What the machine says it is.
struct Machine {
    id: String,
    codename: String,
    like: String,
}

impl Machine {
    fn own() -> Self {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map_or_else(String::new, |value| value.trim_matches('"').to_owned())
        };
        Self {
            id: field("ID"),
            codename: field("VERSION_CODENAME"),
            like: field("ID_LIKE"),
        }
    }

    fn has_packages(&self) -> bool {
        let words = format!("{} {}", self.id, self.like);
        words
            .split_whitespace()
            .any(|word| word == "debian" || word == "ubuntu")
    }

    /// Whether the packages of `bundle` come from another release than the machine's.
    fn needs_other_release(&self, bundle: Bundle) -> bool {
        bundle == Bundle::Server(Kind::MySql) && self.id == "debian"
    }
}

/// One source of packages.
struct Source {
    address: String,
    release: String,
    component: String,
    signed_by: Option<String>,
}

impl Source {
    /// The sources of the machine's own release, its updates included.
    fn own(machine: &Machine) -> Result<Vec<Self>> {
        let told = run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)",
            "Created-By: Packages",
        ]))?;
        let sources: Vec<Self> = told.lines().filter_map(Self::parse).collect();
        let names = [
            machine.codename.as_str(),
            "stable",
            "testing",
            "unstable",
            "sid",
        ];
        let main = names
            .iter()
            .find(|name| sources.iter().any(|source| source.release == **name))
            .context("the machine's apt sources do not name its own release")?;
        let wanted = ["", "-updates", "-security"].map(|suffix| format!("{main}{suffix}"));
        Ok(sources
            .into_iter()
            .filter(|source| wanted.contains(&source.release))
            .collect())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('|').map(str::to_owned);
        Some(Self {
            address: fields.next()?,
            release: fields.next()?,
            component: fields.next()?,
            // What is not known is left as it was asked for.
            signed_by: fields.next().filter(|key| key.starts_with('/')),
        })
    }

    fn line(&self, release: &str) -> String {
        let keyring = self.signed_by.clone().or_else(|| {
            ["debian", "ubuntu"]
                .map(|name| format!("/usr/share/keyrings/{name}-archive-keyring.gpg"))
                .into_iter()
                .find(|path| Path::new(path).exists() && !self.address.contains("ubuntu"))
        });
        let option = keyring.map_or_else(String::new, |path| format!("[signed-by={path}] "));
        format!(
            "deb {option}{} {release} {}\n",
            self.address, self.component
        )
    }
}

/// `apt-get` with a state of its own.
struct Apt {
    configuration: PathBuf,
    archives: PathBuf,
}

impl Apt {
    fn prepare(bundle: Bundle, machine: &Machine, work: &Path) -> Result<Self> {
        let archives = work.join("cache/archives");
        fs::create_dir_all(archives.join("partial"))
            .with_context(|| format!("cannot create {}", archives.display()))?;
        fs::create_dir_all(work.join("lists/partial"))?;
        let sources = Source::own(machine)?;
        let (lines, status) = if machine.needs_other_release(bundle) {
            let main = sources.iter().find(|source| source.component == "main");
            let main = main.context("the machine's apt sources have no component `main`")?;
            // Everything down to the C library: nothing of the machine's counts as installed.
            (main.line(MYSQL_RELEASE), String::new())
        } else {
            let lines = sources
                .iter()
                .map(|source| source.line(&source.release))
                .collect();
            (
                lines,
                fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default(),
            )
        };
        fs::write(work.join("sources.list"), lines)?;
        fs::write(work.join("status"), status)?;
        let configuration = work.join("apt.conf");
        let path = work.display();
        fs::write(
            &configuration,
            format!(
                r#"Dir::State "{path}";
Dir::State::lists "{path}/lists";
Dir::State::status "{path}/status";
Dir::Cache "{path}/cache";
Dir::Etc::sourcelist "{path}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
// The user of downloads has no way into a private directory.
APT::Sandbox::User "";
// Hooks which are meant for the system's own state.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
"#
            ),
        )?;
        Ok(Self {
            configuration,
            archives,
        })
    }

    fn get<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        run(Command::new("apt-get")
            .arg("-q")
            .arg("-c")
            .arg(&self.configuration)
            .args(arguments))
    }

    /// The name of the package: the one without a version in its name, else the newest.
    fn newest_package(&self, bundle: Bundle) -> Result<String> {
        let found = run(Command::new("apt-cache")
            .arg("-c")
            .arg(&self.configuration)
            .args(["search", "--names-only", bundle.pattern()]))?;
        found
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .max_by_key(|name| version_in_name(name))
            .map(str::to_owned)
            .with_context(|| format!("the machine's apt sources have no package with {bundle}"))
    }

    /// The downloaded archives that belong into the tree.
    fn archives(&self, bundle: Bundle, machine: &Machine) -> Result<Vec<PathBuf>> {
        let own_libc = machine.needs_other_release(bundle);
        let mut archives = Vec::new();
        for entry in fs::read_dir(&self.archives)? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            // The machine's C library serves packages of the machine's release, and must not be mixed with another.
            let is_libc = name.starts_with("libc6_") || name.starts_with("libc-bin_");
            let is_archive = path.extension().is_some_and(|extension| extension == "deb");
            if is_archive && (own_libc || !is_libc) {
                archives.push(path);
            }
        }
        if archives.is_empty() {
            bail!("apt-get downloaded nothing for {bundle}");
        }
        Ok(archives)
    }
}

/// The version in a package's name; a name without one ranks highest.
fn version_in_name(name: &str) -> Vec<u32> {
    match name.rsplit_once('-') {
        Some((_, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => version
            .split('.')
            .filter_map(|part| part.parse().ok())
            .collect(),
        _ => vec![u32::MAX],
    }
}

/// Runs a command; its output on success, its complaint as the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !done.status.success() {
        let complaint = String::from_utf8_lossy(&done.stderr);
        bail!("`{program}` failed ({}): {}", done.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::version_in_name;

    #[test]
    fn a_newer_package_ranks_higher_and_one_without_a_version_highest() {
        assert!(version_in_name("postgresql-17") > version_in_name("postgresql-9"));
        assert!(
            version_in_name("mysql-server-core-8.4") > version_in_name("mysql-server-core-8.0")
        );
        assert!(version_in_name("mysql-server-core") > version_in_name("mysql-server-core-8.4"));
    }
}
