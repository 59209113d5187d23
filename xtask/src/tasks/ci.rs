//! `cargo xtask ci`: everything that must pass before a change lands.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use super::{
    bench,
    command::{Interrupt, cargo},
    interop, rust_version, test, torture,
};

/// The feature sets that the library is linted with: each that somebody may be the only one to use. Without the tests and the rest of
/// the workspace, which turn features on that a set leaves out.
const FEATURE_SETS: [&[&str]; 7] = [
    &[],
    &["--no-default-features"],
    &["--no-default-features", "--features=postgres"],
    &["--no-default-features", "--features=mysql"],
    &["--no-default-features", "--features=sqlite"],
    &["--no-default-features", "--features=postgres,tls,metrics"],
    &["--no-default-features", "--features=mysql,tls,tracing"],
];

/// The crates that are published, each after those it depends on.
const PUBLISHED: [&str; 3] = ["dlock-macros", "dlock-runtime", "dlock-db"];

pub(crate) fn run() -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?;
    let mut steps = Steps::new(&interrupt, None);
    let outcome = steps.run_all();
    println!();
    for (name, duration) in &steps.done {
        println!("{:7.1} s  {name}", duration.as_secs_f32());
    }
    outcome
}

struct Steps<'a> {
    interrupt: &'a Interrupt,
    done: Vec<(String, Duration)>,
    /// Where the commands write, of those that run beside others.
    log: Option<File>,
}

impl<'a> Steps<'a> {
    fn new(interrupt: &'a Interrupt, log: Option<File>) -> Steps<'a> {
        Steps {
            interrupt,
            done: Vec::new(),
            log,
        }
    }

    fn run_all(&mut self) -> Result<ExitCode> {
        self.cargo("format", &["fmt", "--all", "--check"], &[])?;
        for manifest in [bench::MANIFEST, interop::MANIFEST] {
            let arguments = ["fmt", "--check", "--manifest-path", manifest];
            self.cargo(&format!("format, {manifest}"), &arguments, &[])?;
            // Nothing else here would notice that it is out of date.
            let arguments = ["fetch", "--locked", "--manifest-path", manifest];
            self.cargo(&format!("lock file, {manifest}"), &arguments, &[])?;
        }
        self.step("rust-version", |_| rust_version::check())?;
        self.clippy(
            "clippy, all features",
            &["--workspace", "--all-targets", "--all-features"],
        )?;
        let interrupt = self.interrupt;
        let target = bench::target(&bench::project());
        let log = target.join("ci-compile.log");
        let mut compiling = Steps::new(interrupt, Some(File::create(&log)?));
        // What only compiles has the processors while the others wait for their servers.
        let (tested, compiled) = thread::scope(|scope| {
            let compiled = scope.spawn(|| compiling.compile());
            (self.run_servers(), compiled.join())
        });
        self.done.append(&mut compiling.done);
        let compiled = compiled.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if compiled.is_err() {
            print!("{}", fs::read_to_string(&log)?);
        }
        let code = tested?;
        compiled.map(|()| code)
    }

    fn run_servers(&mut self) -> Result<ExitCode> {
        let clusters = [&test::CLUSTERS[..], &["--test-threads=3"]].concat();
        self.cargo("clusters", &clusters, &[])?;
        self.step("torture", torture::short)?;
        self.step("tests", |interrupt| test::run_with(interrupt, &[]))
    }

    fn compile(&mut self) -> Result<()> {
        self.packages()?;
        for features in FEATURE_SETS {
            let library = ["--package=dlock-db", "--package=dlock-runtime", "--lib"];
            let name = format!("clippy, library {}", features.join(" "));
            self.clippy(name.trim_end(), &[&library, features].concat())?;
        }
        // Without the peers, what they need is compiled already.
        let target = bench::target(&bench::project()).display().to_string();
        let benchmarks = [
            "--manifest-path",
            bench::MANIFEST,
            "--no-default-features",
            "--target-dir",
            &target,
        ];
        self.clippy("clippy, benchmarks", &benchmarks)?;
        let docs = [
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--all-features",
        ];
        self.cargo("docs", &docs, &[("RUSTDOCFLAGS", "-D warnings")])?;
        // Compiles the library anew, and is among the tests again: there it finds it compiled.
        let messages = [
            "test",
            "--locked",
            "--workspace",
            "--all-features",
            "--test=ui",
        ];
        self.cargo("error messages", &messages, &[])
    }

    /// Packages what is published, and builds the packages as a user would get them.
    ///
    /// Cargo takes a version that it has unpacked or built once for unchangeable, also that of a package that is not
    /// published yet. So each run has a folder of its own, and with it a registry that cargo has not seen before.
    fn packages(&mut self) -> Result<()> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let folder = workspace.join("target").join(format!("packages-{now}"));
        let path = folder.display().to_string();
        // A tree with changes is packaged too: what is tested is what lies there.
        let mut arguments = vec![
            "package",
            "--locked",
            "--allow-dirty",
            "--target-dir",
            &path,
        ];
        arguments.extend(PUBLISHED.iter().flat_map(|name| ["--package", name]));
        let outcome = self.cargo("packages", &arguments, &[]);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        forget_unpacked()?;
        outcome
    }

    fn clippy(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let arguments = [
            &["clippy", "--locked"],
            arguments,
            &["--", "-D", "warnings"],
        ]
        .concat();
        self.cargo(name, &arguments, &[])
    }

    fn cargo(&mut self, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        let log = self.log.as_ref().map(File::try_clone).transpose()?;
        self.step(name, |interrupt| {
            let mut command = cargo();
            if let Some(log) = &log {
                command = Command::new("nice");
                command.args(["-n", "19"]).arg(cargo().get_program());
                command.stdout(log.try_clone()?).stderr(log.try_clone()?);
            }
            command.args(arguments).envs(variables.iter().copied());
            let status = interrupt.run(&mut command)?;
            if !status.success() {
                bail!("`cargo {}` failed ({status})", arguments.join(" "));
            }
            Ok(())
        })
    }

    fn step<T>(&mut self, name: &str, work: impl FnOnce(&Interrupt) -> Result<T>) -> Result<T> {
        match &mut self.log {
            Some(log) => writeln!(log, "\n== {name}")?,
            None => println!("\n== {name}"),
        }
        let start = Instant::now();
        let outcome = work(self.interrupt).with_context(|| format!("the step `{name}` failed"))?;
        self.done.push((name.to_owned(), start.elapsed()));
        Ok(outcome)
    }
}

/// Removes what cargo has unpacked of packages that are not published: they lie where no registry's name is, and
/// nobody reads them again.
fn forget_unpacked() -> Result<()> {
    let home = env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().map(|home| home.join(".cargo")),
        |home| Some(PathBuf::from(home)),
    );
    let Some(unpacked) = home.and_then(|home| home.join("registry/src").read_dir().ok()) else {
        return Ok(());
    };
    for registry in unpacked {
        let registry = registry?;
        if !registry.file_name().to_string_lossy().starts_with('-') {
            continue;
        }
        for package in registry.path().read_dir()? {
            let package = package?;
            let name = package.file_name().to_string_lossy().into_owned();
            if PUBLISHED.iter().any(|ours| name.starts_with(ours)) {
                fs::remove_dir_all(package.path())?;
            }
        }
    }
    Ok(())
}
