//! How each kind of server is initialised and started.
//!
//! The settings make a server quick and small (no fsync, small buffers). No time-out and no limit is changed that could
//! hide a bug; only the number of connections is raised, since tests of many threads run at once.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    DATABASE, Kind, PASSWORD, USER,
    place::{self, Unprivileged},
    programs::Programs,
};

/// Where one server has its data, its socket and its port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Site {
    /// A private directory with a short path, for the socket.
    pub(crate) run: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
}

/// The command that starts a server on initialised data.
pub(crate) fn start(
    kind: Kind,
    programs: &Programs,
    site: &Site,
    user: Option<Unprivileged>,
) -> Command {
    let mut command = programs.command();
    match kind {
        Kind::Postgres => {
            command.arg("-D").arg(&site.data).arg("-k").arg(&site.run);
            command.args(["-p", &site.port.to_string()]);
            for setting in [
                "listen_addresses=127.0.0.1",
                "max_connections=200",
                "max_prepared_transactions=8",
                "fsync=off",
                "full_page_writes=off",
                "shared_buffers=16MB",
                // In the data directory, so that a killed server leaves nothing behind in /dev/shm.
                "dynamic_shared_memory_type=mmap",
            ] {
                command.args(["-c", setting]);
            }
        }
        Kind::MariaDb | Kind::MySql => {
            base(kind, programs, &site.data, user, &mut command);
            command
                .arg(flag("socket", &site.run.join("s")))
                .arg(flag("pid-file", &site.run.join("pid")))
                .arg(format!("--port={}", site.port))
                .args([
                    "--bind-address=127.0.0.1",
                    "--skip-name-resolve",
                    "--max-connections=200",
                ]);
        }
    }
    as_user(&mut command, user, &site.run);
    command
}

/// Initialises the data directory `data`, with the accounts and the database of the tests.
pub(crate) fn initialise(
    kind: Kind,
    programs: &Programs,
    run: &Path,
    data: &Path,
    user: Option<Unprivileged>,
) -> Result<()> {
    match kind {
        Kind::Postgres => initialise_postgres(programs, run, data, user),
        Kind::MariaDb => initialise_mariadb(programs, run, data, user),
        Kind::MySql => initialise_mysql(programs, run, data, user),
    }
}

fn initialise_postgres(
    programs: &Programs,
    run: &Path,
    data: &Path,
    user: Option<Unprivileged>,
) -> Result<()> {
    let password = run.join("password");
    fs::write(&password, PASSWORD)?;
    if let Some(user) = user {
        std::os::unix::fs::chown(&password, Some(user.uid), Some(user.gid))?;
    }
    let mut initdb = programs.companion("initdb");
    initdb
        .arg("-D")
        .arg(data)
        .arg("--pwfile")
        .arg(&password)
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
    as_user(&mut initdb, user, run);
    feed(&mut initdb, "")?;
    fs::remove_file(&password)?;
    let mut single = programs.command();
    single
        .args(["--single", "-c", "fsync=off", "-D"])
        .arg(data)
        .arg("postgres");
    as_user(&mut single, user, run);
    // One statement a line.
    feed(
        &mut single,
        &format!(
            "CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'\nCREATE DATABASE {DATABASE} OWNER {USER}\n"
        ),
    )
}

fn initialise_mariadb(
    programs: &Programs,
    run: &Path,
    data: &Path,
    user: Option<Unprivileged>,
) -> Result<()> {
    let share = ["share/mysql", "share/mariadb"]
        .map(|share| programs.base().join(share))
        .into_iter()
        .find(|share| share.join("mysql_system_tables.sql").is_file())
        .context(
            "the MariaDB programs come without their system tables (mysql_system_tables.sql)",
        )?;
    // What `mariadb-install-db` does. That script also wants programs of the client's package.
    let mut statements = String::from(
        "CREATE DATABASE mysql;\nUSE mysql;\n\
         SET @auth_root_socket=NULL, @skip_auth_anonymous=1, @current_hostname='localhost';\n",
    );
    for file in [
        "mysql_system_tables.sql",
        "mysql_performance_tables.sql",
        "mysql_system_tables_data.sql",
        "maria_add_gis_sp_bootstrap.sql",
        "mysql_sys_schema.sql",
    ] {
        let path = share.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Lines that mention it would add accounts for the name of this host.
        statements.extend(
            text.lines()
                .filter(|line| !line.contains("@current_hostname"))
                .flat_map(|line| [line, "\n"]),
        );
    }
    statements.push_str("FLUSH PRIVILEGES;\n");
    statements.push_str(&accounts(Kind::MariaDb));
    fs::create_dir(data)?;
    place::give(data, user)?;
    let mut command = programs.command();
    base(Kind::MariaDb, programs, data, user, &mut command);
    as_user(&mut command, user, run);
    command.args([
        "--bootstrap",
        "--enforce-storage-engine=",
        "--max-allowed-packet=8M",
    ]);
    feed(&mut command, &statements)
}

fn initialise_mysql(
    programs: &Programs,
    run: &Path,
    data: &Path,
    user: Option<Unprivileged>,
) -> Result<()> {
    let file = run.join("accounts.sql");
    fs::write(&file, accounts(Kind::MySql))?;
    place::give(&file, user)?;
    let mut command = programs.command();
    base(Kind::MySql, programs, data, user, &mut command);
    as_user(&mut command, user, run);
    // The redo log of the running server is too small to take the whole system schema at once.
    command
        .arg("--innodb-redo-log-capacity=64M")
        .arg("--initialize-insecure")
        .arg(flag("init-file", &file));
    feed(&mut command, "")?;
    // The server's unique id: each copy shall get its own.
    fs::remove_file(data.join("auto.cnf")).context("MySQL wrote no auto.cnf")
}

/// The statements that create the accounts, one a line.
fn accounts(kind: Kind) -> String {
    let admin = kind.admin();
    // MariaDB's accounts without a password, which would come before the one for every host.
    let others = match kind {
        Kind::MariaDb => format!("DROP USER IF EXISTS '{admin}'@'127.0.0.1', '{admin}'@'::1';\n"),
        _ => String::new(),
    };
    format!(
        "{others}CREATE DATABASE {DATABASE};\n\
         ALTER USER '{admin}'@'localhost' IDENTIFIED BY '{PASSWORD}';\n\
         CREATE USER '{admin}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON *.* TO '{admin}'@'%' WITH GRANT OPTION;\n\
         CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON {DATABASE}.* TO '{USER}'@'%';\n"
    )
}

/// The options that initialisation and running have in common.
fn base(
    kind: Kind,
    programs: &Programs,
    data: &Path,
    user: Option<Unprivileged>,
    command: &mut Command,
) {
    // First of all: the machine's own option files are not meant for this server.
    command
        .arg("--no-defaults")
        .arg(flag("basedir", programs.base()))
        .arg(flag("datadir", data));
    if !programs.are_installed() {
        let share = programs.base().join("share/mysql");
        command.arg(flag("lc-messages-dir", &share));
        command.arg(flag("character-sets-dir", &share.join("charsets")));
        command.arg(flag(
            "plugin-dir",
            &programs.base().join("lib/mysql/plugin"),
        ));
    }
    if user.is_none() && rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    command.args([
        "--innodb-buffer-pool-size=32M",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=OFF",
        // Asynchronous I/O is scarce in containers.
        "--innodb-use-native-aio=OFF",
        "--innodb-buffer-pool-load-at-startup=OFF",
        "--innodb-buffer-pool-dump-at-shutdown=OFF",
        "--skip-log-bin",
    ]);
    match kind {
        Kind::MySql => {
            command.args(["--secure-file-priv=NULL", "--mysqlx=OFF"]);
        }
        _ => {
            command.arg("--innodb-log-file-size=8M");
        }
    }
}

pub(crate) fn flag(name: &str, path: &Path) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(format!("--{name}="));
    flag.push(path);
    flag
}

pub(crate) fn as_user(command: &mut Command, user: Option<Unprivileged>, run: &Path) {
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    // The directory this program was started in may be closed to that user.
    command.current_dir(run);
}

/// Runs a command to its end with `input` as its standard input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let stdin = child.stdin.take();
    let input = input.to_owned();
    // Beside the reading of its messages: each side could otherwise wait for the other.
    let writer = std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program that stops early says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
    });
    let done = child.wait_with_output()?;
    let _ = writer.join();
    let complaint = String::from_utf8_lossy(&done.stderr);
    // Both `postgres --single` and `mariadbd --bootstrap` may end well in spite of a failed statement.
    if !done.status.success()
        || complaint
            .lines()
            .any(|line| line.starts_with("ERROR:") || line.contains(" ERROR:  "))
    {
        bail!("{program} failed ({}): {}", done.status, complaint.trim());
    }
    Ok(())
}
