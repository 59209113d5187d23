//! Ends a server when the process that started it is gone, however it went.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use super::{Kind, process::Process};

/// Waits for the end of its standard input, which comes when the other end's process is gone, also by SIGKILL.
/// Then: thaw the server and its children, end it, and remove its directories.
const SCRIPT: &str = r#"
read -r _ && exit 0
pid=$1 started=$2 signal=$3
shift 3
runs() { [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20)" = "$started" ]; }
if runs; then
    for status in /proc/[0-9]*/status; do
        if grep -q "^PPid:[[:space:]]*$pid\$" "$status" 2>/dev/null; then
            child=${status#/proc/}
            kill -CONT "${child%/status}" 2>/dev/null
        fi
    done
    kill -CONT "$pid"
    kill "-$signal" "$pid"
    tries=0
    while runs && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    runs && kill -KILL "$pid"
fi
rm -rf "$@"
"#;

/// The guard of one run of a server. Dropped, it goes away and leaves the server alone.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Guards `server`; its directories are removed with it.
    pub(crate) fn start(kind: Kind, server: Process, directories: [&Path; 2]) -> Result<Self> {
        let child = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("watchdog")
            .args([server.pid.to_string(), server.started.to_string()])
            .arg(match kind {
                // Ends at once too, but removes its shared memory.
                Kind::Postgres => "QUIT",
                Kind::MariaDb | Kind::MySql => "KILL",
            })
            .args(directories)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C, which would end the guard before the guarded.
            .process_group(0)
            .current_dir("/")
            .spawn()
            .context("cannot start `sh`")?;
        Ok(Self(child))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killed before its standard input is closed, which would set it off.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
