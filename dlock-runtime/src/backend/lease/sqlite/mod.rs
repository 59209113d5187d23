//! Leases in a table of a file of SQLite, for the processes of one machine.
//!
//! Two threads, each with a connection: one takes and releases, the other renews. Nobody can be woken here; those who wait
//! ask. The clock is the machine's, which can step: so a lease is taken from its holder only by one that saw its row
//! unchanged for the whole ttl.

mod desk;
mod file;
mod session;
mod sql;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::answers_within;
use super::row::{KEPT, REVOKED, Reader, Row, Stamped, Waiter, parse};
use super::shared::micros;
use super::store::{Announced, Answer, Claim, Notice, Released, Renewal, Renewed, Store, Swap};
use crate::config::LeaseSettings;
use crate::error::InitError;
use crate::key::Mode;
use desk::Desk;
use session::Session;
use sql::{Found, Table};

/// The longest pause between two tries: reading a local file costs little.
const ASKS_EVERY: Duration = Duration::from_millis(50);

/// So long after its end a lease is over also for one who has not watched it, if it was written by a clock that was set.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// The beginning of 2025: a clock that says less was not set yet.
const CLOCK_IS_SET: i64 = 1_735_689_600 * 1_000_000;

/// The table of leases in a file of SQLite.
pub(crate) struct SqliteStore {
    /// Takes and releases.
    main: Desk,
    /// Renews.
    side: Desk,
    table: Arc<Table>,
    /// How long an answer may take before it counts as lost.
    answers_within: Duration,
}

impl SqliteStore {
    /// Opens the file, and makes file and table where they are missing. Also gives what the database is.
    pub(crate) async fn open(
        path: &Path,
        settings: &LeaseSettings,
    ) -> Result<(SqliteStore, String), InitError> {
        // From now on it is this file, also when the program changes its directory.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path: Arc<PathBuf> = Arc::new(absolute);
        let session = || Session {
            path: path.clone(),
            table: settings.table.clone(),
            busy: (settings.ttl / 12).min(Duration::from_secs(1)),
            connect_timeout: settings.connect_timeout,
            open: None,
        };
        let store = SqliteStore {
            main: Desk::start(session())?,
            side: Desk::start(session())?,
            table: Arc::new(Table::new(&settings.table, &settings.namespace)),
            answers_within: answers_within(settings.ttl),
        };
        for desk in [&store.main, &store.side] {
            let limit = settings.connect_timeout.saturating_mul(2);
            let opened = desk.ask(limit, Session::connect).await;
            opened.map_err(|error| InitError::Unreachable {
                endpoint: path.display().to_string(),
                reason: error.to_string(),
                source: None,
            })??;
        }
        Ok((store, format!("SQLite {}", rusqlite::version())))
    }

    /// Changes a row, if there is one and `change` says so by its answer.
    async fn change<T: Send + 'static>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Found, &str) -> (bool, T) + Send + 'static,
    ) -> Answer<Option<T>> {
        let (table, name) = (self.table.clone(), name.to_owned());
        let changing = move |session: &mut Session| {
            session.write(|connection, file| {
                let Some(mut found) = table.read(connection, &name)? else {
                    return Ok(None);
                };
                let (is_changed, answer) = change(&mut found, file);
                if is_changed {
                    table.write(connection, &name, &found)?;
                }
                Ok(Some(answer))
            })
        };
        self.main.ask(self.answers_within, changing).await?
    }
}

impl Store for SqliteStore {
    async fn take(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        let (table, name, ttl) = (self.table.clone(), claim.name.to_owned(), micros(claim.ttl));
        let (owner, program, stale) = (
            claim.owner.to_owned(),
            claim.program.to_owned(),
            claim.stale,
        );
        let taking = move |session: &mut Session| {
            // Who asks again and again keeps nobody from writing.
            let seen = session.read(|connection| table.read(connection, &name))?;
            if seen.is_some_and(|found| !may_take(&found.row, stale)) {
                return Ok(None);
            }
            session.write(|connection, file| {
                let mut found = table.read(connection, &name)?;
                if found.is_none() {
                    table.insert(connection, &name)?;
                    found = table.read(connection, &name)?;
                }
                let Some(mut found) = found.filter(|found| may_take(&found.row, stale)) else {
                    return Ok(None);
                };
                found.note_run(None);
                let row = &mut found.row;
                row.waiters.remove(&owner);
                row.readers.clear();
                row.token += 1;
                row.version += 1;
                row.expires_at = row.now.saturating_add(ttl);
                (row.owner, row.program, row.ttl) = (owner, program, ttl);
                let token = row.token;
                file.clone_into(&mut found.file);
                table.write(connection, &name, &found)?;
                Ok(Some(token))
            })
        };
        self.main.ask(self.answers_within, taking).await?
    }

    async fn read(&self, name: &str) -> Answer<Option<Row>> {
        let (table, name) = (self.table.clone(), name.to_owned());
        let reading =
            move |session: &mut Session| session.read(|connection| table.read(connection, &name));
        let found = self.main.ask(self.answers_within, reading).await??;
        Ok(found.map(|found| found.row))
    }

    async fn list(&self, only: Option<&str>) -> Answer<Vec<Stamped>> {
        let (table, only) = (self.table.clone(), only.map(str::to_owned));
        let listing = move |session: &mut Session| {
            session.read(|connection| table.list(connection, only.as_deref()))
        };
        self.main.ask(self.answers_within, listing).await?
    }

    async fn revoke(&self, name: &str, version: u64) -> Answer<bool> {
        let revoked = self.change(name, move |found, _| {
            let row = &mut found.row;
            if row.version != version || row.is_free() {
                return (false, false);
            }
            REVOKED.clone_into(&mut row.owner);
            row.readers.clear();
            row.token += 1;
            row.version += 1;
            (true, true)
        });
        Ok(revoked.await?.unwrap_or(false))
    }

    async fn create(&self, name: &str) -> Answer<()> {
        let (table, name) = (self.table.clone(), name.to_owned());
        let creating = move |session: &mut Session| {
            session.write(|connection, _| match table.read(connection, &name)? {
                Some(_) => Ok(()),
                None => table.insert(connection, &name),
            })
        };
        self.main.ask(self.answers_within, creating).await?
    }

    async fn swap(&self, name: &str, change: &Swap) -> Answer<bool> {
        let change = change.clone();
        let swapped = self.change(name, move |found, file| {
            if found.row.version != change.version {
                return (false, false);
            }
            found.note_run(None);
            if change.last_run.is_some() {
                found.last_run = change.last_run;
            }
            let row = &mut found.row;
            row.token = change.token.unwrap_or(row.token);
            row.owner.clear();
            row.program.clear();
            row.readers = parse::<Reader>(&change.readers);
            row.waiters.remove(&*change.owner);
            row.expires_at = change.expires_at;
            row.ttl = micros(change.ttl);
            row.version += 1;
            file.clone_into(&mut found.file);
            (true, true)
        });
        Ok(swapped.await?.unwrap_or(false))
    }

    async fn announce(&self, notice: &Notice<'_>) -> Answer<Option<Announced>> {
        let owner = notice.owner.to_owned();
        let (since, lasts) = (notice.since, micros(notice.lasts));
        let mode = u8::from(notice.mode == Mode::Exclusive);
        let announced = self.change(notice.name, move |found, _| {
            let row = &mut found.row;
            if row.is_given_back() {
                return (false, None);
            }
            let now = row.now;
            let since = since.unwrap_or(now);
            let waiter = Waiter(since, now.saturating_add(lasts), mode);
            row.waiters.retain(|_, waiter| !waiter.has_gone(now, true));
            row.waiters.insert(owner, waiter);
            let remaining = u64::try_from(row.expires_at.saturating_sub(row.now)).unwrap_or(0);
            let announced = Announced {
                since,
                remaining: Duration::from_micros(remaining.max(1)),
            };
            (true, Some(announced))
        });
        Ok(announced.await?.flatten())
    }

    async fn retract(&self, name: &str, owner: &str) -> Answer<bool> {
        let owner = owner.to_owned();
        let retracting = self.change(name, move |found, _| {
            (found.row.waiters.remove(&owner).is_some(), ())
        });
        retracting.await?;
        Ok(false)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Answer<Vec<Renewed>> {
        let (table, renewals) = (self.table.clone(), renewals.to_vec());
        let renewing = move |session: &mut Session| {
            session.write(|connection, file| {
                let mut outcomes = Vec::with_capacity(renewals.len());
                for renewal in &renewals {
                    let mut found = table.read(connection, &renewal.name)?;
                    let stands = found
                        .as_mut()
                        .filter(|found| found.file == file)
                        .and_then(|found| lengthen(found, renewal));
                    if let Some(found) = &stands {
                        table.write(connection, &renewal.name, found)?;
                    }
                    outcomes.push(match stands {
                        Some(_) => Renewed::Yes,
                        None => Renewed::Lost,
                    });
                }
                Ok(outcomes)
            })
        };
        self.side.ask(self.answers_within, renewing).await?
    }

    async fn release(
        &self,
        name: &str,
        owner: &str,
        token: u64,
        kept_for: Option<Duration>,
    ) -> Answer<Released> {
        let owner = owner.to_owned();
        let released = self.change(name, move |found, file| {
            let is_here = found.file == file;
            let was_held = is_here && found.row.owner == owner && found.row.token == token;
            if was_held {
                found.note_run(Some(found.row.now));
            }
            let row = &mut found.row;
            let is_wanted = was_held && row.is_wanted(true);
            if was_held {
                if let Some(kept_for) = kept_for.map(micros) {
                    row.owner.insert_str(0, KEPT);
                    row.expires_at = row.now.saturating_add(kept_for);
                    row.ttl = kept_for;
                } else {
                    row.owner.clear();
                    row.program.clear();
                    row.expires_at = 0;
                }
                row.version += 1;
            }
            let released = Released {
                was_held,
                is_wanted,
            };
            (was_held, released)
        });
        Ok(released.await?.unwrap_or(Released {
            was_held: false,
            is_wanted: false,
        }))
    }

    async fn wake(&self, _: &str) {}

    fn wakes(&self) -> bool {
        false
    }

    fn asks_every(&self) -> Option<Duration> {
        Some(ASKS_EVERY)
    }

    fn doubts_clock(&self) -> bool {
        true
    }

    async fn pause(&self) {
        time::sleep(Duration::from_millis(fastrand::u64(20..100))).await;
    }

    /// There is no server.
    fn connections(&self) -> usize {
        0
    }

    fn close(&self, reason: &str) {
        self.main.close(reason);
        self.side.close(reason);
    }
}

/// Whether a claim gets the lock. `stale`: the version at which it saw the row unchanged for its whole ttl.
fn may_take(row: &Row, stale: Option<u64>) -> bool {
    let is_long_over =
        row.expires_at > CLOCK_IS_SET && row.expires_at.saturating_add(DAY) < row.now;
    row.is_given_back() || stale == Some(row.version) || is_long_over
}

/// Lengthens a lease that still has owner and token, and an end that has not come. No renewal brings an end nearer.
fn lengthen<'a>(found: &'a mut Found, renewal: &Renewal) -> Option<&'a Found> {
    let row = &mut found.row;
    let ttl = micros(renewal.ttl);
    let ends = row.now.saturating_add(ttl);
    match renewal.mode {
        Mode::Exclusive => {
            if row.owner != *renewal.owner || row.token != renewal.token || row.is_free() {
                return None;
            }
            row.expires_at = row.expires_at.max(ends);
            row.ttl = row.ttl.max(ttl);
        }
        Mode::Shared => {
            let now = row.now;
            match row.readers.get_mut(&*renewal.owner) {
                Some(reader) if reader.0 == renewal.token && reader.1 > now => {
                    reader.1 = reader.1.max(ends);
                }
                _ => return None,
            }
            row.expires_at = row.expires_at.max(ends);
            // Another reader's lease may last longer.
            row.ttl = row.ttl.max(ttl);
        }
    }
    row.version += 1;
    Some(found)
}
