//! A program of Python that holds locks as a test says.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// The program, which ends with this value.
#[derive(Debug)]
pub struct Python {
    child: Child,
    asking: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// Starts the interpreter that the variable names: that of an environment with the libraries installed.
    ///
    /// # Errors
    ///
    /// The variable is not set, or names no program.
    pub fn start(variable: &str) -> Result<Python> {
        let interpreter = std::env::var(variable).with_context(|| {
            format!(
                "{variable} must name a Python with the libraries: run `cargo xtask test --interop`"
            )
        })?;
        let mut child = Command::new(interpreter)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/locks.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asking = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Python {
            child,
            asking,
            answers,
        })
    }

    /// Tries once to take a lock; whether it was taken.
    ///
    /// # Errors
    ///
    /// The library failed.
    pub fn take(&mut self, library: &str, url: &str, kind: &str, key: &str) -> Result<bool> {
        let answer = self.ask(&["take", library, url, kind, key])?;
        match &*answer {
            "true" => Ok(true),
            "false" => Ok(false),
            other => bail!("neither true nor false: {other:?}"),
        }
    }

    /// Releases what was taken.
    ///
    /// # Errors
    ///
    /// The library failed.
    pub fn release(&mut self) -> Result<()> {
        match &*self.ask(&["release"])? {
            "ok" => Ok(()),
            other => bail!("not released: {other:?}"),
        }
    }

    fn ask(&mut self, words: &[&str]) -> Result<String> {
        writeln!(self.asking, "{}", words.join("\t"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            bail!("the program has ended; its last words are above");
        }
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
